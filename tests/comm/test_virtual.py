"""Virtual time: by hand, by the formulas of `cost`, and the same every time."""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar import ANY, Cluster, cost
from minipar.comm.algorithms import ALGORITHMS
from minipar.errors import CallMismatch, Deadlock, PeerLost
from minipar.events import last

NS = 1e-9
A, B, G = 1000, 3, 7  # ns per message, per byte sent, per byte added
PLAIN = Cluster(A * NS, B * NS, G * NS)
X = np.zeros(100, np.uint8)
C = A + 100 * B  # what X takes


def run(work, p, cluster=PLAIN):
    """What work returns on each rank, the same in a second run."""
    found = minipar.run(work, p, cluster=cluster)
    assert found == minipar.run(work, p, cluster=cluster)
    return found


def compute(group, ns):
    group.spend(ns * NS)


# -- one message, one port in, one port out ---------------------------------------------------


def test_a_message_occupies_both_ends_for_alpha_and_n_beta():
    def work(group):
        if group.rank:
            group.recv(0)
        else:
            group.send(X, 1)
        return group.now_ns()

    assert run(work, 2) == [C, C]


def test_a_message_waits_for_whoever_is_later():
    def work(group, late):
        if group.rank == late:
            compute(group, 5 * C)
        if group.rank:
            group.recv(0)
        else:
            group.send(X, 1)
        return group.now_ns()

    assert run(lambda g: work(g, 0), 2) == [6 * C, 6 * C]
    assert run(lambda g: work(g, 1), 2) == [C, 5 * C]  # it came in meanwhile


def test_a_rank_sends_one_message_at_a_time():
    def work(group):
        if group.rank:
            group.recv(0)
            return group.now_ns()
        sends = [group.isend(X, dst) for dst in (1, 2, 3)]
        begun = group.now_ns()
        done = [send.done() for send in sends]
        sends[1].wait()
        half = group.now_ns()
        done += [send.done() for send in sends]
        return begun, half, done

    assert run(work, 4) == [(0, 2 * C, [False] * 3 + [True, True, False]), C, 2 * C, 3 * C]


def test_a_rank_receives_one_message_at_a_time_in_the_order_of_leaving():
    def work(group):
        if group.rank == 3:
            return [(group.recv(ANY)[0], group.now_ns()) for _ in range(3)]
        compute(group, [20, 10, 10][group.rank])
        group.send(X, 3)
        return group.now_ns()

    sent = [20 + C, 10 + C, 10 + C]
    assert run(work, 4) == [*sent, [(1, 10 + C), (2, 10 + 2 * C), (0, 10 + 3 * C)]]


def test_what_the_receiver_has_asked_for_goes_first():
    def work(group):
        if group.rank:
            compute(group, [0, 0, 10, 20][group.rank])
            return group.send(X, 0)
        order = (1, 3, 2)
        return [(src, group.recv(src) is not None and group.now_ns()) for src in order]

    assert run(work, 4)[0] == [(1, C), (3, 2 * C), (2, 3 * C)]


def test_sending_and_receiving_go_on_at_the_same_time():
    def work(group):
        group.sendrecv(X, 1 - group.rank, 1 - group.rank)
        return group.now_ns()

    assert run(work, 2) == [C, C]


def test_while_a_rank_adds_nothing_comes_in():
    def work(group):
        group.reduce(X, algorithm="naive")
        return group.now_ns()

    assert run(work, 4) == [3 * (C + 100 * G), C, C, C]


def test_links_within_a_node_and_between_nodes():
    far = Cluster(A * NS, B * NS, 0, per_node=2, between=(9000 * NS, 11 * NS))

    def work(group):
        if group.rank == 0:
            for dst in (1, 2):
                group.send(X, dst)
        elif group.rank < 3:
            group.recv(0)
        return group.now_ns()

    away = 9000 + 11 * 100
    assert run(work, 4, far) == [C + away, C, C + away, 0]


PAIR = 7000, 13  # ns per message, and per byte


def pair(a, b):
    return Cluster(A * NS, B * NS, G * NS, pairs={(a, b): [x * NS for x in PAIR]})


def test_a_link_of_one_pair_is_slow_both_ways_and_the_rest_is_as_ever():
    def work(group, src, dst):
        if group.rank == src:
            group.send(X, dst)
        elif group.rank == dst:
            group.recv(src)
        return group.now_ns()

    for link in [(0, 1), (1, 2), (2, 1), (2, 0)]:
        took = PAIR[0] + 100 * PAIR[1] if set(link) == {1, 2} else C
        found = run(lambda g, link=link: work(g, *link), 3, pair(2, 1))
        assert found == [took if rank in link else 0 for rank in range(3)]


