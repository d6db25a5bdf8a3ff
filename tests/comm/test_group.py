"""What Group adds to the algorithms: averages, out=, numbers, which arrays are whose."""

import numpy as np
import pytest

from minipar import run


def test_mean_and_out():
    def work(group):
        x = np.full(5, float(group.rank))
        out = np.empty(5)
        assert group.all_reduce(x, op="mean", out=out) is out
        assert (x == group.rank).all()  # only out is written
        assert group.all_reduce(x, out=x) is x
        return out, x

    for out, x in run(work, 4):
        assert (out == 1.5).all() and (x == 6).all()


@pytest.mark.parametrize("make", [lambda a: a.T, lambda a: a[:, ::2], lambda a: a[::-1]])
def test_out_need_not_be_contiguous(make):
    def work(group):
        whole = np.zeros((4, 6))
        out = make(whole)
        group.all_reduce(np.ones(out.shape), out=out)
        return (make(whole) == group.size).all() and whole.sum() == group.size * out.size

    assert all(run(work, 3))


def test_results_are_new_arrays():
    def work(group):
        x = np.ones(4)
        results = [group.all_reduce(x), group.broadcast(x), group.reduce_scatter(x)]
        for result in results:
            result += 1
        return x

    for p in (1, 3):
        assert all((x == 1).all() for x in run(work, p))


def test_numbers_and_lists_are_arrays_too():
    assert run(lambda g: float(g.all_reduce(g.rank + 0.5)), 3) == [4.5] * 3
    assert run(lambda g: g.all_reduce([1, 2]).tolist(), 3) == [[3, 6]] * 3


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">i8"])
def test_arrays_in_the_byte_order_of_another_machine(dtype):
    for total in run(lambda g: g.all_reduce(np.arange(3, dtype=dtype)), 2):
        assert total.tolist() == [0, 2, 4]
    swapped = run(lambda g: g.sendrecv(np.arange(3, dtype=dtype), 1 - g.rank, 1 - g.rank), 2)
    assert [x.tolist() for x in swapped] == [[0, 1, 2]] * 2


def test_rank_and_size_and_how_it_prints():
    assert run(lambda g: (g.rank, g.size, g.backend, repr(g)), 2)[1] == (
        1,
        2,
        "local",
        "Group(rank 1 of 2)",
    )
