"""NumPy or CuPy: whichever the arrays at hand belong to.

No op names either library. It asks for the module of the arrays that it was given, so the same
code runs on a laptop and on a GPU, and `import minipar` never imports CuPy.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # a numpy.ndarray or a cupy.ndarray; both offer the same methods


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


def number_like(number: float, x: Array) -> Array:
    """The number as an array of no dimension beside x, of its dtype."""
    xp = array_module(x)
    if xp is np:
        return np.asarray(number, x.dtype)
    return xp.full((), number, x.dtype)  # asarray would send it over the bus


def describe(x: Array) -> str:
    """dtype and shape as error messages print them, e.g. float32[4, 512]."""
    return f"{x.dtype}[{', '.join(str(n) for n in x.shape)}]"