@pytest.mark.parametrize("p", [2, 3, 5, 8])
def test_a_ring_is_as_fast_as_its_slowest_link(p):
    def work(group):
        group.all_reduce(np.zeros(24 * group.size, np.uint8), algorithm="ring")
        return group.now_ns()

    def ring(p, alpha, beta):
        return int(cost.ring_all_reduce(p, 24 * p).seconds(alpha, beta, G))

    assert max(run(work, p, pair(0, p - 1))) == ring(p, *PAIR)
    if p > 3:  # ranks 0 and 2 never talk to each other
        assert run(work, p, pair(0, 2)) == [ring(p, A, B)] * p


# -- who comes first --------------------------------------------------------------------------


def test_any_gets_the_message_that_arrives_first_whoever_ran_first():
    """Rank 1 is asked first in rank order, but computes longer."""

    def work(group):
        if group.rank == 0:
            return [(group.recv(ANY)[0], group.now_ns()) for _ in range(4)]
        for _ in range(2):
            compute(group, 10_000)
            group.send(X, 0)
        return None

    cluster = Cluster(A * NS, B * NS, slow={1: 5.0})
    step = 10_000 + C
    assert run(work, 3, cluster)[0] == [
        (2, step), (2, 2 * step), (1, 50_000 + C), (1, 2 * (50_000 + C)),
    ]  # fmt: skip


def test_a_straggler_computes_and_adds_longer():
    def work(group):
        compute(group, 100)
        alone = group.now_ns()
        group.all_reduce(np.zeros(100, np.uint8), algorithm="ring")
        return alone, group.now_ns()

    cluster = Cluster(A * NS, B * NS, G * NS, slow={1: 3})
    half = A + 50 * B
    first = 300 + half + 50 * G, 300 + half + 3 * 50 * G  # when each has added its chunk
    assert run(work, 2, cluster) == [(100, first[1] + half), (300, first[1] + half)]


def test_side_effects_come_in_the_order_of_time():
    seen = []

    def work(group):
        for _ in range(3):
            compute(group, [30, 20, 20][group.rank])
            seen.append((group.now_ns(), group.rank))

    minipar.run(work, 3, cluster=PLAIN)
    assert seen == sorted(seen) and len(seen) == 9


# -- asking -----------------------------------------------------------------------------------


def test_a_question_hears_of_all_that_has_happened_up_to_now():
    def work(group):
        if group.rank:
            return group.send(X, 0)
        found = []
        for ns in (C - 1, 1, 1):
            compute(group, ns)
            found.append((group.poll(1), group.poll(), group.now_ns()))
        return found

    assert run(work, 2)[0] == [(False, False, C - 1), (True, True, C), (True, True, C + 1)]


def test_a_question_comes_last_at_its_moment():
    def work(group):
        compute(group, 10)
        if group.rank:
            return group.isend(X, 0) is None
        return group.poll()

    assert run(work, 2, Cluster(0, 0, 0))[0]


def test_a_loop_around_a_question_ends_when_the_answer_changes():
    def work(group):
        if group.rank:
            compute(group, 777)
            return group.send(X, 0)
        while not group.poll():
            pass
        seen, receiving = group.now_ns(), group.irecv(1)
        while not receiving.done():
            pass
        return seen, group.now_ns()

    assert run(work, 2)[0] == (777 + C, 777 + C)


def test_two_ranks_that_ask_in_turn():
    def work(group):
        for turn in range(3):
            if turn % 2 == group.rank:
                compute(group, 50)
                group.isend(X, 1 - group.rank)
            else:
                while not group.poll():
                    pass
                group.recv(1 - group.rank)
        return group.now_ns()

    assert run(work, 2) == [2 * (50 + C) + 50, 3 * (50 + C)]


# -- beside the rank --------------------------------------------------------------------------


@pytest.mark.parametrize("ns", [10, 100_000])
def test_an_asynchronous_call_goes_on_beside_the_computing(ns):
    def work(group):
        compute(group, 5)
        handle = group.all_reduce(np.zeros(100, np.uint8), algorithm="ring", async_op=True)
        compute(group, ns)
        early = handle.done()
        handle.wait()
        return early, group.now_ns()

    ring = int(cost.ring_all_reduce(2, 100).seconds(A, B, G))
    assert run(work, 2) == [(ns > ring, 5 + max(ns, ring))] * 2


