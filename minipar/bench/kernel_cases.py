"""The calls that `bench kernels` times: minipar's, and torch's for the same arrays.

The bytes of a call are those that it cannot avoid: what goes in and what comes out, each once.

Letters: n = b·t positions, d = h·c features; the others in Sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minipar import cuda


class Sizes(NamedTuple):
    """Of a GPT; `many` times as many rows where its arrays would fit the GPU's cache."""

    b: int = 16  # batch items
    t: int = 1024  # positions
    h: int = 12  # heads
    c: int = 64  # channels of a head
    v: int = 50304  # tokens
    many: int = 8
    square: int = 8192  # n of a product of [n, n]
    numbers: int = 1 << 28  # parameters for AdamW, and numbers to copy


GPT = Sizes()


class Case(NamedTuple):
    """One call. work: bytes that must be moved, or floating point operations."""

    name: str
    unit: str  # GB/s or TFLOP/s
    work: float
    ours: Callable[[], Any]
    theirs: Callable[[Any], Callable[[], Any]]  # torch -> the same by it


def cases(dtype: str, sizes: Sizes, products_only: bool) -> Iterator[Case]:
    """The cases of one float; the arrays of a case are freed before the next is made."""
    for make in (_products,) if products_only else (_copy, _products, *MOVING):
        yield from make(dtype, sizes)


def _numbers(dtype: str, *shape: int) -> Any:
    """Numbers in -1 .. 1, without a library for random ones."""
    import cupy

    count = 1
    for n in shape:
        count *= n
    return cupy.sin(cupy.arange(count, dtype="float32")).astype(dtype).reshape(shape)


def _tensors(torch: Any, *arrays: Any) -> list[Any]:
    return [torch.from_dlpack(a).requires_grad_() for a in arrays]


def _again(torch: Any, z: Any, inputs: list[Any], dz: Any) -> Callable[[], Any]:
    """A backward that can be called many times."""
    given = torch.from_dlpack(dz)
    return lambda: torch.autograd.grad(z, inputs, given, retain_graph=True)


def _copy(dtype: str, s: Sizes) -> Iterator[Case]:
    import cupy

    x = _numbers(dtype, s.numbers)
    y = cupy.empty_like(x)

    def theirs(torch: Any) -> Callable[[], Any]:
        into, of = torch.from_dlpack(y), torch.from_dlpack(x)
        return lambda: into.copy_(of)

    yield Case("copy", "GB/s", 2 * x.nbytes, lambda: cupy.copyto(y, x), theirs)


def _products(dtype: str, s: Sizes) -> Iterator[Case]:
    n, d = s.b * s.t, s.h * s.c
    sides = (
        ("square", s.square, s.square, s.square),
        ("d · 4d", n, d, 4 * d),
        ("logits", n, d, s.v),
    )
    for name, n, i, o in sides:
        yield _product(f"product, {name}", _numbers(dtype, n, i), _numbers(dtype, o, i).T)
    q, k = (_numbers(dtype, s.b * s.h, s.t, s.c) for _ in range(2))
    yield _product("products, scores", q, k.swapaxes(1, 2))


def _product(name: str, a: Any, b: Any) -> Case:
    def theirs(torch: Any) -> Callable[[], Any]:
        x, y = torch.from_dlpack(a), torch.from_dlpack(b)
        return lambda: x @ y

    return Case(name, "TFLOP/s", 2 * a.size * b.shape[-1], lambda: cuda.matmul(a, b), theirs)


def _layer_norm(dtype: str, s: Sizes) -> Iterator[Case]:
    x, dz = (_numbers(dtype, s.many * s.b * s.t, s.h * s.c) for _ in range(2))
    gain, bias = (_numbers(dtype, s.h * s.c) for _ in range(2))
    _, back = cuda.layer_norm(x, gain, bias, 1e-5)

    def forward(torch: Any) -> Callable[[], Any]:
        tx, tg, tb = _tensors(torch, x, gain, bias)
        return lambda: torch.nn.functional.layer_norm(tx, gain.shape, tg, tb)

    def backward(torch: Any) -> Callable[[], Any]:
        inputs = _tensors(torch, x, gain, bias)
        z = torch.nn.functional.layer_norm(inputs[0], gain.shape, *inputs[1:])
        return _again(torch, z, inputs, dz)

    once = x.nbytes
    yield Case(
        "layer norm", "GB/s", 2 * once, lambda: cuda.layer_norm(x, gain, bias, 1e-5), forward
    )
    yield Case("layer norm, back", "GB/s", 3 * once, lambda: back(dz, (True,) * 3), backward)


