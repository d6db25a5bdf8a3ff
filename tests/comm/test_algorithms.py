"""Every algorithm of every collective: against NumPy on stacked inputs, and against its formula."""

import numpy as np
import pytest

from minipar import cost, run
from minipar.comm.algorithms import ALGORITHMS, pick
from minipar.errors import CallMismatch, UsageError
from minipar.events import recording
from minipar.testing import check_collective

RANKS = range(1, 10)
SIZES = [0, 1, 5, 64]  # empty, fewer than p, uneven, even
OPS = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "min": np.min, "max": np.max}
every = pytest.mark.parametrize


def names(*ops):
    return [(op, algorithm) for op in ops or ALGORITHMS for algorithm in ALGORITHMS[op]]


def inputs(p, n):
    return np.random.default_rng(p * 1000 + n).normal(size=(p, n))


def run_all(work, p):
    """work(group, n) for all sizes in one run: {n: [what each rank returned]}."""
    found = run(lambda g: [work(g, n) for n in SIZES], p)
    return dict(zip(SIZES, zip(*found)))


# -- results ----------------------------------------------------------------------------------


@every("p", RANKS)
@every("algorithm", ALGORITHMS["all_reduce"])
def test_all_reduce(p, algorithm):
    def work(group, n):
        bits = group.all_reduce(np.full(n, 2.0**group.rank), algorithm=algorithm)
        assert bits.shape == (n,) and (bits == 2**p - 1).all()  # a lost or doubled rank is its bit
        x = inputs(p, n).astype(np.float32)[group.rank]
        return {op: group.all_reduce(x, op, algorithm=algorithm) for op in OPS}

    for n, totals in run_all(work, p).items():
        for op, numpy_op in OPS.items():
            assert len({total[op].tobytes() for total in totals}) == 1  # the same bits
            assert np.allclose(totals[0][op], numpy_op(inputs(p, n), 0), atol=1e-5)


@every("p", RANKS)
@every("algorithm", ALGORITHMS["reduce"])
def test_reduce_to_every_root(p, algorithm):
    def work(group, n):
        x = inputs(p, n)[group.rank]
        bits = [
            group.reduce(np.full(n, 2**group.rank), root, "sum", algorithm) for root in range(p)
        ]
        assert all((b == 2**p - 1).all() for b in bits if b is not None)
        return [group.reduce(x, root, "max", algorithm) for root in range(p)], x

    for n, results in run_all(work, p).items():
        for rank, (totals, x) in enumerate(results):
            assert (x == inputs(p, n)[rank]).all()  # not written to
            for root, total in enumerate(totals):
                assert (total is None) == (rank != root)
                assert total is None or (total == inputs(p, n).max(0)).all()


@every("p", RANKS)
@every("algorithm", ALGORITHMS["broadcast"])
def test_broadcast_from_every_root(p, algorithm):
    def work(group, n):
        x = inputs(p, n)[group.rank]
        return [group.broadcast(x, root, algorithm) for root in range(p)]

    for n, results in run_all(work, p).items():
        for got in results:
            assert np.array_equal(got, inputs(p, n))


@every("p", RANKS)
@every("algorithm", ALGORITHMS["gather"])
def test_gather_and_scatter_with_every_root(p, algorithm):
    def work(group, n):
        x, found = inputs(p, n), []
        for root in range(p):
            whole = group.gather(x[group.rank], root, algorithm)
            back = group.scatter(whole, root, algorithm)
            assert (back == x[group.rank]).all() and back.shape == (n,)
            found.append(whole)
        return found

    for n, results in run_all(work, p).items():
        for rank, wholes in enumerate(results):
            for root, whole in enumerate(wholes):
                assert (whole is None) == (rank != root)
                assert whole is None or np.array_equal(whole, inputs(p, n))


@every("p", RANKS)
@every("algorithm", ALGORITHMS["all_gather"])
def test_all_gather(p, algorithm):
    for n, results in run_all(
        lambda g, n: g.all_gather(inputs(p, n)[g.rank], algorithm), p
    ).items():
        assert all(np.array_equal(whole, inputs(p, n)) for whole in results)


@every("p", RANKS)
@every("algorithm", ALGORITHMS["reduce_scatter"])
def test_reduce_scatter(p, algorithm):
    def work(group, n):
        x = np.stack([inputs(p, n)[group.rank], np.full(n, 2.0**group.rank)], axis=1)  # [n, 2]
        sums = group.reduce_scatter(x, algorithm=algorithm)
        return sums, group.reduce_scatter(x, "mean", algorithm)

    for n, results in run_all(work, p).items():
        sums, means = zip(*results)
        expected = np.stack([inputs(p, n).sum(0), np.full(n, 2.0**p - 1)], axis=1)
        assert [len(part) for part in sums] == [len(c) for c in np.array_split(expected, p)]
        assert np.allclose(np.concatenate(sums), expected)
        assert np.allclose(np.concatenate(means), expected / p)


