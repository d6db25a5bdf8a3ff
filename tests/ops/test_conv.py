import numpy as np
import pytest

from minipar import windows
from minipar.errors import ShapeMismatch
from minipar.ops import conv2d, linear
from minipar.ops.conv import conv2d_definition
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

rng = np.random.default_rng(0)


def in_loops(x, w, b, stride, padding, dilation, groups):
    """Each number of z for itself."""
    (k, l, per_group, o), (n, h, across, _) = w.shape, x.shape
    padded = np.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)))
    down = (h + 2 * padding[0] - dilation[0] * (k - 1) - 1) // stride[0] + 1
    across = (across + 2 * padding[1] - dilation[1] * (l - 1) - 1) // stride[1] + 1
    z = np.zeros((n, down, across, o))
    for image, y, column, out in np.ndindex(z.shape):
        group = out // (o // groups)
        z[image, y, column, out] = b[out]
        for at in np.ndindex(k, l, per_group):
            row = y * stride[0] + at[0] * dilation[0]
            col = column * stride[1] + at[1] * dilation[1]
            seen = padded[image, row, col, group * per_group + at[2]]
            z[image, y, column, out] += seen * w[(*at, out)]
    return z


CASES = [  # x, w, stride, padding, dilation, groups
    ((2, 4, 5, 3), (1, 1, 3, 2), 1, 0, 1, 1),  # x is its own columns
    ((2, 5, 4, 3), (1, 1, 3, 2), 2, 0, 1, 1),
    ((2, 4, 5, 3), (1, 1, 3, 2), 1, 1, 1, 1),  # sees nothing but padding at the border
    ((2, 5, 4, 2), (3, 3, 2, 3), 1, 1, 1, 1),
    ((2, 5, 6, 2), (3, 2, 2, 3), 1, 0, 1, 1),
    ((2, 5, 6, 2), (3, 3, 2, 3), 2, 1, 1, 1),
    ((2, 7, 6, 2), (2, 3, 2, 3), (1, 2), (0, 2), (2, 1), 1),
    ((2, 5, 4, 4), (3, 3, 2, 6), 1, 1, 1, 2),  # groups
    ((2, 5, 4, 4), (3, 2, 2, 6), 2, 1, 1, 2),
    ((2, 5, 4, 3), (3, 3, 1, 3), 1, 1, 1, 3),  # depthwise
    ((2, 5, 4, 3), (2, 3, 1, 6), 2, 1, (2, 1), 3),  # depthwise, two out of each
    ((2, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1, 1),
]


def case(x, w, *how, dtype=np.float64):
    x, w = rng.normal(size=x).astype(dtype), rng.normal(size=w).astype(dtype)
    return [x, w, rng.normal(size=w.shape[3]).astype(dtype)], how


@pytest.mark.parametrize("f", [conv2d, conv2d_definition])
@pytest.mark.parametrize("c", CASES)
def test_forward_is_that_of_plain_loops(f, c):
    arrays, (stride, padding, dilation, groups) = case(*c)
    pairs = [n if isinstance(n, tuple) else (n, n) for n in (stride, padding, dilation)]
    z = f(*map(Tensor, arrays), stride, padding, dilation, groups)
    np.testing.assert_allclose(z.data, in_loops(*arrays, *pairs, groups), atol=1e-12)


@pytest.mark.parametrize("f", [conv2d, conv2d_definition])
@pytest.mark.parametrize("c", CASES)
def test_vjps(f, c):
    arrays, how = case(*c)
    gradcheck(lambda x, w, b: f(x, w, b, *how), *arrays)
    gradcheck(lambda x, w: f(x, w, None, *how), *arrays[:2])


@pytest.mark.parametrize("part_bytes", [1, 1500, 1 << 21])  # a row, an image, all at a time
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", CASES)
def test_the_fast_one_is_its_definition(monkeypatch, part_bytes, dtype, c):
    monkeypatch.setattr(windows, "PART_BYTES", part_bytes)
    arrays, how = case(*c, dtype=dtype)
    fast = [Tensor(a, requires_grad=True) for a in arrays]
    slow = [Tensor(a, requires_grad=True) for a in arrays]
    z, expected = conv2d(*fast, *how), conv2d_definition(*slow, *how)
    dz = rng.normal(size=z.shape).astype(dtype)
    z.backward(dz)
    expected.backward(dz)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == np.float32 else {"atol": 1e-12}
    assert z.dtype == dtype
    np.testing.assert_allclose(z.data, expected.data, **close)
    for a, b in zip(fast, slow):
        assert a.grad.dtype == dtype
        np.testing.assert_allclose(a.grad, b.grad, **close)


def test_arrays_that_do_not_lie_in_order():
    x, w = rng.normal(size=(3, 5, 4, 2)), rng.normal(size=(3, 3, 2, 4))
    for how in ((1, 1), (2, 0)):
        expected = conv2d(Tensor(x), Tensor(w), None, *how).data
        turned = Tensor(x.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0), requires_grad=True)
        w_turned = Tensor(w.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0))
        z = conv2d(turned, w_turned, None, *how)
        np.testing.assert_allclose(z.data, expected, atol=1e-12)
        z.sum().backward()  # dz is one number, seen everywhere
        slopes = conv2d_definition(a := Tensor(x, requires_grad=True), Tensor(w), None, *how).sum()
        slopes.backward()
        np.testing.assert_allclose(turned.grad, a.grad, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_no_images(groups):
    x = Tensor(np.ones((0, 4, 4, 4)), requires_grad=True)
    w = Tensor(np.ones((3, 3, 4 // groups, 4)), requires_grad=True)
    z = conv2d(x, w, None, 1, 1, 1, groups)
    z.sum().backward()
    assert z.shape == x.grad.shape == (0, 4, 4, 4) and not w.grad.any()


def test_what_nobody_wants_is_not_computed():
    x, w = Tensor(np.ones((1, 3, 3, 2))), Tensor(np.ones((3, 3, 2, 2)), requires_grad=True)
    z = conv2d(x, w, padding=1)
    assert z._node.vjp(z.data, (False, True))[0] is None
    assert z._node.vjp(z.data, (True, False))[1] is None


def test_a_1x1_kernel_is_linear():
    x, w = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(1, 1, 5, 6))
    expected = linear(Tensor(x), Tensor(w[0, 0])).data
    np.testing.assert_allclose(conv2d(Tensor(x), Tensor(w)).data, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("x", "w", "b", "groups", "said"),
    [
        ((1, 3, 8, 8), (3, 3, 3, 4), 4, 1, "Channels come last here"),
        ((1, 8, 8, 4), (3, 3, 4, 4), 4, 2, "groups 2"),
        ((1, 8, 8, 4), (3, 3, 2, 3), 3, 2, "o a multiple of groups"),
        ((8, 8, 4), (3, 3, 4, 4), 4, 1, r"x is float64\[8, 8, 4\]"),
        ((1, 8, 8, 4), (3, 3, 4, 4), 3, 1, r"b is float64\[3\]"),
    ],
)
def test_what_does_not_fit_is_said(x, w, b, groups, said):
    with pytest.raises(ShapeMismatch, match=said):
        conv2d(*(Tensor(np.ones(s)) for s in (x, w, b)), groups=groups)


@pytest.mark.parametrize("c", CASES)
def test_torch_agrees(c):
    torch = pytest.importorskip("torch")
    arrays, how = case(*c)
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    z = conv2d(*ours, *how)
    x, w, b = theirs
    expected = torch.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), b, *how)
    dz = rng.normal(size=z.shape)
    z.backward(dz)
    expected.backward(torch.tensor(dz).permute(0, 3, 1, 2))
    np.testing.assert_allclose(z.data, expected.detach().permute(0, 2, 3, 1), atol=1e-12)
    for a, e in zip(ours, theirs):
        np.testing.assert_allclose(a.grad, e.grad, atol=1e-12)
