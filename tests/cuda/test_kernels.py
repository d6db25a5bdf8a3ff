"""The kernels give what the readable ops give: against float64 on NumPy.

On a GPU, and everywhere as their twins in NumPy (twins.py), which test all but the .cu files.
Sizes are odd and even, since wide loads need rows of whole 16 bytes. Inputs are rounded to the
dtype first, so what is measured is what the kernel adds.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from minipar import cuda, ops
from minipar.array import to_numpy
from minipar.models import GPT
from minipar.optim import AdamW, clip_grad_norm
from minipar.parallel.mixed import MixedPrecision
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from tests.cuda import twins
from tests.ops.test_all_ops import OPS, draw

TOLERANCES = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 2e-2}


class Case(NamedTuple):
    f: Callable
    shapes: list[tuple[int, ...]]


def targets(x, ignored=0):
    index = np.arange(np.prod(x.shape[:-1])).reshape(x.shape[:-1]) * 7 % x.shape[-1]
    index.flat[:ignored] = -1
    return index


def drawn(x):
    return ops.drawn_dropout(x, Draw(1, 2, range(3, 3 + x.shape[0])), "d", 0.3)


CASES = {
    "layer_norm": Case(ops.layer_norm, [(5, 7, 64), (64,), (64,)]),
    "layer_norm odd": Case(ops.layer_norm, [(601, 37), (37,), (37,)]),
    "layer_norm long": Case(ops.layer_norm, [(3, 4104), (4104,), (4104,)]),
    "layer_norm longest": Case(ops.layer_norm, [(2, 12288), (12288,), (12288,)]),
    "rms_norm": Case(ops.rms_norm, [(5, 7, 64), (64,)]),
    "rms_norm odd": Case(ops.rms_norm, [(601, 37), (37,)]),
    "linear": Case(ops.linear, [(3, 37, 64), (64, 48), (48,)]),
    "linear many rows": Case(ops.linear, [(9, 300, 16), (16, 40), (40,)]),
    "linear odd": Case(ops.linear, [(3, 37, 33), (33, 51), (51,)]),
    "linear one row": Case(ops.linear, [(1, 8), (8, 1), (1,)]),
    "linear without bias": Case(ops.linear, [(300, 64), (64, 48)]),
    "linear transposed": Case(lambda x, w: ops.linear(x, w.T), [(30, 64), (48, 64)]),
    "linear_gelu": Case(ops.linear_gelu, [(3, 300, 64), (64, 48), (48,)]),
    "linear_gelu odd": Case(ops.linear_gelu, [(3, 37, 33), (33, 51), (51,)]),
    "linear_gelu without bias": Case(ops.linear_gelu, [(30, 64), (64, 48)]),
    "gelu": Case(ops.gelu, [(3, 5, 64)]),
    "gelu odd": Case(lambda x: ops.gelu(x.T), [(37, 51)]),
    "matmul": Case(ops.matmul, [(5, 3, 16, 24), (5, 3, 24, 8)]),
    "matmul odd": Case(ops.matmul, [(5, 17, 23), (5, 23, 9)]),
    "matmul broadcast": Case(ops.matmul, [(5, 1, 4, 3), (2, 3, 8)]),
    "matmul transposed": Case(
        lambda x, y: ops.matmul(ops.transpose(x, (0, 2, 1)), y[:, ::2]), [(4, 8, 16), (4, 16, 24)]
    ),
    "matmul column": Case(ops.matmul, [(5, 1), (1, 7)]),
    "causal_attention": Case(ops.causal_attention, [(2, 64, 3, 3, 16)]),
    "causal_attention odd": Case(ops.causal_attention, [(2, 301, 3, 3, 17)]),
    "causal_attention one": Case(ops.causal_attention, [(2, 1, 3, 3, 8)]),
    "causal_attention of 32 channels": Case(ops.causal_attention, [(2, 129, 3, 2, 32)]),
    "causal_attention of 64 channels": Case(ops.causal_attention, [(3, 301, 3, 2, 64)]),
    "causal_attention of 128 channels": Case(ops.causal_attention, [(1, 70, 3, 3, 128)]),
    "attention": Case(
        ops.scaled_dot_product_attention, [(2, 200, 6, 16), (2, 77, 2, 16), (2, 77, 2, 16)]
    ),
    "attention causal": Case(
        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, causal=True),
        [(2, 30, 6, 16), (2, 77, 2, 16), (2, 77, 2, 16)],
    ),
    "attention causal one to one": Case(
        lambda q, k, v: ops.scaled_dot_product_attention(q, k, v, causal=True),
        [(2, 130, 2, 16), (2, 260, 2, 16), (2, 260, 2, 16)],
    ),
    "cross_entropy": Case(lambda x: ops.cross_entropy(x, targets(x)), [(3, 20, 96)]),
    "cross_entropy odd": Case(lambda x: ops.cross_entropy(x, targets(x)), [(40, 5003)]),
    "cross_entropy options": Case(
        lambda x: ops.cross_entropy(x, targets(x, 3), -1, 0.1), [(40, 5003)]
    ),
    "embedding": Case(lambda w: ops.embedding(w, np.arange(900) ** 2 % 41), [(50, 64)]),
    "embedding odd": Case(lambda w: ops.embedding(w, np.arange(900) // 700), [(5, 37)]),
    "drawn_dropout": Case(drawn, [(5, 7, 33)]),
}


GPU = pytest.mark.gpu
EVERYWHERE = [("twins", "float32"), *(pytest.param("gpu", d, marks=GPU) for d in TOLERANCES)]


def close(found, wanted, dtype, what):
    far = np.abs(found.astype("float64") - wanted).max() / max(1e-30, np.abs(wanted).max())
    assert far < TOLERANCES[dtype], f"{what}: {far:.2e}"


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_what_the_readable_op_gives(xp, name, dtype):
    case, rng = CASES[name], np.random.default_rng(0)
    there = [xp.asarray(rng.normal(size=s).astype("float32")).astype(dtype) for s in case.shapes]
    assert cuda.fast(*there)
    device = [Tensor(a, requires_grad=True) for a in there]
    host = [Tensor(a.get().astype("float64"), requires_grad=True) for a in there]
    z, wanted = case.f(*device), case.f(*host)
    close(z.data.get(), wanted.data, dtype, "z")
    dz = xp.asarray(rng.normal(size=z.shape).astype("float32")).astype(z.dtype)
    z.backward(dz)
    wanted.backward(dz.get().astype("float64"))
    for n, (a, b) in enumerate(zip(device, host)):
        assert a.grad.dtype == dtype
        close(a.grad.get(), b.grad, dtype, f"gradient {n}")


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.empty])
def test_arrays_without_elements(xp, name):
    op = OPS[name]
    tensors = [Tensor(xp.asarray(a), True) for a in draw(op, op.empty, "float32")]
    z = op.f(*tensors)
    z.backward(xp.ones(z.shape, z.dtype))
    assert all(x.grad.shape == x.shape and not to_numpy(x.grad).any() for x in tensors)


def test_attention_in_16_bits_without_a_gpu(monkeypatch):
    xp = twins.module(monkeypatch)
    test_a_kernel_gives_what_the_readable_op_gives(xp, "causal_attention", "float16")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["linear", "linear_gelu", "matmul", "causal_attention"])
def test_products_in_tf32(name, monkeypatch):
    monkeypatch.setitem(TOLERANCES, "float32", 3e-3)
    cuda.use_tf32(True)
    try:
        test_a_kernel_gives_what_the_readable_op_gives(pytest.importorskip("cupy"), name, "float32")
    finally:
        cuda.use_tf32(False)


@pytest.mark.parametrize("shape", [(1, 3), (5, 7, 11), (4, 64)])
@pytest.mark.parametrize("first", [0, 3, 16])
def test_the_mask_of_dropout_is_that_of_the_host_to_the_bit(xp, shape, first):
    draw = Draw(5, 7, range(first, first + shape[0]))
    z = ops.drawn_dropout(Tensor(xp.ones(shape, "float32")), draw, "layer", 0.4)
    np.testing.assert_array_equal(z.data.get() != 0, draw.keep("layer", shape, 0.4))


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
@pytest.mark.parametrize(
    "name", ["layer_norm odd", "linear", "embedding odd", "causal_attention of 64 channels"]
)
def test_the_same_bits_each_time(xp, name, dtype):
    case, rng, found = CASES[name], np.random.default_rng(0), []
    arrays = [xp.asarray(rng.normal(size=s).astype("float32")).astype(dtype) for s in case.shapes]
    for _ in range(3):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        z = case.f(*tensors)
        z.backward(z.data)
        found.append([z.data.get(), *(t.grad.get() for t in tensors)])
    for again in found[1:]:
        assert all((a == b).all() for a, b in zip(again, found[0]))


@pytest.mark.gpu
def test_a_model_in_16_bits_trains_on_a_gpu():
    cupy = pytest.importorskip("cupy")
    found = []
    for xp, precision in ((np, None), (cupy, "bfloat16")):
        model = GPT(Init(0, xp=xp), vocab=64, block=32, layers=2, d=64, heads=2, dropout=0.1)
        mixed = MixedPrecision(model, precision) if precision else None
        make = partial(AdamW, lr=0.01)
        optimizer = (mixed.optimizer(make) if mixed else make)(model.named_parameters())
        ids, losses = np.arange(4 * 33).reshape(4, 33) * 7 % 61, []
        for step in range(10):
            optimizer.zero_grad()
            loss = ops.cross_entropy(model(ids[:, :-1], Draw(0, step, range(4))), ids[:, 1:])
            loss.backward()
            clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.item()))
        found.append(losses)
    assert found[1] == pytest.approx(found[0], rel=0.05) and found[1][-1] < 0.8 * found[1][0]