@every("p", RANKS)
@every("algorithm", ALGORITHMS["all_to_all"])
def test_all_to_all(p, algorithm):
    def work(group, n):
        return group.all_to_all(inputs(p, p * n).reshape(p, p, n)[group.rank], algorithm)

    for n, results in run_all(work, p).items():
        assert np.array_equal(results, inputs(p, p * n).reshape(p, p, n).swapaxes(0, 1))


@every("p", RANKS)
@every("algorithm", ALGORITHMS["barrier"])
def test_nobody_leaves_a_barrier_before_all_have_entered(p, algorithm):
    entered = []

    def work(group):
        for _ in range(group.rank):  # let the others run ahead
            group.poll()
        entered.append(group.rank)
        group.barrier(algorithm)
        return len(entered)

    assert run(work, p) == [p] * p


# -- cost -------------------------------------------------------------------------------------

NUMBERS = 2520  # can be cut into 1..10 equal parts


SOME = (1, 2, 3, 4, 7, 8)  # powers of two, and one and three above one
REST = pytest.param((5, 6, 9), marks=pytest.mark.slow, id="more")


@every("ranks", [SOME, REST])
@every(("op", "algorithm"), names())
def test_the_longest_chain_is_that_of_the_formula_and_nobody_relies_on_buffers(
    op, algorithm, ranks
):
    formula = getattr(cost, f"{algorithm}_{op}")
    check_collective(ALGORITHMS[op][algorithm], op, ranks=ranks, formula=formula)


def by_name(group, op, algorithm):
    """The call of the group, with arrays of NUMBERS numbers all in all."""
    p, x = group.size, np.zeros(NUMBERS)
    if op == "barrier":
        group.barrier(algorithm)
    elif op in ("gather", "all_gather"):
        getattr(group, op)(x[: NUMBERS // p], algorithm=algorithm)
    elif op in ("scatter", "all_to_all"):
        getattr(group, op)(x.reshape(p, -1), algorithm=algorithm)
    else:
        getattr(group, op)(x, algorithm=algorithm)


@every("p", RANKS)
@every(("op", "algorithm"), names())
def test_what_the_busiest_rank_sends_is_in_the_formula(op, algorithm, p):
    """Recorded events against the formula: at most its messages and bytes; in algorithms in which
    all ranks do alike (here: for which nothing is said below) exactly.
    """

    def work(group):
        with recording() as log:
            by_name(group, op, algorithm)
        assert {(e.op, e.algorithm) for e in log} <= {(op, algorithm)}
        return len(log), sum(event.nbytes for event in log)

    messages, sent = (max(column) for column in zip(*run(work, p)))
    formula = cost.of(op, algorithm, p, 8 * NUMBERS)
    alike = algorithm in ("direct", "flat", "pairwise", "dissemination") or (
        algorithm == "ring" and op not in ("reduce", "broadcast")
    )
    alike |= algorithm == "halving_doubling" and p in (1, 2, 4, 8) and op != "reduce"
    down = op in ("broadcast", "scatter") and algorithm in ("naive", "tree")  # all by the root
    if alike or down:
        assert (messages, sent) == pytest.approx(formula[:2])
    assert messages <= formula.messages and sent <= formula.sent + 1e-6


# -- names ------------------------------------------------------------------------------------


def test_a_name_that_a_collective_does_not_have():
    with pytest.raises(UsageError, match=r"all_reduce has no algorithm 'rign'; it has naive, tree"):
        pick("all_reduce", "rign", 0, 4, "local")
    with pytest.raises(UsageError, match=r"gather has no algorithm 'ring'; it has naive, tree$"):
        run(lambda g: g.gather(np.zeros(1), algorithm="ring"), 2)


def twice_the_tree(link, buf):
    """An algorithm of one's own."""
    ALGORITHMS["all_reduce"]["tree"](link, buf)
    link.add(buf, buf.copy())


def test_a_function_is_an_algorithm_too_under_its_own_name():
    def work(group):
        with recording() as log:
            total = group.all_reduce(np.ones(3), algorithm=twice_the_tree)
        return total.tolist(), {event.algorithm for event in log}

    assert run(work, 3) == [([6.0] * 3, {"twice_the_tree"})] * 3


def test_ranks_of_which_only_one_brings_its_own_algorithm_are_told():
    def work(group):
        group.all_reduce(np.ones(3), algorithm=twice_the_tree if group.rank else "tree")

    with pytest.raises(CallMismatch, match=r"by (tree|twice_the_tree), expected .* by t"):
        run(work, 2)


@every("p", [2, 3, 5, 8])
@every("op", ["all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter"])
def test_ranks_that_name_different_algorithms_are_told(op, p):
    """Whichever two meet, in whatever order: never a deadlock, never a wrong result."""
    for one in ALGORITHMS[op]:
        for other in ALGORITHMS[op]:
            if one == other:
                continue
            for odd in (0, p - 1):

                def work(group, odd=odd, one=one, other=other):
                    by_name(group, op, one if group.rank == odd else other)
                    group.barrier()

                with pytest.raises(CallMismatch, match=rf"by ({one}|{other})"):
                    run(work, p)
