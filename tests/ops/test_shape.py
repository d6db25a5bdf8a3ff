import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.ops import broadcast_to, concat, gather, getitem, pad, reshape, split, stack, transpose
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)
X = rng.normal(size=(2, 3, 4))


@pytest.mark.parametrize("shape", [(6, 4), (2, -1), (24,), (-1,), (2, 3, 2, 2)])
def test_reshape(shape):
    assert (reshape(Tensor(X), *shape).data == X.reshape(shape)).all()
    assert (Tensor(X).reshape(shape).data == X.reshape(shape)).all()
    gradcheck(lambda x: reshape(x, shape), X)


@pytest.mark.parametrize("axes", [(), (0, 2, 1), (2, 0, 1), (-1, 0, 1)])
def test_transpose(axes):
    assert (transpose(Tensor(X), *axes).data == X.transpose(*axes)).all()
    gradcheck(lambda x: transpose(x, axes), X)


def test_t_reverses_the_axes():
    assert (Tensor(X).T.data == X.T).all()


@pytest.mark.parametrize(
    "index",
    [
        1,
        -1,
        slice(1, None),
        (slice(None), 0),
        (..., slice(None, None, 2)),
        (slice(None), None, 1),
        np.array([0, 1, 1, 0]),
        (slice(None), np.array([2, 0, 2])),
        (np.array([0, 1, 1]), np.array([2, 2, 2])),
        (np.array([[0], [1]]), np.array([0, 2]), slice(1, 3)),
        np.array([], dtype=int),
        X > 0,
    ],
)
def test_getitem_indexes_as_numpy_does_and_adds_up_repetitions(index):
    assert (Tensor(X)[index].data == X[index]).all()
    gradcheck(lambda x: x[index], X)


def test_a_tensor_can_be_unpacked_along_its_first_axis():
    a, b = Tensor(X)
    assert (a.data == X[0]).all() and (b.data == X[1]).all()
    gradcheck(lambda x: [row * 2 for row in x][1], X)


def test_getitem_takes_integer_tensors():
    assert (Tensor(X)[Tensor([1, 1])].data == X[[1, 1]]).all()


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis):
    parts = [X, X.take([0], axis=axis), X]
    assert (concat(list(map(Tensor, parts)), axis).data == np.concatenate(parts, axis)).all()
    gradcheck(lambda *xs: concat(xs, axis), *parts)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeMismatch, match=r"24 elements, \[5, 5\]"):
        reshape(Tensor(X), 5, 5)
    with pytest.raises(ShapeMismatch, match=r"\[7, -1\]"):
        reshape(Tensor(X), 7, -1)
    with pytest.raises(ShapeMismatch, match="no axes"):
        transpose(Tensor(X), 0, 1)
    with pytest.raises(ShapeMismatch, match=r"getitem.*out of bounds"):
        getitem(Tensor(X), 5)
    with pytest.raises(ShapeMismatch, match="concat along axis 0"):
        concat([Tensor(X), Tensor(X[:, :1])])
    with pytest.raises(UsageError, match="at least one"):
        concat([])


@pytest.mark.parametrize("axis", [0, 1, -1, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_stack(axis, n):
    parts = [X + i for i in range(n)]
    z = stack(list(map(Tensor, parts)), axis).data
    assert all((z.take(i, axis=axis) == parts[i]).all() for i in range(n))
    gradcheck(lambda *xs: stack(xs, axis), *parts)


@pytest.mark.parametrize(("sizes", "axis"), [(2, 2), (2, -1), (3, 1), ((1, 0, 2), 1), ((4,), -1)])
def test_split_is_undone_by_concat(sizes, axis):
    parts = split(Tensor(X), sizes, axis)
    expected = [4 // 2] * 2 if sizes == 2 else [1] * 3 if sizes == 3 else list(sizes)
    assert [part.shape[axis] for part in parts] == expected
    assert (np.concatenate([part.data for part in parts], axis) == X).all()
    gradcheck(lambda x: concat([(n + 1) * p for n, p in enumerate(split(x, sizes, axis))], axis), X)


@pytest.mark.parametrize("widths", [[(1, 2), (0, 0), (0, 3)], [(0, 0)] * 3, [(2, 0)] * 3])
def test_pad(widths):
    assert (pad(Tensor(X), widths, -7).data == np.pad(X, widths, constant_values=-7)).all()
    gradcheck(lambda x: pad(x, widths), X)


@pytest.mark.parametrize(
    ("before", "after"), [((3,), (2, 3)), ((3, 1), (2, 3, 4)), ((), (2, 2)), ((1, 0), (5, 0))]
)
def test_broadcast_to(before, after):
    x = rng.normal(size=before)
    assert (broadcast_to(Tensor(x), after).data == x + np.zeros(after)).all()
    gradcheck(lambda x: broadcast_to(x, after), x)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("k", [0, 1, 5])
def test_gather_picks_along_an_axis_and_adds_up_repetitions(axis, k):
    shape = [5 if n == 0 else n for n in X.shape]
    shape[axis] = k
    index = rng.integers(0, X.shape[axis], size=shape)
    expected = np.empty(shape)
    for place in np.ndindex(*shape):
        source = list(place)
        source[axis] = index[place]
        expected[place] = X[tuple(source)]
    assert (gather(Tensor(X), Tensor(index), axis).data == expected).all()
    gradcheck(lambda x: gather(x, index, axis), X)


def test_an_element_gathered_n_times_gets_n_gradients():
    x = Tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    gather(x, np.array([[1, 1, 0, 1]])).backward(np.array([[1.0, 2.0, 4.0, 8.0]]))
    assert x.grad.tolist() == [[4, 11, 0]]


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: stack([x, x[0]]), r"stack: float64\[2, 3, 4\], float64\[3, 4\]"),
        (lambda x: split(x, 2, 1), r"axis 1 of .* sizes \[1, 1\].* add up to 3"),
        (lambda x: split(x, 0), "add up to 2"),
        (lambda x: split(x, (3, -1)), "add up to 2"),
        (lambda x: pad(x, [(1, 1)]), "one pair"),
        (lambda x: pad(x, [(0, 0), (0, 0), (0, -1)]), "negative"),
        (lambda x: broadcast_to(x, (2, 3, 5)), r"cannot become \[2, 3, 5\]"),
        (lambda x: broadcast_to(x, (4,)), r"cannot become \[4\]"),
        (lambda x: gather(x, np.ones((2, 3, 1))), "must be of integers"),
        (lambda x: gather(x, np.zeros((2, 1, 1), int)), "as long as those of x"),
        (lambda x: gather(x, np.full((2, 3, 1), 4)), r"from 4 to 4.*0 \.\. 3"),
        (lambda x: gather(x, np.full((2, 3, 1), -1)), "from -1 to -1"),
    ],
)
def test_what_does_not_fit_is_named(f, message):
    with pytest.raises(ShapeMismatch, match=message):
        f(Tensor(X))


def test_stack_of_nothing():
    with pytest.raises(UsageError, match="at least one"):
        stack([])
