"""What `op` means: how arrays are combined, in which dtype, and what is done at the end.

The sum, mean and product of float16 and bfloat16 are computed in float32 and rounded once, at the
end; messages carry float32 then, so n is twice the bytes of x in every cost formula. Integers wrap
around on overflow, and nan and inf spread, as in NumPy. Nothing is averaged but by `mean`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar.array import HALF, Array, array_module, on_host
from minipar.errors import UsageError

# op: the function that combines two arrays, and the kinds of dtype for which it is defined
OPS = MappingProxyType(
    {
        "sum": ("add", "iufc"),
        "mean": ("add", "fc"),
        "prod": ("multiply", "iufc"),
        "min": ("minimum", "biuf"),
        "max": ("maximum", "biuf"),
    }
)


def reduction_for(call: str, op: str, x: Array) -> Reduction:
    """The Reduction for arrays like x; made once for each kind."""
    module = np if type(x) is np.ndarray else array_module(x)
    return _made(call, op, x.shape, x.dtype, module)


class Reduction:
    """A call's op for arrays of one shape and dtype."""

    def __init__(
        self, call: str, op: str, shape: tuple[int, ...], dtype: np.dtype, module: Any
    ) -> None:
        """call: the name for error messages.  Raises: UsageError if op is not defined for dtype."""
        if op not in OPS:
            raise UsageError(f"{call}: op is one of {', '.join(OPS)}, not {op!r}")
        function, kinds = OPS[op]
        half = dtype.name in HALF
        if not half and dtype.kind not in kinds:
            raise UsageError(
                f"{call}: the {op} of {dtype} arrays is not defined; convert them first"
            )
        self._op, self._shape, self._dtype = op, shape, dtype
        self._wide = np.dtype("float32") if half and op not in ("min", "max") else dtype
        self.combine: Callable[..., Array] = getattr(module, function)
        where = "" if module is np else " on cuda"
        self.signature = f"{op} {dtype}[{', '.join(map(str, shape))}]{where}"  # agreed on by all

    def flat(self, x: Array, out: Array | None = None) -> Array:
        """x as a flat, C-contiguous array that may be overwritten: out's own memory if that is one.

        out: of x's shape and dtype.
        """
        if out is None or self._wide != x.dtype or not out.flags.c_contiguous:
            return x.astype(self._wide, order="C").reshape(-1)
        flat = out.reshape(-1)
        if out is not x:
            flat[...] = x.reshape(-1)
        return flat

    def place(self, x: Array, out: Array | None) -> Array:
        """A flat array for a total that is shaped like x: out's own memory where it can be."""
        if out is not None and self._wide == x.dtype and out.flags.c_contiguous:
            return out.reshape(-1)
        return array_module(x).empty(x.size, self._wide)

    def room(self, x: Array, out: Array | None = None) -> Array | None:
        """out, or where the result of x goes if its total is not of its dtype, on a GPU: there all
        memory is taken before the work begins, in the caller's stream.
        """
        if out is None and self._wide != x.dtype and not on_host(x):
            return array_module(x).empty(x.shape, x.dtype)
        return out

    def view(self, x: Array) -> Array:
        """x as a flat array to be read, without a copy where that is possible."""
        return x.astype(self._wide, order="C", copy=False).reshape(-1)

    def nbytes(self, x: Array) -> int:
        """The bytes of `flat` of x."""
        return x.size * self._wide.itemsize

    def result(self, flat: Array, ranks: int, out: Array | None = None) -> Array:
        """The total (which is overwritten) as the call returns it: in out, or shaped like x."""
        if self._op == "mean":
            flat /= ranks
        if out is None:
            return flat.astype(self._dtype, copy=False).reshape(self._shape)
        if flat.base is not out and not array_module(out).may_share_memory(out, flat):
            out[...] = flat.reshape(self._shape)
        return out


@lru_cache(maxsize=512)
def _made(call: str, op: str, shape: tuple[int, ...], dtype: np.dtype, module: Any) -> Reduction:
    return Reduction(call, op, shape, dtype, module)
