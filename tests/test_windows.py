import numpy as np
import pytest

from minipar import windows as module
from minipar.errors import ShapeMismatch, UsageError
from minipar.windows import back, forth, window, windows

rng = np.random.default_rng(0)


def place(x, win, y, across, k, l):
    """The pixel that stands at (k, l) of the window at (y, across); zero in the padding."""
    h = y * win.stride[0] + k * win.dilation[0] - win.padding[0]
    w = across * win.stride[1] + l * win.dilation[1] - win.padding[1]
    return x[:, h, w] if 0 <= h < x.shape[1] and 0 <= w < x.shape[2] else 0 * x[:, 0, 0]


def pictures(x, win):
    """All windows [b, y, x, k, l, c], pixel by pixel."""
    down, across = win.out(*x.shape[1:3])
    z = np.zeros((len(x), down, across, *win.kernel, x.shape[3]))
    for at in np.ndindex(z.shape[1:5]):
        z[(slice(None), *at)] = place(x, win, *at)
    return z


CASES = [  # kernel, stride, padding, dilation
    (1, 1, 0, 1),
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    ((2, 3), (1, 2), (1, 0), (2, 1)),
]


@pytest.mark.parametrize("part_bytes", [1, 700, 1 << 21])  # a row, some rows, all at a time
@pytest.mark.parametrize("case", CASES)
def test_forth_gives_every_window_and_back_is_its_transpose(monkeypatch, part_bytes, case):
    monkeypatch.setattr(module, "PART_BYTES", part_bytes)
    x = rng.normal(size=(3, 6, 7, 2))
    win = window("test", x, *case)
    expected = pictures(x, win)
    found = np.full(expected.shape, np.nan)
    for at, view in forth(x, win, 100):
        found[at] = view
    assert (found == expected).all()
    dz, dx = rng.normal(size=expected.shape), np.full(x.shape, np.nan)
    for at, view in back(dx, win, 100):
        for k, l in np.ndindex(win.kernel):
            view[:, :, :, k, l] += dz[at][:, :, :, k, l]
    np.testing.assert_allclose(
        (dx * x).sum(), (dz * expected).sum()
    )  # <back dz, x> = <dz, forth x>


def test_padding_holds_what_is_asked_for():
    x = np.ones((1, 2, 2, 1))
    ((_, view),) = forth(x, window("test", x, 2, 1, 1), 1, fill=-np.inf)
    assert (view == -np.inf).sum() == 36 - 4 * 4  # each pixel is in four of the nine windows


def test_windows_are_views():
    x = rng.normal(size=(1, 4, 4, 2))
    assert np.shares_memory(windows(x, window("test", x, 3, 1, 0)), x)


def test_no_image_no_window():
    x = np.ones((0, 4, 4, 1))
    assert list(forth(x, window("test", x, 3, 1, 1), 1)) == []


@pytest.mark.parametrize(
    ("shape", "how", "error", "said"),
    [
        ((4, 4, 1), (3, 1, 0), ShapeMismatch, r"test: x is float64\[4, 4, 1\]; images are"),
        ((1, 2, 5, 1), (3, 1, 0), ShapeMismatch, r"too small for a kernel of \(3, 3\)"),
        ((1, 4, 4, 1), (3, 0, 0), UsageError, "stride and dilation start at 1"),
        ((1, 4, 4, 1), (3, 1, -1), UsageError, "padding at 0"),
        ((1, 4, 4, 1), (3, 1, "same"), UsageError, "'same' must be a whole number"),
        ((1, 4, 4, 1), ((3, 3, 3), 1, 0), UsageError, r"pair \(down, across\)"),
    ],
)
def test_what_cannot_be_is_said(shape, how, error, said):
    with pytest.raises(error, match=said):
        window("test", np.ones(shape), *how)
