"""What Group adds to the algorithms: averages, out=, numbers, which arrays are whose."""

import numpy as np
import pytest

from minipar import run
from minipar.errors import CallMismatch, Deadlock, UsageError


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
        results += [group.all_gather(x), group.all_reduce(x, "max", algorithm="naive")]
        square = np.ones((group.size, 2))
        results += [group.all_to_all(square), group.scatter(square), group.reduce(square, op="min")]
        for result in results:
            if result is not None:
                result += 1
        assert (square == 1).all()
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


def test_split_by_color_and_key():
    def work(group):
        half = group.split(group.rank % 2, key=-group.rank)
        total = half.all_reduce(np.array(2**group.rank))
        return half.world_ranks, half.rank, int(total), half.split(None), repr(half)

    found = run(work, 5)
    assert [f[0] for f in found] == [(4, 2, 0), (3, 1)] * 2 + [(4, 2, 0)]
    assert [f[1] for f in found] == [2, 1, 1, 0, 0]
    assert [f[2] for f in found] == [21, 10, 21, 10, 21]
    assert {f[3] for f in found} == {None}
    assert found[0][4] == "Group(rank 2 of 3 (world rank 0))"


def test_messages_of_groups_do_not_mix():
    """All groups of three ranks that rank 0 is in, with sends under way in all of them at once."""

    def work(group):
        pairs = [group.subgroup([0, other]) for other in range(1, group.size)]
        again = group.subgroup([0, 1])
        mine = [(i, g) for i, g in enumerate([*pairs, again, group]) if g is not None]
        for i, g in mine:
            if g.rank == 0:
                g.send(np.array(i), 1)
        return [(i, int(g.recv(0))) for i, g in reversed(mine) if g.rank == 1]

    zero, one, two = run(work, 3)
    assert zero == [] and one == [(3, 3), (2, 2), (0, 0)] and two == [(1, 1)]


def test_subgroup_keeps_the_given_order():
    def work(group):
        few = group.subgroup([3, 1])
        return None if few is None else (few.rank, few.all_gather(np.array(group.rank)).tolist())

    assert run(work, 4) == [None, (1, [3, 1]), None, (0, [3, 1])]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: g.subgroup([0, 2]), "subgroup: there is no rank 2"),
        (lambda g: g.subgroup([0, 0]), r"stands in \[0, 0\] more than once"),
        (lambda g: g.split("red"), "split: color and key are integers, not 'red'"),
        (lambda g: g.scatter(np.zeros((3, 1))), r"rank 0/2, scatter: x is float64\[3, 1\], but it"),
        (lambda g: g.scatter(), "scatter: the root must pass x"),
        (lambda g: g.all_to_all(np.zeros(5)), r"needs a row for each rank: \[2, ...\]"),
        (lambda g: g.reduce(np.zeros(1), root=2), "reduce: there is no rank 2"),
        (lambda g: g.gather(np.zeros(1), root=-1), "gather: there is no rank -1"),
    ],
)
def test_wrong_use_is_one_sentence(call, says):
    with pytest.raises(UsageError, match=says):
        run(call, 2)


def test_ranks_that_disagree_about_the_root_are_told():
    """If both believe that they are sent something, there is no message that could tell them."""

    def work(group, call):
        getattr(group, call)(np.zeros(2), group.rank)
        group.barrier()

    with pytest.raises(CallMismatch, match=r"sent from [01] .* expected from [01]|barrier"):
        run(work, 2, args=("broadcast",))
    for call in ("reduce", "gather"):
        with pytest.raises(Deadlock, match=f"rank 0 --> rank 1   {call} #0"):
            run(work, 2, args=(call,))


def test_ranks_that_disagree_about_a_subgroup_are_told():
    with pytest.raises(CallMismatch, match=r"of \[0, 1\].*of \[0, 2\]|of \[0, 2\].*of \[0, 1\]"):
        run(lambda g: g.subgroup([0, 1 + g.rank % 2]), 3)


def test_arrays_of_as_many_dimensions_as_can_be_sent():
    x = np.arange(6).reshape(1, 1, 2, 1, 1, 3, 1, 1)

    def work(group):
        gathered = group.gather(x, root=1)
        assert group.rank == 0 or np.array_equal(gathered, [x, x])
        assert np.array_equal(group.all_gather(x), [x, x])

    run(work, 2)


def test_only_the_root_passes_something_to_scatter():
    def work(group):
        x = np.arange(12.0, dtype=np.float32).reshape(4, 3).T[:, :3] if group.rank == 1 else None
        return group.scatter(x, root=1)

    rows = run(work, 3)
    assert [row.tolist() for row in rows] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert all(row.dtype == np.float32 for row in rows)
