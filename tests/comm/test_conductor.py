"""How calls begin and who does their work; the calls: test_group.py and test_asynchronous.py."""

import threading

from minipar import run
from minipar.comm.conductor import Load


def test_a_call_goes_to_the_second_thread_while_that_has_work_left():
    """So the two are done in the order in which they were made."""

    def work(group):
        threads = []

        def call_that_notes_its_thread():
            _, call, _ = group._begin("barrier", "", Load(0), None)
            group._carry_out(call, 0, lambda: threads.append(threading.current_thread()), False)

        call_that_notes_its_thread()
        handle = group.barrier(async_op=True)
        call_that_notes_its_thread()
        done = handle.done()
        own = threading.current_thread()
        return done, [thread is own for thread in threads]

    assert run(work, 2) == [(True, [True, False])] * 2


def test_all_groups_of_a_rank_share_their_second_thread_and_what_they_remember():
    def work(group):
        half = group.split(group.rank % 2)
        again = half.subgroup([0])
        groups = [group, half, *([] if again is None else [again])]
        shared = {(id(g._worker), id(g._serials), id(g.history)) for g in groups}
        return len(shared), group._serials.highest

    assert run(work, 4) == [(1, 2)] * 4
