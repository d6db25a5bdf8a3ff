"""The kernels in NumPy: what each .cu file computes, with the same names and arguments.

With them in place of the GPU the Python side of minipar/cuda runs anywhere: shapes, strides, which
argument is which, how the rows are shared out among the blocks. `module` puts them there.
"""

import ctypes
import sys

import numpy as np

from minipar.cuda import products, source
from minipar.cuda.optimizer import SLOT
from tests import strict_cupy

SCALE, CUBIC = np.sqrt(2 / np.pi), 0.044715


def module(monkeypatch):
    """The stand-in for CuPy, where `import cupy` finds it, with twins, and NumPy for cuBLAS."""
    cupy = strict_cupy.module()
    cupy.RawModule = None

    def kernel(file, name, dtype, width, channels=0):
        def launched(grid, threads, arguments, shared_mem):
            assert threads[0] % 32 == 0 and np.prod(threads) <= 1024 and shared_mem <= 96 << 10
            TWINS[name](grid, *[a._host if isinstance(a, cupy.ndarray) else a for a in arguments])

        return launched

    def call(shape, a, b, z, factors):
        n, i, o = shape
        before = factors[1] * view(z, n, o) if factors[1] else 0
        view(z, n, o)[...] = factors[0] * view(a, n, i) @ view(b, i, o) + before

    def view(operand, rows, columns):
        x, turned, line, step = operand
        strides = (step, 1, line) if turned else (step, line, 1)
        shape = (len(x) if x.ndim > 2 else 1, rows, columns)
        strides = [s * x.itemsize for s in strides]
        return np.lib.stride_tricks.as_strided(x._host, shape, strides)

    monkeypatch.setattr(source, "_kernel", kernel)
    monkeypatch.setattr(products, "_call", call)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def layer_norm(grid, x, gain, bias, z, kept, d, eps):
    rows = x.reshape(grid[0], d)
    kept[0] = rows.mean(axis=1)
    kept[1] = 1 / np.sqrt(rows.var(axis=1) + eps)
    z.reshape(rows.shape)[...] = (rows - kept[0][:, None]) * kept[1][:, None] * gain + bias


def rms_norm(grid, x, gain, z, kept, d, eps):
    rows = x.reshape(grid[0], d)
    kept[0] = 0
    kept[1] = 1 / np.sqrt((rows * rows).mean(axis=1) + eps)
    z.reshape(rows.shape)[...] = rows * kept[1][:, None] * gain


def norm_back(grid, dz, x, gain, kept, dx, sums, rows, d, centred):
    mean, inverse = kept[:, :, None]
    h = (x.reshape(rows, d) - mean) * inverse
    dz = dz.reshape(rows, d)
    dh = dz * gain
    back = dh - h * (dh * h).mean(axis=1, keepdims=True)
    if centred:
        back -= dh.mean(axis=1, keepdims=True)
    dx.reshape(rows, d)[...] = back * inverse
    for block in range(grid[0]):
        own = slice(block, None, grid[0])
        sums[block] = np.concatenate([(dz * h)[own].sum(axis=0), dz[own].sum(axis=0)])


def layer_norm_back(grid, dz, x, gain, kept, dx, sums, rows, d):
    norm_back(grid, dz, x, gain, kept, dx, sums, rows, d, True)


def rms_norm_back(grid, dz, x, gain, kept, dx, sums, rows, d):
    norm_back(grid, dz, x, gain, kept, dx, sums, rows, d, False)


def column_sums(grid, x, out, rows, d):
    block = np.arange(rows) // 8 % grid[1]  # with one block down, the warps do not matter
    for y in range(grid[1]):
        out.reshape(grid[1], d)[y] = x.reshape(rows, d)[block == y].sum(axis=0)


few_sums = last_sums = column_sums


def add_bias(grid, z, bias, d):
    z.reshape(grid[0], d)[...] += bias


def weight(y):
    return (1 + np.tanh(SCALE * (y + CUBIC * y**3))) / 2


def gelu(grid, y, bias, z, o):
    total = y.reshape(grid[0], o) + (0 if bias is None else bias)
    z.reshape(total.shape)[...] = total * weight(total)


def gelu_back(grid, dz, y, bias, dy, o):
    total = y.reshape(grid[0], o) + (0 if bias is None else bias)
    w = weight(total)
    slope = w + total * w * (1 - w) * 2 * SCALE * (1 + 3 * CUBIC * total**2)
    dy.reshape(total.shape)[...] = dz.reshape(total.shape) * slope


def cross_entropy(grid, x, targets, losses, log_sums, v, share, epsilon):
    rows, some = x.reshape(grid[0], v), np.arange(grid[0])
    log_sums[...] = np.log(np.exp(rows).sum(axis=1))
    expected = (1 - epsilon) * rows[some, targets] + epsilon / v * rows.sum(axis=1)
    losses[...] = np.where(targets < 0, 0, (log_sums - expected) * share)


def cross_entropy_back(grid, x, targets, log_sums, dz, dx, v, share, epsilon):
    p = np.exp(x.reshape(grid[0], v) - log_sums[:, None]) - epsilon / v
    p[np.arange(grid[0]), targets] -= 1 - epsilon
    dx.reshape(p.shape)[...] = p * np.where(targets < 0, 0, dz * share)[:, None]


