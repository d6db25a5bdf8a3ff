"""How the kernels of this package get from their text to a launch.

    normalize.cu  +  common.cuh  ──NVRTC──►  one module for each float (FLOAT) and number of
                                             them in a load (WIDTH)  ──►  its kernels by name

Compiled when first launched; CuPy keeps the result on disk (CUPY_CACHE_DIR).
A launch costs the host about as long as a small kernel runs, so what is asked each time is kept:
nothing here looks at a dtype's name twice, or copies what is contiguous.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Array = Any
Made = tuple[Array, Callable[[Array, tuple[bool, ...]], Sequence[Array | None]]]  # z and its vjp
FLOATS = (("float32", "float"), ("float16", "float16"), ("bfloat16", "bfloat16"))
LOAD_BYTES = 16  # the widest load that there is
SHARED_BYTES = 48 << 10  # of a block; more must be asked for


def fast(*arrays: Any) -> bool:
    """Whether the kernels take these: arrays of CuPy, all of one float of two or four bytes.

    Not of float64, which is there to be exact and not fast: the readable ops serve it. A module
    in CuPy's place that compiles no kernels does not have them.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None or not hasattr(cupy, "RawModule"):
        return False
    dtype = arrays[0].dtype
    if _float(dtype) is None:
        return False
    return all(isinstance(a, cupy.ndarray) and a.dtype == dtype for a in arrays)


@functools.cache
def _float(dtype: Any) -> str | None:
    """What the .cu files call it; None if they do not know it."""
    return dict(FLOATS).get(dtype.name)


def source(file: str) -> str:
    """The text of a .cu file as it is compiled."""
    here = Path(__file__).parent
    return (here / "common.cuh").read_text() + (here / f"{file}.cu").read_text()


def options(number: str, width: int, channels: int = 0) -> tuple[str, ...]:
    """What NVRTC is told.   channels: of a head, for kernels that must know."""
    return ("-std=c++17", f"-DFLOAT={number}", f"-DWIDTH={width}", f"-DCHANNELS={channels}")


@functools.cache
def _kernel(file: str, name: str, dtype: Any, width: int, channels: int = 0) -> Any:
    import cupy

    number = _float(dtype)
    assert number is not None
    told = options(number, width, channels)
    return cupy.RawModule(code=source(file), options=told).get_function(name)


def contiguous(x: Array) -> Array:
    """x, or a copy that is contiguous."""
    return x if x.flags.c_contiguous else x.copy(order="C")


def width(d: int, *arrays: Array) -> int:
    """How many numbers the loads of a kernel take: 16 bytes of them, if rows of d allow it."""
    size = arrays[0].itemsize
    if d * size % LOAD_BYTES or any(a.data.ptr % LOAD_BYTES for a in arrays):
        return 1
    return LOAD_BYTES // size


def launch(
    kernel: tuple[Any, ...],
    grid: tuple[int, ...],
    threads: tuple[int, ...],
    *arguments: Any,
    shared_bytes: int = 0,
) -> None:
    """Start a kernel (the arguments of `_kernel`) on this stream, unless the grid is empty.

    Python ints are `long long` there, floats `double`, arrays pointers.
    """
    if 0 in grid:
        return
    function = _kernel(*kernel)
    if shared_bytes > SHARED_BYTES:
        function.max_dynamic_shared_size_bytes = shared_bytes
    function(grid, threads, arguments, shared_mem=shared_bytes)


def threads_of_row(d: int, width: int, most: int = 256) -> tuple[int]:
    """Threads of the block that has a row: one for each load, in whole warps."""
    warps = -(-d // (32 * width))
    return (min(most, 32 * max(1, warps)),)
