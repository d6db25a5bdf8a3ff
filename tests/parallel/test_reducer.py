"""Buckets leave when they are full, in one order, and what they held is gone."""

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.events import recording
from minipar.parallel.reducer import Reducer, agree, share_of
from minipar.parallel.slices import Slice, flats_of
from minipar.tensor import Tensor


def reducer(group, xs, nbytes):
    named = [(f"x{n}", x) for n, x in enumerate(xs)]
    flats = flats_of(named, group.size, nbytes)
    zeros = [flat.zeros()[group.rank] for flat in flats]
    made = Reducer([Slice(f, group.rank, z, z.copy()) for f, z in zip(flats, zeros)], group)
    made.zero_grad()
    return made


def whole(group, made):
    return [group.all_gather(s.grad).reshape(-1).tolist() for s in made.slices]


def leaves(count, size=2):
    return [Tensor(np.ones(size), requires_grad=True) for _ in range(count)]


def test_a_full_bucket_leaves_while_backward_runs_and_its_gradients_are_gone():
    def work(group):
        xs = leaves(3)
        made = reducer(group, xs, nbytes=32)  # x0 and x1, then x2
        calls, reduce_scatter = [], group.reduce_scatter
        group.reduce_scatter = lambda *a, **more: calls.append(1) or reduce_scatter(*a, **more)
        seen = []
        for x in xs:
            x.when_final(lambda _: seen.append((len(calls), [x.grad is None for x in xs])))
        (xs[2] * float(group.rank) * xs[1] * xs[0]).sum().backward()
        made.finish(1.0)
        return seen, whole(group, made)

    gone = [True] * 3
    for seen, mean in minipar.run(work, 2):
        assert seen == [(0, gone), (1, gone), (2, gone)]
        assert mean == [[0.5] * 4, [0.5] * 2]


def test_a_parameter_without_gradient_on_one_rank_counts_as_zero_and_on_all_is_left_alone():
    def work(group):
        xs = leaves(3)
        made = reducer(group, xs, nbytes=16)  # each its own
        used = xs[0] if group.rank else xs[0] * xs[2]  # x1 by nobody
        used.sum().backward()
        made.finish(1.0)
        grads = [s.pieces.get(f"x{n}") for n, s in enumerate(made.slices)]
        return whole(group, made), [g is not None and g.tensor.grad is None for g in grads]

    for mean, left_alone in minipar.run(work, 2):
        assert mean == [[1, 1], [0, 0], [0.5, 0.5]]
        assert left_alone == [False, True, False]


def test_inside_no_sync_nothing_is_sent():
    def work(group):
        xs = leaves(2)
        made = reducer(group, xs, nbytes=16)
        with recording() as log:
            with made.no_sync():
                (xs[0] * 2.0 + xs[1]).sum().backward()
            silent = len(log) == 0
            xs[0].sum().backward()  # x1 has its gradient from before
            made.finish(1.0)
        return silent, whole(group, made)

    assert minipar.run(work, 2) == [(True, [[3, 3], [1, 1]])] * 2


def test_two_backwards_without_no_sync_add_up():
    def work(group):
        xs = leaves(2)
        made = reducer(group, xs, nbytes=16)
        for _ in range(2):
            (xs[0] + xs[1]).sum().backward()
        made.finish(1.0)
        return whole(group, made)

    assert minipar.run(work, 2) == [[[2, 2], [2, 2]]] * 2


def test_rows_are_weights():
    def work(group):
        (x,) = leaves(1)
        made = reducer(group, [x], nbytes=16)
        rows = 1.0 + 2 * group.rank
        made.announce(rows)
        (x * float(group.rank)).sum().backward()
        made.finish(rows)
        return whole(group, made), made.share

    assert minipar.run(work, 2) == [([[0.75, 0.75]], 1.0)] * 2  # and the next step weighs anew


def test_other_rows_than_were_told():
    def work(group):
        (x,) = leaves(1)
        made = reducer(group, [x], nbytes=16)
        x.sum().backward()
        made.finish(1.0 + group.rank)

    with pytest.raises(UsageError, match=r"\[1.0, 2.0\] rows"):
        minipar.run(work, 2)


def test_agreement():
    def work(group):
        return agree(group, [group.rank, 5], ["a", "b"], {"b"} if group.rank else ())

    for told, used in minipar.run(work, 2):
        assert told.tolist() == [[0, 5], [1, 5]]
        assert used == {"b"}
    assert share_of(3, np.array([3, 1])) == 1.5
    assert share_of(0, np.zeros(2)) == 0
