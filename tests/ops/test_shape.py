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


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("transpose", lambda x: transpose(x, 0, 1, 5)),
        ("concat", lambda x: concat([x, x], axis=3)),
        ("concat", lambda x: concat([x, x], axis=-4)),
        ("stack", lambda x: stack([x, x], axis=4)),
        ("split", lambda x: split(x, 1, axis=3)),
        ("gather", lambda x: gather(x, np.zeros((2, 3, 1), int), axis=3)),
    ],
)
def test_an_axis_that_is_not_there_is_not_another_one(name, make):
    with pytest.raises(ShapeMismatch, match=rf"{name}: float64\[2, 3, 4\]: there is no axis -?\d"):
        make(Tensor(X))


def test_scalars_cannot_be_concatenated():
    with pytest.raises(ShapeMismatch, match=r"concat: float32.*no axis 0; there are none"):
        concat([Tensor(1.0), Tensor(2.0)])


def test_concat_compares_the_number_of_axes():
    with pytest.raises(ShapeMismatch, match="all other axes must be equal"):
        concat([Tensor(np.ones((2, 3))), Tensor(np.ones(2))], axis=1)


def test_integers_of_numpy_are_integers():
    assert reshape(Tensor(X), np.prod(X.shape)).shape == (24,)
    assert transpose(Tensor(X[0, 0]), np.int64(0)).shape == (4,)
