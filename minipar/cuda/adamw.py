"""AdamW in one pass over the memory (adamw.cu)."""

from __future__ import annotations

import math
from typing import NamedTuple

from minipar.cuda.source import Array, launch

THREADS, BLOCKS = 256, 132 * 8


class Rates(NamedTuple):
    """What a step of AdamW depends on beside its arrays.   step: 1, 2, ...

    scale: what the gradient is multiplied by as it is read (1 / loss scale, or to clip it).
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    decay: float
    step: int
    scale: float = 1.0


def adamw(x: Array, g: Array, m: Array, v: Array, low: Array | None, rates: Rates) -> None:
    """One step, in place: what `optim.AdamW` says.   All flat, contiguous, of one length.

    x, m, v: float32.   g: float32, float16 or bfloat16.
    low:     of g's dtype: becomes a copy of the new x, for a model that computes in less precision.
    The corrections of the means are drawn into lr and eps, as in `optim`.
    """
    lr, betas, eps, decay, step, scale = rates
    root = math.sqrt(1 - betas[1] ** step)
    factors = (scale, *betas, 1 - lr * decay, lr * root / (1 - betas[0] ** step), eps * root)
    blocks = min(BLOCKS, -(-x.size // THREADS))
    kernel = ("adamw", "adamw", g.dtype, 1)
    launch(kernel, (blocks,), (THREADS,), x, g, m, v, low, x.size, *factors)
