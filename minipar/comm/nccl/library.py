"""What NCCL can do: its codes for dtypes and operations, as `cupy.cuda.nccl` takes them.

NCCL knows numbers of 8, 32 and 64 bits, float16 and bfloat16. Whatever is only moved is moved as
bytes; a bool is combined as the byte that it is, the sum of complex numbers is that of their parts.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from minipar.array import Array
from minipar.errors import UsageError

UINT8 = 1
CODES = MappingProxyType(
    {
        "bool": UINT8,
        "int8": 0,
        "uint8": UINT8,
        "int32": 2,
        "uint32": 3,
        "int64": 4,
        "uint64": 5,
        "float16": 6,
        "float32": 7,
        "float64": 8,
        "bfloat16": 9,
    }
)
PARTS = MappingProxyType({"complex64": "float32", "complex128": "float64"})
OPS = MappingProxyType({"add": 0, "multiply": 1, "maximum": 2, "minimum": 3})
HOW_TO_GET_IT = "install it with: pip install nvidia-nccl-cu13 (or -cu12, as your CuPy)"


def function_name(combine: Any) -> str:
    """NumPy's name of a function of NumPy or CuPy, which says cupy_add."""
    return str(combine.__name__).removeprefix("cupy_")


def can_combine(dtype: str, combine: Any) -> bool:
    """Whether NCCL has that function (of NumPy or CuPy) for arrays of that dtype."""
    return dtype in CODES or (dtype in PARTS and function_name(combine) == "add")


def as_numbers(x: Array) -> tuple[int, int]:
    """How many numbers x has for NCCL, and the code of their dtype.  x: contiguous."""
    name = x.dtype.name
    return (2 * x.size, CODES[PARTS[name]]) if name in PARTS else (x.size, CODES[name])


def load() -> Any:
    """The module `cupy.cuda.nccl`.  Raises: UsageError if NCCL is not installed."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        raise UsageError(f"backend 'nccl' needs CuPy with NCCL; {HOW_TO_GET_IT}") from None
    if not getattr(nccl, "available", True):
        raise UsageError(f"CuPy finds no NCCL; {HOW_TO_GET_IT}")
    return nccl
