"""Lost ranks that are reported: what the others hear, that they go on, and the next incarnation."""

import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

import minipar
from minipar.comm.frame import Call
from minipar.comm.launch import run_processes, script_work
from minipar.comm.losses import Losses, Lost
from minipar.comm.transport import ANY
from minipar.errors import Deadlock, PeerLost, UsageError
from tests.comm import losing

BACKENDS = ["local", "process"]
HOW = {"local": "raise", "process": "kill"}
SLOWLY = ["local", pytest.param("process", marks=pytest.mark.slow)]


def run(fn, p, *args, backend="process", restarts=0, timeout_s=30.0):
    return minipar.run(
        fn,
        p,
        args=args,
        backend=backend,
        on_lost="report",
        restarts=restarts,
        timeout_s=timeout_s,
    )


def test_the_next_incarnation_knows_who_is_lost_for_good_and_not_who_is_back():
    before = [Lost(1, 0, "", True), Lost(2, 0, "", True), Lost(0, 0, "rank 0 fell", False)]
    losses = Losses(1, 3, before)
    losses.know(0, (0, 1, 2))
    send = Call(0, 0, "send", "", "")
    assert losses.incarnation == 1 and losses.for_good == {0}
    assert losses.end_of(send, 2, losses.partner(2, send)) is None
    for _ in range(2):
        with pytest.raises(PeerLost, match="rank 0 fell; rank 1 was in send"):
            losses.check(send, 0)
    assert losses.untold(0, lambda *_: True) is None  # something of it is left
    lost = losses.untold(0, lambda *_: False)
    assert lost == before[2]
    losses.tell_any(0, lost)
    assert losses.untold(0, lambda *_: False) is None


def test_what_the_old_one_sent_is_nothing_for_who_talks_to_the_new_one():
    def work(group):
        if group.rank == 1:
            for i in range(2):
                group.send(np.array([group.incarnation, i]), 0)
            group.send(np.array(0), 2)
            if group.incarnation == 0:
                raise ValueError("no")
            return group.recv(0).tolist()
        if group.rank == 2:
            group.recv(1)
            group.send(np.array(losing.told(group.recv, 1)[0]), 0)
            return None
        assert group.recv(2) == 1
        assert losing.told(group.send, np.ones(1), 1)[:3] == (1, 0, True)
        group.send(np.array(7), 1)
        new = [group.recv(1).tolist(), group.recv(1).tolist()]
        old = [group.recv(ANY)[1].tolist() for _ in range(2)]
        return new, old, losing.told(group.recv, ANY)[1], group.poll()

    zero, one, _ = run(work, 3, backend="local", restarts=1)
    assert zero == ([[1, 0], [1, 1]], [[0, 0], [0, 1]], 0, False) and one == 7


WAYS = {
    "raise": (ValueError, r"rank 1 raised ValueError: it has had enough"),
    "kill": (PeerLost, r"rank 1 was killed by signal 9 \(SIGKILL\); its last call was send #0"),
    "_exit": (PeerLost, r"rank 1 ended with exit code 3 and without a word; its last call was"),
    "exit": (PeerLost, r"rank 1 called sys.exit\(7\)"),
    "stop": (PeerLost, r"rank 1 is stopped \(SIGSTOP\); its last call was send #0"),
}


@pytest.mark.parametrize(
    ("how", "backend"),
    [
        ("raise", "local"),
        ("kill", "process"),
        *(
            pytest.param(how, "process", marks=pytest.mark.slow)
            for how in ("raise", "_exit", "exit", "stop")
        ),
    ],
)
def test_only_calls_that_involve_the_lost_rank_say_so(how, backend, capfd):
    kind, says = WAYS[how]
    zero, one, two = run(losing.in_every_way, 3, how, backend=backend)
    assert type(one) is kind and (kind is ValueError or re.match(says, str(one)))
    assert zero.pop(0) == [5]  # what it had sent
    for rank, (r1, r2, s, to_other, a, b, any_, poll, other, total, incarnation) in enumerate(
        (zero, two)
    ):
        for error, call in ((r1, "recv"), (r2, "recv"), (s, "send"), (a, "all_re"), (b, "barr")):
            assert error[:3] == (1, 0, False)
            assert re.match(f"{says}.*; rank {2 * rank} was in {call}.* at .*losing.py:", error[3])
        assert any_ is not None and any_[0] == 1
        assert to_other is None and poll and other == [1.0] and incarnation == 0
        assert (total == 4).all()
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "the others go on" in said[0] and "rank 1" in said[0]


@pytest.mark.slow
def test_before_the_first_call():
    zero, _ = run(losing.never_begins, 2)
    assert [error[0] for error in zero] == [1, 1]
    assert "its last call was none yet" in zero[0][3]


@pytest.mark.parametrize(
    ("nbytes", "heap"),
    [(4 << 20, False), *(pytest.param(*c, marks=pytest.mark.slow) for c in
     [(300_000, False), (32 << 20, False), (4 << 20, True)])],
)  # fmt: skip
def test_a_half_sent_message_is_never_received(nbytes, heap):
    zero, _, _ = run(losing.half_sent, 3, nbytes, heap)
    assert zero[0] in (1, True) and zero[1] is True  # True: it was complete, which loans may be


@pytest.mark.slow
@pytest.mark.parametrize("heap", [False, True])
def test_a_sender_that_dies_while_it_helps_to_copy(heap):
    """From the heap, which outlives it, its receiver copies the rest itself."""
    assert run(losing.dies_while_helping, 2, 8 << 20, heap)[0] in (1, True)