def test_a_later_asynchronous_call_begins_when_it_is_made():
    def work(group):
        handles = []
        for _ in range(2):
            handles.append(group.barrier(async_op=True))
            compute(group, 3 * A)
        for handle in handles:
            while not handle.done():
                pass
        return [(e.op, e.begin, e.end) for e in last() if e.peer < 0], group.now_ns()

    calls = [("barrier", 0, A), ("barrier", 3 * A, 4 * A)]
    assert run(work, 2) == [(calls, 6 * A)] * 2


def test_both_threads_of_a_rank_share_its_ports():
    def work(group):
        handle = group.all_gather(X, algorithm="ring", async_op=True)
        group.sendrecv(X, 1 - group.rank, 1 - group.rank)
        handle.wait()
        return group.now_ns()

    assert run(work, 2) == [2 * C] * 2


# -- all of it --------------------------------------------------------------------------------


def by_name(group, op, algorithm, n):
    """The call, with arrays of n bytes all in all."""
    p, x = group.size, np.zeros(n, np.uint8)
    if op == "barrier":
        group.barrier(algorithm)
    elif op in ("gather", "all_gather"):
        getattr(group, op)(x[: n // p], algorithm=algorithm)
    elif op in ("scatter", "all_to_all"):
        getattr(group, op)(x.reshape(p, -1), algorithm=algorithm)
    else:
        getattr(group, op)(x, algorithm=algorithm)


def every_collective(p, cluster):
    """{(op, algorithm): (bytes, ns that the last rank takes)}; each begins on a full second."""
    q = 1 << p.bit_length() - 1
    n = 2 * p * q  # can be cut into p pieces, into q, and into halves
    names = [(op, algorithm) for op in ALGORITHMS for algorithm in ALGORITHMS[op]]

    def work(group):
        took = []
        for second, (op, algorithm) in enumerate(names):
            group.spend(second - group.now_ns() * NS)
            by_name(group, op, algorithm, n)
            took.append(group.now_ns() - second * 10**9)
        return took

    slowest = map(max, zip(*minipar.run(work, p, cluster=cluster)))
    return {name: (n, ns) for name, ns in zip(names, slowest)}


@pytest.mark.parametrize("p", range(2, 17))
def test_every_algorithm_takes_exactly_what_its_formula_says(p):
    for (op, algorithm), (n, took) in every_collective(p, PLAIN).items():
        formula = cost.of(op, algorithm, p, n).seconds(A, B, G)
        assert took == pytest.approx(formula, abs=1e-6), (op, algorithm)


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b", "g"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (10, 3, 50)])
@pytest.mark.parametrize("p", range(2, 17))
def test_whatever_the_letters_are_worth(p, a, b, g):
    for (op, algorithm), (n, took) in every_collective(p, Cluster(a * NS, b * NS, g * NS)).items():
        formula = cost.of(op, algorithm, p, n).seconds(a, b, g)
        assert took == pytest.approx(formula, abs=1e-6), (op, algorithm)


def test_sixty_four_ranks_round_the_ring():
    def work(group):
        x = group.all_reduce(np.full(64, 2.0), algorithm="ring")
        return float(x[0]), group.now_ns()

    ring = int(cost.ring_all_reduce(64, 512).seconds(A, B, G))
    assert minipar.run(work, 64, cluster=PLAIN) == [(128.0, ring)] * 64


def test_a_run_is_the_same_to_the_event():
    def work(group):
        x = np.arange(10.0) + group.rank
        compute(group, 100 * (group.rank % 3))
        handles = [group.all_reduce(x, async_op=True, algorithm=a) for a in ("ring", "tree")]
        group.isend(x, (group.rank + 1) % 5)
        compute(group, 2000)
        came = group.recv(ANY)[0]
        sums = [handle.wait().tolist() for handle in handles]
        return sums, came, [tuple(event) for event in last()], group.now_ns()

    first = run(work, 5)
    assert all(total == [10 + 5 * i for i in range(10)] for total in first[0][0])


def test_records_of_messages_say_when_the_port_out_was_busy():
    def work(group):
        if group.rank:
            return group.recv(0) is None
        compute(group, 7)
        sends = [group.isend(X, 1) for _ in range(2)]
        compute(group, 10 * C)
        for send in sends:
            send.wait()
        return [(event.begin, event.end) for event in last()]

    def both(group):
        found = work(group)
        if group.rank:
            group.recv(0)
        return found

    assert run(both, 2)[0] == [(7, 7 + C), (7 + C, 7 + 2 * C)]


def test_time_passes_only_where_it_is_declared():
    assert (
        run(lambda g: (g.split(g.rank % 2).size, g.now_ns()), 4, Cluster(0, 0, 0)) == [(2, 0)] * 4
    )

    def measured(group):
        begin = group.now_ns()
        group.spend(1000)
        return group.now_ns() - begin

    assert 0 < minipar.run(measured, 1)[0] < 60e9


# -- what goes wrong --------------------------------------------------------------------------


def test_a_deadlock_is_found_when_nothing_is_under_way_any_more():
    def work(group):
        group.send(X, 1 - group.rank)
        for _ in range(2):
            group.recv(1 - group.rank)

    with pytest.raises(Deadlock, match="rank 0 --> rank 1   recv #1"):
        minipar.run(work, 2, cluster=PLAIN)


def test_a_lost_rank_is_heard_of_after_what_it_has_sent_and_comes_back():
    def work(group):
        if group.rank == 2:
            compute(group, 10 * group.incarnation)
            group.isend(X, 0)
            if group.incarnation == 0:
                raise KeyError("mine")
        elif group.rank == 1:
            compute(group, 3 * C)
            group.send(X, 0)
        else:
            heard = []
            for _ in range(4):
                try:
                    heard.append((group.now_ns(), group.recv(ANY)[0]))
                except PeerLost as error:
                    heard.append((group.now_ns(), "lost", error.rank))
            return [*heard, group.now_ns()]
        return None

    expected = [(0, 2), (C, "lost", 2), (C, 2), (2 * C + 10, 1), 4 * C]
    for _ in range(2):
        found = minipar.run(work, 3, cluster=PLAIN, on_lost="report", restarts=1)
        assert found == [expected, None, None]


def test_what_nobody_took_is_missed_even_if_it_left_after_everybody_had_ended():
    def work(group):
        if group.rank == 0:
            group.isend(X, 1)
            group.broadcast(X, algorithm="naive")

    with pytest.raises(CallMismatch, match="rank 1 has returned, but never took part in rank 0's"):
        minipar.run(work, 2, cluster=PLAIN)


def test_a_mismatch_is_told_as_ever():
    with pytest.raises(CallMismatch, match=r"rank [01] sent sum float64\[[34]\]"):
        minipar.run(lambda g: g.all_reduce(np.ones(3 + g.rank)), 2, cluster=PLAIN)


def test_a_question_in_vain_for_ever_is_a_deadlock():
    def work(group):
        receiving = group.irecv(1 - group.rank) if group.rank == 0 else None
        while receiving and not receiving.done():
            pass

    with pytest.raises(Deadlock):
        minipar.run(work, 2, cluster=PLAIN)


def test_a_rank_that_raises_stops_the_others_wherever_they_are():
    def work(group):
        if group.rank == 2:
            compute(group, 50)
            raise KeyError("mine")
        if group.rank == 1:
            compute(group, 100)
        try:
            group.barrier()
        except PeerLost:
            told[group.rank] = group.now_ns()
            raise

    told = {}
    with pytest.raises(KeyError, match="mine"):
        minipar.run(work, 3, cluster=PLAIN)
    assert told == {0: 50, 1: 100}


# -- ranks that the cluster declares lost -----------------------------------------------------


def losing(**moments):
    """PLAIN, where those ranks are lost after so many ns: rank_2=500."""
    lost = {int(name[5:]): ns * NS for name, ns in moments.items()}
    return Cluster(A * NS, B * NS, G * NS, lost=lost)


def caught(group, call):
    """When it ended, and why."""
    try:
        call()
    except PeerLost as error:
        return group.now_ns(), str(error).partition("; ")[0]
    return group.now_ns(), "no loss"


@pytest.mark.parametrize("busy", ["computes", "waits", "sends", "asks"])
def test_a_rank_is_lost_to_the_nanosecond_whatever_it_does(busy):
    def work(group):
        if group.rank != 2:
            return told.append((group.rank, *caught(group, group.barrier)))
        try:
            if busy == "computes":
                compute(group, 777)
            elif busy == "waits":
                group.recv(0)
            elif busy == "sends":
                group.send(np.zeros(10_000, np.uint8), 1)
            while busy == "asks":
                group.poll()
        except Exception:
            told.append("a rank that is killed has no time to catch anything")
        finally:
            told.append((2, group.now_ns()))

    for _ in range(2):
        told = []
        with pytest.raises(PeerLost, match=r"^rank 2 was lost at 0\.000777 ms of virtual time"):
            minipar.run(work, 4, cluster=losing(rank_2=777))
        says = 777, "rank 2 was lost at 0.000777 ms of virtual time"
        assert told[0] == (2, 777)
        assert sorted(told[1:]) == [(rank, *says) for rank in (0, 1, 3)]


def test_nothing_can_be_done_after_the_end():
    def work(group):
        if group.rank:
            try:
                compute(group, 10_000)
            finally:
                group.send(X, 0)
        return caught(group, lambda: group.recv(1))

    found = minipar.run(work, 2, cluster=losing(rank_1=500), on_lost="report")
    assert found[0] == (500, "rank 1 was lost at 0.0005 ms of virtual time")
    assert type(found[1]) is PeerLost


def test_what_was_out_arrives_and_what_was_not_never_does():
    """Rank 2 is lost when its first message is out, and the second not quite."""

    def work(group):
        if group.rank == 2:
            for _ in range(3):
                group.isend(X, 0)
            compute(group, 10 * C)
        return [caught(group, lambda: group.recv(2)) for _ in range(2)]

    says = "rank 2 was lost at"
    for moment, came in [(C - 1, 0), (C, 1), (2 * C - 1, 1), (2 * C, 2)]:
        found = minipar.run(work, 3, cluster=losing(rank_2=moment), on_lost="report")[0]
        assert found[:came] == [(C, "no loss"), (2 * C, "no loss")][:came]
        assert all(at == moment and why.startswith(says) for at, why in found[came:])


def test_what_waits_for_a_port_in_and_is_cut_does_not_come():
    def work(group):
        if group.rank:
            return group.send(np.zeros(100 * group.rank, np.uint8), 0)
        compute(group, late)  # until then it asks for nobody
        return [caught(group, partial(group.recv, src))[0] for src in (1, 2, 3)]

    def ends(lost):
        return minipar.run(work, 4, cluster=losing(rank_2=lost), on_lost="report")[0]

    late = C + 10
    assert ends(C - 1) == [late, late, C + A + 300 * B]
    begun = A + 200 * B - 1  # it has begun to come in, and would be out a moment later
    assert ends(begun) == [late, begun, C + A + 200 * B + A + 300 * B]


def test_a_lost_rank_comes_back_and_is_not_lost_again():
    def work(group):
        if group.rank:
            compute(group, 1000)
            group.send(X, 0)
            return group.incarnation
        return [caught(group, lambda: group.recv(1))[0] for _ in range(2)], group.now_ns()

    for _ in range(2):
        found = minipar.run(work, 2, cluster=losing(rank_1=600), on_lost="report", restarts=1)
        assert found == [([600, 1600 + C], 1600 + C), 1]


def test_who_has_ended_before_cannot_be_lost():
    assert run(lambda g: (g.barrier(), g.now_ns())[1], 2, losing(rank_0=A + 1)) == [A, A]


def test_a_second_thread_ends_with_its_rank():
    def work(group):
        handles = [group.all_reduce(X, algorithm="ring", async_op=True) for _ in range(3)]
        compute(group, 50 * group.rank)
        return [caught(group, handle.wait)[0] for handle in handles]

    for moment in (1, A, 2 * C):
        for _ in range(2):
            found = minipar.run(work, 3, cluster=losing(rank_1=moment), on_lost="report")
            assert type(found[1]) is PeerLost
            assert max(found[0] + found[2]) < moment + C  # what was out comes first


def test_a_deadlock_lasts_until_a_rank_of_it_is_lost():
    with pytest.raises(PeerLost, match="rank 1 was lost at 9 ms"):
        minipar.run(lambda g: g.recv(1 - g.rank), 2, cluster=losing(rank_1=9e6))


def test_a_run_with_a_loss_is_the_same_to_the_event():
    def work(group):
        for _ in range(5):
            compute(group, 100 * (group.rank + 1))
            caught(group, lambda: group.isend(X, (group.rank + 1) % 4))
            caught(group, lambda: group.recv((group.rank - 1) % 4))
        return [tuple(event) for event in last()], group.now_ns()

    first, again = (
        minipar.run(work, 4, cluster=losing(rank_2=2 * C), on_lost="report") for _ in range(2)
    )
    assert first[:2] + first[3:] == again[:2] + again[3:]
    assert str(first[2]) == str(again[2])
