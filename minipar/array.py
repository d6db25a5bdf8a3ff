"""NumPy or CuPy: whichever the arrays at hand belong to.

No op names either library. It asks for the module of the arrays that it was given, so the same
code runs on a laptop and on a GPU, and `import minipar` never imports CuPy.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # a numpy.ndarray or a cupy.ndarray; both offer the same methods
HALF = ("float16", "bfloat16")  # dtypes that are kept in 16 bits and computed with in float32


def array_module(*arrays: Any) -> Any:
    """The module (numpy or cupy) whose functions work on these arrays."""
    cupy = sys.modules.get("cupy")
    if cupy is not None and any(isinstance(a, cupy.ndarray) for a in arrays):
        return cupy
    return np


def is_array(x: object) -> bool:
    """Whether x is an array of either library (NumPy scalars and lists are not)."""
    if isinstance(x, np.ndarray):
        return True
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(x, cupy.ndarray)


def on_host(x: Array) -> bool:
    """Whether x lies in host memory, where caches count, and not on a GPU, where launches do."""
    return isinstance(x, np.ndarray)


def to_numpy(x: Array) -> np.ndarray:
    """x in host memory: itself, or a copy from the GPU."""
    return x if isinstance(x, np.ndarray) else x.get()


def beside(x: Any, like: Array) -> Array:
    """x where `like` lies: itself, or a copy sent to the GPU.  x: an array, or numbers in lists.

    For what an op takes as plain data: ids, masks, positions, targets.
    """
    return array_module(like).asarray(x)


def to_device(batch: Any, xp: Any) -> Any:
    """A batch (an array, or a tuple of them) for a model whose arrays are those of xp.

    Floats are sent to the GPU. Integers stay in host memory: the op that takes them as ids checks
    their range there, where it need not wait for the GPU, and sends them.
    """
    if isinstance(batch, tuple):
        return tuple([to_device(part, xp) for part in batch])
    return batch if batch.dtype.kind in "iu" else xp.asarray(batch)


def number_beside(number: float, like: Array) -> Array:
    """The number as an array of no dimension, where `like` lies and of its dtype."""
    xp = array_module(like)
    if xp is np:
        return np.asarray(number, like.dtype)
    return xp.full((), number, like.dtype)  # asarray would send it over the bus


def index_beside(parts: tuple[Any, ...], x: Array) -> tuple[Any, ...]:
    """An index of x, its arrays and lists where x lies.

    A GPU wraps integers out of bounds around, so those from the host are checked before they go.
    Raises: IndexError.
    """
    if on_host(x):
        return parts
    if not any(is_array(p) and not on_host(p) for p in parts):
        np.broadcast_to(np.False_, x.shape)[parts]
    return tuple(beside(p, x) if isinstance(p, list | np.ndarray) else p for p in parts)


def extremes(ids: Array) -> tuple[int, int]:
    """The smallest and the largest of some integers. On a GPU this waits for it, once."""
    low, high = ids.min(), ids.max()
    if not on_host(ids):
        low, high = array_module(ids).stack([low, high]).get()
    return int(low), int(high)


def sum_dtype(dtype: Any) -> Any:
    """In what numbers of this dtype are added up: float32 for float16 and bfloat16."""
    return np.dtype("float32") if dtype.itemsize == 2 and dtype.name in HALF else dtype


def describe(x: Array) -> str:
    """dtype and shape as error messages print them: float32[4, 512], on a GPU with " on cuda"."""
    where = " on cuda" if is_array(x) and not on_host(x) else ""
    return f"{x.dtype}[{', '.join(str(n) for n in x.shape)}]{where}"