@pytest.mark.slow
def test_a_sender_that_dies_while_its_memory_is_read():
    zero, one = run(losing.dies_while_it_is_read, 2, 4 << 20, restarts=1)
    assert zero == [True, (1, 0, True), True, True] and one == 1


@pytest.mark.parametrize("backend", SLOWLY)
@pytest.mark.parametrize(
    ("call", "sends"),
    [("all_reduce", 2), ("async", 2), ("split", 1), ("broadcast", 1), ("all_to_all", 1)],
)
def test_inside_a_collective(call, sends, backend):
    how = HOW[backend]
    zero, one, two = run(losing.inside_a_collective, 3, call, sends, how, backend=backend)
    assert zero == two == (1, 1, [4.0, 4.0])
    assert isinstance(one, WAYS[how][0])


def expected(lives, pushes):
    heard = []
    for life in range(lives):
        heard += [[life, i] for i in range(life + 2)] + [f"lost {life}"]
    return heard + [[lives, i] for i in [*range(pushes), -1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_hears_what_was_sent_then_the_loss_once_then_the_next_incarnation(backend):
    if backend == "local":
        lives = {}
        results = minipar.run(serve_and_raise, 3, on_lost="report", restarts=2)
        lives = {2: 2}
    else:
        lives = {1: 1, 2: 2}
        results = run(losing.serve, 3, lives, 4, restarts=3)
    heard, *incarnations = results
    assert incarnations == [lives.get(1, 0), lives[2]]
    for rank in (1, 2):
        assert heard[rank] == expected(lives.get(rank, 0), 4)


def serve_and_raise(group):
    die, losing.die = losing.die, lambda how="kill": die("raise")
    try:
        return losing.serve(group, {2: 2}, 4)
    finally:
        losing.die = die


@pytest.mark.parametrize(
    ("backend", "n"),
    [
        ("local", 3),
        pytest.param("process", 3, marks=pytest.mark.slow),
        pytest.param("local", 1 << 20, marks=pytest.mark.slow),
        pytest.param("process", 1 << 20, marks=pytest.mark.slow),
    ],
)
def test_workers_talk_to_the_next_server(backend, n):
    how = HOW[backend]
    zero, *workers = run(losing.server_dies, 3, n, how, backend=backend, restarts=1)
    assert zero == 1
    for says in workers:
        assert [x for x in says if x != "lost"][-1] == 11
        assert says.count("lost") == 1


@pytest.mark.slow
def test_a_rank_that_has_raised_is_lost_whatever_goes_on_in_its_process():
    zero, one = run(losing.something_keeps_it, 2)
    assert zero[0] == 1 and isinstance(one, ValueError)


@pytest.mark.parametrize("backend", SLOWLY)
def test_two_that_are_lost_at_once_meet_again(backend):
    zero, one, two, three = run(losing.two_at_once, 4, HOW[backend], backend=backend, restarts=2)
    assert zero == two == [1, 3] and (one, three) == (3, 1)


@pytest.mark.parametrize("backend", SLOWLY)
def test_a_deadlock_of_those_who_are_left_is_still_seen(backend):
    with pytest.raises(Deadlock, match="rank 0 waits for rank 2, rank 1 is lost, rank 2 waits for"):
        run(losing.waits_for_each_other, 3, backend=backend)


def test_if_all_are_lost_the_first_of_them_is_raised():
    with pytest.raises(ValueError, match="it has had enough"):
        run(lambda group: losing.die("raise"), 3, backend="local")


@pytest.mark.slow
def test_a_process_that_breaks_after_its_return_is_its_entry():
    zero, one, two = run(losing.breaks_after_its_return, 3, restarts=1)
    assert zero == 0 and "rank 1 ended with exit code 5" in str(one) and two == 1


def test_a_message_to_oneself_and_a_second_thread_in_the_next_incarnation():
    def work(group):
        handle = group.all_reduce(np.ones(2), async_op=True)
        if group.rank == 1 and group.incarnation == 0:
            raise ValueError("no")
        try:
            handle.wait()
        except PeerLost as error:
            assert error.rank == 1
        group.send(np.array(group.incarnation), group.rank)
        return int(group.recv(group.rank))

    def first(group):
        if group.incarnation == 0:
            return work(group)
        group.send(np.array(7), group.rank)
        return int(group.recv(group.rank)), losing.told(group.barrier)[:3]

    assert run(first, 2, backend="local", restarts=1) == [0, (7, (1, 0, True))]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"on_lost": "ignore"}, "on_lost is 'abort' or 'report', not 'ignore'"),
        ({"restarts": 1}, "restarts needs on_lost='report'"),
        ({"on_lost": "report", "restarts": -1}, "so it is not -1"),
    ],
)
def test_wrong_use_is_one_sentence(more, says):
    with pytest.raises(UsageError, match=says):
        minipar.run(lambda group: None, 2, **more)


def test_launchers_that_share_memory_refuse_it():
    nodes = SimpleNamespace(memory=(3, 4))
    with pytest.raises(UsageError, match="cannot be reported where torchrun or srun has started"):
        run_processes(script_work("script.py"), 2, nodes=nodes, restarts=0)


@pytest.mark.slow
def test_twenty_lives(capfd):
    before = len(os.listdir("/proc/self/fd"))
    assert run(losing.many_lives, 2, 20, restarts=20, timeout_s=60.0) == [20, 20]
    assert len(os.listdir("/proc/self/fd")) == before
    assert capfd.readouterr().err.count("it is started again") == 20
