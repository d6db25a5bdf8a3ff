"""Causal attention in one launch, in 16 bits, whose scores are never written anywhere (flash.cu).

What `attention.py` does in blocks of queries, each of them three launches and the scores in memory,
this does in tiles that stay in registers: FlashAttention (Dao et al. 2022). It needs tensor cores
that take 16 bits, and heads of whole 16 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar.cuda.source import LOAD_BYTES, Array, Made, contiguous, launch

TILE, THREADS = 64, 128
CHANNELS = (16, 32, 48, 64, 80, 96, 112, 128)


def suits(qkv: Array) -> bool:
    """Whether these kernels take it.   qkv: [b, t, 3, h, c]."""
    return qkv.itemsize == 2 and qkv.shape[4] in CHANNELS


def causal_attention(qkv: Array) -> Made:
    """z and the vjp of `ops.causal_attention`.   qkv: [b, t, 3, h, c]   z: [b, t, h, c].

    Keeps qkv, z, and log₂ Σ 2^score of each query.
    """
    import cupy

    qkv = _aligned(qkv)
    b, t, _, h, c = qkv.shape
    z, log_sums = cupy.empty((b, t, h, c), qkv.dtype), cupy.empty((b, h, t), "float32")
    _tiles("flash", qkv, (z, log_sums))

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        dz, dots, dqkv = _aligned(dz), cupy.empty(log_sums.shape, "float32"), cupy.empty_like(qkv)
        rows, kernel = b * t * h, ("flash", "flash_dots", qkv.dtype, 8, c)
        launch(kernel, (-(-rows // THREADS),), (THREADS,), z, dz, dots, rows, t, h)
        for name in ("flash_dq", "flash_dkv"):
            _tiles(name, qkv, (dz, log_sums, dots, dqkv))
        return (dqkv,)

    return z, vjp


def _tiles(name: str, qkv: Array, arrays: tuple[Array, ...]) -> None:
    """A kernel with a block for each TILE positions of each head of each item."""
    b, t, _, h, c = qkv.shape
    kernel, grid = ("flash", name, qkv.dtype, 8, c), (-(-t // TILE), h, b)
    tiles, numbers = 4 * TILE * (c + 8) * 2, 4 * TILE * 4  # in shared memory
    launch(kernel, grid, (THREADS,), qkv, *arrays, t, h, shared_bytes=tiles + numbers)


def _aligned(x: Array) -> Array:
    """x, or a copy of which 16 bytes can be loaded at once."""
    x = contiguous(x)
    return x.copy() if x.data.ptr % LOAD_BYTES else x
