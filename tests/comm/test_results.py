"""out= and its checks."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.results import check_out, delivered, place_for, put
from minipar.errors import UsageError


def test_a_place_is_out_if_that_is_contiguous():
    x, out = np.zeros((2, 3)), np.zeros((4, 2, 3))
    assert place_for("op", x, (4, 2, 3), out) is out
    strided = np.zeros((4, 2, 6))[:, :, ::2]
    place = place_for("op", x, (4, 2, 3), strided)
    assert place.flags.c_contiguous and place.shape == (4, 2, 3)
    place[:] = 7
    assert delivered(place, strided) is strided and (strided == 7).all()
    assert delivered(place, None) is place


@pytest.mark.parametrize("out", [np.zeros((2, 4)), np.zeros((2, 3), np.float32)])
def test_an_out_that_does_not_fit(out):
    with pytest.raises(UsageError, match=r"op: out is float\d\d\[2, \d\], but the result is flo"):
        place_for("op", np.zeros(3), (2, 3), out)


def test_put_leaves_what_is_there():
    class Watched(np.ndarray):
        writes = 0

        def __setitem__(self, key, value):
            Watched.writes += 1
            super().__setitem__(key, value)

    place = np.arange(6.0).view(Watched)
    put(place, place[:])
    assert Watched.writes == 0
    put(place[::2], place[:3])  # the same address, but other elements
    assert Watched.writes == 1


@pytest.mark.parametrize("p", [1, 2, 3])
def test_every_collective_that_takes_out(p):
    """Into a contiguous and into a strided array; in place where that is allowed."""

    def work(group):
        r, x = group.rank, np.arange(6.0) + group.rank
        rows = np.arange(6.0 * p).reshape(p, 6) + r
        calls = {
            "broadcast": (x, np.arange(6.0) + p - 1, {"root": p - 1}),
            "all_reduce": (x, p * np.arange(6.0) + p * (p - 1) / 2, {}),
            "reduce_scatter": (rows, p * (rows[r : r + 1] - r) + p * (p - 1) / 2, {}),
            "all_gather": (x, np.arange(6.0) + np.arange(p).reshape(p, 1), {}),
            "all_to_all": (rows, rows[r] - r + np.arange(p).reshape(p, 1), {}),
        }
        for op, (given, expected, more) in calls.items():
            before = given.copy()
            for out in (np.empty(expected.shape), np.empty((*expected.shape, 2))[..., 0]):
                assert getattr(group, op)(given, out=out, **more) is out
                assert np.array_equal(out, expected), op
                assert np.array_equal(given, before), op
        assert np.array_equal(group.broadcast(x, root=p - 1, out=x), calls["broadcast"][1])
        stack = np.zeros((p, 6))
        stack[r] = r
        assert group.all_gather(stack[r], out=stack) is stack
        assert (stack == np.arange(p).reshape(p, 1)).all()
        with pytest.raises(UsageError, match="all_to_all: out is x itself"):
            group.all_to_all(rows, out=rows)

    run(work, p)


def test_an_out_that_cannot_take_the_result_is_refused_by_name():
    with pytest.raises(UsageError, match="op: out must be an array, not list"):
        check_out("op", np.zeros(2), (2,), [0.0, 0.0])
    with pytest.raises(UsageError, match="op: out is read-only"):
        check_out("op", np.zeros(2), (2,), np.broadcast_to(0.0, (2,)))
