"""Slices cover everything once, and pieces are views that know what they are pieces of."""

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.optim import SGD
from minipar.parallel.slices import Flat, Owned, Slice, flats_of
from minipar.tensor import Tensor


def named(*shapes, dtype=np.float64):
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    return [
        (f"x{n}", Tensor(starts[n] + np.arange(np.prod(s), dtype=dtype).reshape(s), True))
        for n, s in enumerate(shapes)
    ]


def slices(flat):
    array = flat.zeros()
    flat.fill(array)
    return [Slice(flat, r, row, np.zeros_like(row)) for r, row in enumerate(array)]


@pytest.mark.parametrize("p", [1, 2, 3, 4, 7, 50])
def test_each_number_is_in_one_piece(p):
    flat = Flat(named((5, 7), (7,), (), (0, 3), (2, 1, 3)), p)
    found = [
        (name, piece.there.start + i, float(x))
        for s in slices(flat)
        for name, piece in s.pieces.items()
        for i, x in enumerate(piece.tensor.data.reshape(-1))
    ]
    assert [x for _, _, x in found] == list(range(35 + 7 + 1 + 6))
    for name, place, x in found:
        assert flat.parameters[name].data.reshape(-1)[place] == x
    assert flat.shape[0] * flat.shape[1] < 49 + p  # no more padding than it takes


def test_pieces_are_views_with_the_axes_of_the_parameter():
    _, second = slices(Flat(named((4, 3), (4,)), 2))
    (here, there, matrix), (_, _, vector) = second.pieces.values()
    assert (here, there) == (slice(0, 4), slice(8, 12))
    assert matrix.shape == (1, 4) and vector.shape == (4,)
    second.give_gradients({"x0"})
    assert vector.grad is None
    matrix.data += 1
    matrix.grad += 2
    assert second.data.tolist() == [9, 10, 11, 12, 12, 13, 14, 15]
    assert second.grad.tolist() == [2] * 4 + [0] * 4


def test_flats_are_cut_at_a_size_and_at_another_dtype():
    pairs = [*named((10,), (5,), (40,), (2,)), ("half", Tensor(np.ones(2, np.float32), True))]
    assert [list(flat.parameters) for flat in flats_of(pairs, 2, 8 * 15)] == [
        ["x0", "x1"],
        ["x2"],
        ["x3"],
        ["half"],
    ]
    assert len(flats_of(pairs, 2)) == 2
    assert flats_of([], 2) == []
    with pytest.raises(UsageError, match=r"one dtype; here are .*half float32"):
        Flat(pairs, 2)


def test_a_view_has_the_shape_of_the_parameter_and_the_memory_of_the_array():
    flat = Flat(named((2, 3), (4,)), 4)
    array = flat.zeros()
    flat.view(array, "x1")[...] = 7
    assert array.reshape(-1).tolist() == [0] * 6 + [7] * 4 + [0] * 2
    assert flat.view(array, "x0").shape == (2, 3)


def test_the_norm_is_that_of_all_slices():
    def work(group):
        flat = Flat(named((3,), (2,)), group.size)
        own = slices(flat)[group.rank]
        owned = Owned([own], group, lambda named: SGD(named, lr=1))
        own.grad[...] = [3, 0, 0] if group.rank else [0, 4, 0]
        return owned.clip(1.0), own.grad.tolist()

    assert minipar.run(work, 2) == [(5.0, [0, 0.8, 0]), (5.0, [0.6000000000000001, 0, 0])]
