"""Where the result of a collective goes: a new array, or `out=`."""

from __future__ import annotations

from collections.abc import Sequence

from minipar.array import Array, array_module, describe, is_array, on_host
from minipar.errors import UsageError


def check_out(op: str, like: Array, shape: Sequence[int], out: Array | None) -> None:
    """Raises: UsageError if out is given, and no array that takes that shape and like's dtype."""
    if out is None:
        return
    if not is_array(out):
        raise UsageError(f"{op}: out must be an array, not {type(out).__name__}")
    if not getattr(out.flags, "writeable", True):  # CuPy's have no such flag
        raise UsageError(f"{op}: out is read-only; pass an array of your own, such as a .copy()")
    beside = on_host(out) == on_host(like)
    if out.shape != tuple(shape) or out.dtype != like.dtype or not beside:
        wanted = f"{like.dtype}[{', '.join(map(str, shape))}]{'' if on_host(like) else ' on cuda'}"
        seen = describe(out)
        raise UsageError(f"{op}: out is {seen}, but the result is {wanted}")


def place_for(op: str, like: Array, shape: Sequence[int], out: Array | None = None) -> Array:
    """A C-contiguous array for a result of that shape and like's dtype: out, or a new one."""
    check_out(op, like, shape, out)
    if out is not None and out.flags.c_contiguous:
        return out
    return array_module(like).empty(shape, like.dtype)


def delivered(result: Array, out: Array | None) -> Array:
    """The result as the call returns it: in out, if that was given."""
    if out is None or result is out:
        return result
    out[...] = result
    return out


def put(place: Array, x: Array) -> None:
    """place[...] = x, but not where x is that very memory already (a rank's own row of out)."""
    if place.strides != x.strides or pointer(place) != pointer(x):
        place[...] = x


def pointer(x: Array) -> int:
    """The address of the first element."""
    interface = getattr(x, "__array_interface__", None)  # None: a CuPy array
    return x.data.ptr if interface is None else interface["data"][0]