def _cross_entropy(dtype: str, s: Sizes) -> Iterator[Case]:
    import cupy

    n, v = s.b * s.t, s.v
    x, t = _numbers(dtype, n, v), cupy.arange(n) * 7 % v
    _, back = cuda.cross_entropy(x, t, 1 / n)
    one = cupy.ones((), "float32")

    def forward(torch: Any) -> Callable[[], Any]:
        (tx,), index = _tensors(torch, x), torch.from_dlpack(t)
        return lambda: torch.nn.functional.cross_entropy(tx, index)

    def backward(torch: Any) -> Callable[[], Any]:
        inputs = _tensors(torch, x)
        z = torch.nn.functional.cross_entropy(inputs[0], torch.from_dlpack(t))
        return _again(torch, z, inputs, one.astype(dtype))

    once = x.nbytes
    yield Case("cross-entropy", "GB/s", once, lambda: cuda.cross_entropy(x, t, 1 / n), forward)
    yield Case("cross-entropy, back", "GB/s", 2 * once, lambda: back(one, (True,)), backward)


def _gelu(dtype: str, s: Sizes) -> Iterator[Case]:
    x, dz = (_numbers(dtype, s.many * s.b * s.t, s.h * s.c) for _ in range(2))
    _, back = cuda.gelu(x)

    def forward(torch: Any) -> Callable[[], Any]:
        (tx,) = _tensors(torch, x)
        return lambda: torch.nn.functional.gelu(tx, approximate="tanh")

    def backward(torch: Any) -> Callable[[], Any]:
        inputs = _tensors(torch, x)
        z = torch.nn.functional.gelu(inputs[0], approximate="tanh")
        return _again(torch, z, inputs, dz)

    yield Case("gelu", "GB/s", 2 * x.nbytes, lambda: cuda.gelu(x), forward)
    yield Case("gelu, back", "GB/s", 3 * x.nbytes, lambda: back(dz, (True,)), backward)


def _dropout(dtype: str, s: Sizes) -> Iterator[Case]:
    x = _numbers(dtype, s.many * s.b * s.t, s.h * s.c)

    def theirs(torch: Any) -> Callable[[], Any]:
        (tx,) = _tensors(torch, x)
        return lambda: torch.nn.functional.dropout(tx, 0.1)

    def ours() -> Any:
        return cuda.dropout(x, (1, 2, 3, 0), 1 << 28, 1 / 16)

    yield Case("dropout", "GB/s", 2 * x.nbytes, ours, theirs)


def _embedding(dtype: str, s: Sizes) -> Iterator[Case]:
    """As frequent as words are: the first id is that of a tenth of all positions."""
    import cupy

    n, d, v = s.b * s.t, s.h * s.c, s.v
    ids = (v ** (cupy.arange(n) * 0.618 % 1)).astype("int64") - 1
    dz = _numbers(dtype, n, d)

    def theirs(torch: Any) -> Callable[[], Any]:
        inputs = _tensors(torch, _numbers(dtype, v, d))
        z = torch.nn.functional.embedding(torch.from_dlpack(ids), inputs[0])
        return _again(torch, z, inputs, dz)

    work = 2 * dz.nbytes + v * d * dz.itemsize
    yield Case("embedding, back", "GB/s", work, lambda: cuda.sum_to_table(ids, dz, v), theirs)


def _attention(dtype: str, s: Sizes) -> Iterator[Case]:
    qkv, dz = _numbers(dtype, s.b, s.t, 3, s.h, s.c), _numbers(dtype, s.b, s.t, s.h, s.c)
    _, back = cuda.causal_attention(qkv)
    work = 2 * dz.size * s.t  # half of 2 · 2 · all scores · c

    def parts(torch: Any) -> tuple[list[Any], Any]:
        inputs = [torch.from_dlpack(qkv)[:, :, n].transpose(1, 2) for n in range(3)]
        inputs = [x.detach().requires_grad_() for x in inputs]
        attend = torch.nn.functional.scaled_dot_product_attention
        return inputs, lambda: attend(*inputs, is_causal=True)

    def backward(torch: Any) -> Callable[[], Any]:
        inputs, attend = parts(torch)
        return _again(torch, attend(), inputs, dz.swapaxes(1, 2))

    ours = Case(
        "attention", "TFLOP/s", work, lambda: cuda.causal_attention(qkv), lambda t: parts(t)[1]
    )
    yield ours
    yield Case("attention, back", "TFLOP/s", 2.5 * work, lambda: back(dz, (True,)), backward)


def _adamw(dtype: str, s: Sizes) -> Iterator[Case]:
    """1 GB of float32 parameters; in bfloat16 with gradients of that, and a copy written."""
    import cupy

    n = s.numbers
    x, m, v = (cupy.zeros(n, "float32") for _ in range(3))
    g = cupy.zeros(n, dtype)
    low = None if dtype == "float32" else cupy.empty_like(g)
    parts, rates = [cuda.Part(x, g, m, v, low, 0.1)], cuda.Rates(1e-3, (0.9, 0.999), 1e-8, 1)

    def theirs(torch: Any) -> Callable[[], Any]:
        (tx,) = _tensors(torch, x)
        tx.grad = torch.from_dlpack(g).float()
        return torch.optim.AdamW([tx], lr=1e-3, fused=True).step

    work = 6 * x.nbytes + g.nbytes * (1 if low is None else 2)
    yield Case("adamw", "GB/s", work, lambda: cuda.adamw(parts, rates), theirs)


MOVING = (_layer_norm, _cross_entropy, _gelu, _dropout, _embedding, _attention, _adamw)
