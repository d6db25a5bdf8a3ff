"""What op means for which dtype, against NumPy on stacked inputs."""

import warnings

import numpy as np
import pytest

from minipar import run
from minipar.comm.algorithms import ALGORITHMS
from minipar.errors import UsageError
from minipar.events import recording

P = 5
every = pytest.mark.parametrize
ALL = sorted(ALGORITHMS["all_reduce"])
KINDS = {
    "sum": "bhiqBHIQefdFD",
    "mean": "efdFD",
    "prod": "bhiqBHIQefdFD",
    "min": "?bhiqBHIQefd",
    "max": "?bhiqBHIQefd",
}


def stacked(dtype, n=7):
    return np.random.default_rng(0).integers(1, 4, (P, n)).astype(dtype)


@every("op", KINDS)
def test_every_dtype_or_a_sentence(op):
    for code in "?bhiqBHIQefdFD":
        x = stacked(code)

        def work(group, x=x):
            return group.all_reduce(x[group.rank], op)

        if code in KINDS[op]:
            total = run(work, P)[0]
            assert total.dtype == x.dtype
            assert (
                np.allclose(total, getattr(np, op)(x, 0, dtype=x.dtype), rtol=1e-3)
                if (op not in ("min", "max"))
                else (total == getattr(np, op)(x, 0)).all()
            )
        else:
            with pytest.raises(UsageError, match=f"the {op} of {x.dtype} arrays is not defined"):
                run(work, P)


def halves():
    x = np.random.default_rng(1).normal(size=(P, 1000)).astype(np.float16)
    x[0, 0], x[1:, 0] = 2048, 1  # 2048 + 1 = 2048 in float16: rounding at each step loses all
    return x


@every("algorithm", ALL)
def test_float16_is_summed_in_float32_and_rounded_once(algorithm):
    x = halves()

    def work(group):
        with recording() as log:
            out = np.empty_like(x[0])
            total = group.all_reduce(x[group.rank], out=out, algorithm=algorithm)
            assert total is out
        assert sum(event.nbytes for event in log) % 4 == 0
        mean = group.all_reduce(x[group.rank], "mean", algorithm=algorithm)
        other = algorithm if algorithm in ALGORITHMS["reduce_scatter"] else None
        part = group.reduce_scatter(x[group.rank], "mean", other)
        assert (part == np.array_split(mean, P)[group.rank]).mean() > 0.99  # order may differ
        return total, mean

    totals, means = zip(*run(work, P))
    exact = x.astype(np.float64).sum(0)
    assert totals[0][0] == 2052 and totals[0].dtype == np.float16
    assert (totals[0] == exact.astype(np.float16)).mean() > 0.99  # but for ties of float32's sum
    assert (means[0] == (exact / P).astype(np.float16)).mean() > 0.99
    assert len({total.tobytes() for total in totals}) == 1


def test_messages_of_float16_carry_float32_but_not_for_min_and_max():
    def sent(op):
        def work(group):
            with recording() as log:
                group.all_reduce(np.ones(10, np.float16), op, algorithm="tree")
            return sum(event.nbytes for event in log)

        return run(work, 2)[0]

    assert sent("sum") == 40 and sent("max") == 20


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = halves().astype(np.float32).astype(ml_dtypes.bfloat16)

    def work(group):
        mine = x[group.rank]
        return [group.all_reduce(mine, op) for op in KINDS]

    exact = x.astype(np.float64)
    for op, total in zip(KINDS, run(work, P)[0]):
        assert total.dtype == x.dtype
        expected = getattr(np, op)(exact, 0).astype(np.float32).astype(x.dtype)
        assert (total == expected).mean() > 0.99, op


@every("algorithm", ALL)
@every("op", KINDS)
def test_nan_and_inf_spread_as_in_numpy(op, algorithm):
    x = np.ones((P, 6))
    x[2, 0], x[0, 1], x[1, 2], x[3, 3], x[4, 3] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    x[0, 4], x[1, 4] = np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid value: as NumPy says, too
        totals = run(lambda g: g.all_reduce(x[g.rank], op, algorithm=algorithm), P)
        expected = getattr(np, op)(x, 0)
    assert all(np.array_equal(total, expected, equal_nan=True) for total in totals)


def test_integers_wrap_around_as_in_numpy():
    x = np.full((P, 3), 100, np.int8)
    assert (run(lambda g: g.all_reduce(x[g.rank]), P)[0] == x.sum(0, dtype=np.int8)).all()


@every("call", ["all_reduce", "reduce", "reduce_scatter"])
def test_an_op_that_there_is_not(call):
    with pytest.raises(UsageError, match=f"{call}: op is one of sum, mean, prod, min, max, not"):
        run(lambda g: getattr(g, call)(np.zeros(2), op="avg"), 2)
