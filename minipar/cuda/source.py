"""How the kernels of this package get from their text to a launch.

    normalize.cu  +  common.cuh  ──NVRTC──►  one module for each T (float, float16, bfloat16)
                                             and W (numbers in a load)  ──►  its kernels by name

Compiled when first launched; CuPy keeps the result on disk (CUPY_CACHE_DIR).
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

FLOATS = (("float32", "float"), ("float16", "float16"), ("bfloat16", "bfloat16"))
LOAD_BYTES = 16  # the widest load that there is


def fast(*arrays: Any) -> bool:
    """Whether the kernels take these: arrays of CuPy, all of one float of two or four bytes.

    Not of float64, which is there to be exact and not fast: the readable ops serve it. A module
    in CuPy's place that compiles no kernels does not have them.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None or not hasattr(cupy, "RawModule"):
        return False
    name = arrays[0].dtype.name
    return any(name == known for known, _ in FLOATS) and all(
        isinstance(a, cupy.ndarray) and a.dtype.name == name for a in arrays
    )


def source(file: str) -> str:
    """The text of a .cu file as it is compiled."""
    here = Path(__file__).parent
    return (here / "common.cuh").read_text() + (here / f"{file}.cu").read_text()


def options(dtype: str, width: int) -> tuple[str, ...]:
    return ("-std=c++17", f"-DFLOAT={dict(FLOATS)[dtype]}", f"-DWIDTH={width}")


@functools.cache
def _kernel(file: str, name: str, dtype: str, width: int) -> Any:
    import cupy

    return cupy.RawModule(code=source(file), options=options(dtype, width)).get_function(name)


def width(d: int, *arrays: Any) -> int:
    """How many numbers the loads of a kernel take: 16 bytes of them, if rows of d allow it."""
    size = arrays[0].itemsize
    whole = d * size % LOAD_BYTES == 0 and all(a.data.ptr % LOAD_BYTES == 0 for a in arrays)
    return LOAD_BYTES // size if whole else 1


def launch(
    kernel: tuple[str, str, str, int],
    grid: tuple[int, ...],
    threads: tuple[int, ...],
    *arguments: Any,
    shared_bytes: int = 0,
) -> None:
    """Start a kernel (file, name, dtype, width) on the current stream, unless the grid is empty.

    Python ints are `long long` there, floats `double`, arrays pointers.
    """
    if 0 not in grid:
        _kernel(*kernel)(grid, threads, arguments, shared_mem=shared_bytes)


def threads_of_row(d: int, width: int, most: int = 256) -> tuple[int]:
    """Threads of the block that has a row: one for each load, in whole warps."""
    warps = -(-d // (32 * width))
    return (min(most, 32 * max(1, warps)),)