def seen(rows, first, period, ahead, s):
    """[query, key]: whether it is visible."""
    places = (first + np.arange(rows)) % period + ahead
    return (np.arange(s) <= places[:, None]) | (ahead < 0)


def softmax(grid, scores, weights, log_sums, first, period, ahead, rows, s, n):
    e = np.exp(scores) * seen(rows, first, period, ahead, s)
    total = e.sum(axis=2)
    weights[...] = e / total[:, :, None]
    log_sums.reshape(grid[1], n)[:, first : first + rows] = np.log(total)


def softmax_back(grid, scores, dp, log_sums, weights, ds, first, period, ahead, rows, s, n):
    log_sum = log_sums.reshape(grid[1], n)[:, first : first + rows, None]
    weights[...] = np.exp(scores - log_sum) * seen(rows, first, period, ahead, s)
    ds[...] = weights * (dp - (weights * dp).sum(axis=2, keepdims=True))


def attended(qkv, t, h):
    """q, k, v and the scores in powers of 2, [b, h, query, ...]."""
    q, k, v = qkv.astype("float64").transpose(2, 0, 3, 1, 4)
    s = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[3]) / np.log(2)
    return q, k, v, np.where(np.tril(np.ones((t, t), bool)), s, -np.inf)


def flash(grid, qkv, z, log_sums, t, h):
    assert grid[1:] == (h, len(qkv)) and grid[0] == -(-t // 64)
    _, _, v, s = attended(qkv, t, h)
    log_sums[...] = np.log2(np.exp2(s).sum(axis=3))
    z[...] = (np.exp2(s - log_sums[..., None]) @ v).swapaxes(1, 2)


def flash_dots(grid, z, dz, dots, rows, t, h):
    assert rows == z.size // z.shape[3]
    dots[...] = (z.astype("float64") * dz).sum(axis=3).swapaxes(1, 2)


def flash_dq(grid, qkv, dz, log_sums, dots, dqkv, t, h):
    q, k, v, s = attended(qkv, t, h)
    p = np.exp2(s - log_sums[..., None])
    ds = p * (dz.swapaxes(1, 2) @ v.swapaxes(2, 3) - dots[..., None])
    dqkv[:, :, 0] = (ds @ k).swapaxes(1, 2) / np.sqrt(q.shape[3])


def flash_dkv(grid, qkv, dz, log_sums, dots, dqkv, t, h):
    q, _, v, s = attended(qkv, t, h)
    p, dz = np.exp2(s - log_sums[..., None]), dz.swapaxes(1, 2)
    ds = p * (dz @ v.swapaxes(2, 3) - dots[..., None])
    dqkv[:, :, 1] = (ds.swapaxes(2, 3) @ q).swapaxes(1, 2) / np.sqrt(q.shape[3])
    dqkv[:, :, 2] = (p.swapaxes(2, 3) @ dz).swapaxes(1, 2)


def dropout(grid, x, z, n, start, key0, key1, step, threshold, scale):
    counter = np.array([start // 8, 0, step, 0], np.uint64)
    philox = np.random.Philox(key=np.array([key0, key1], np.uint64), counter=counter)
    drawn = philox.random_raw((start % 8 + n) // 2 + 1).view("<u4")[start % 8 :][:n]
    z.reshape(-1)[...] = x.reshape(-1) * (drawn >= threshold) * scale


def sum_runs(grid, ids, order, rows, table, m, d):
    assert (np.diff(ids) >= 0).all()
    for i in np.unique(ids):
        table[i] = rows[order[ids == i]].sum(axis=0)


def arrays(slots, dtype):
    """What a table of parameters points at: x, g, m, v, low, keep; g and low of dtype."""
    for slot in slots.view(SLOT):
        kinds = {"x": "float32", "g": dtype, "m": "float32", "v": "float32", "low": dtype}
        yield *(at(slot[name], slot["n"], kind) for name, kind in kinds.items()), slot["keep"]


def at(address, n, dtype):
    size = int(n) * np.dtype(dtype).itemsize
    return (
        np.frombuffer((ctypes.c_char * size).from_address(int(address)), dtype) if address else None
    )


def adamw(grid, slots, scale, beta1, beta2, rate, eps):
    for x, g, m, v, low, keep in arrays(slots, "float32"):
        grad = g * scale
        m[...] = m * beta1 + grad * (1 - beta1)
        v[...] = v * beta2 + grad * grad * (1 - beta2)
        x[...] = x * keep - rate * m / (np.sqrt(v) + eps)
        if low is not None:
            low[...] = x


def squares(grid, slots, sums):
    sums[...] = 0
    sums[:, 0] = [(g.astype("float64") ** 2).sum() for _, g, *_ in arrays(slots, "float32")]


def scale(grid, slots, factor):
    for _, g, *_ in arrays(slots, "float32"):
        g[...] *= factor


TWINS = {name: f for name, f in globals().items() if callable(f) and name not in ("module", "seen")}
for helper in ("norm_back", "weight", "arrays", "at", "attended"):
    del TWINS[helper]
