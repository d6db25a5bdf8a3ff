"""A group for promises that are written with NumPy arrays, whose arrays travel as a GPU's.

    check_transport(OnDevice(group, cupy))

What is passed is copied to the GPU first, and what comes is copied back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minipar.array import is_array, to_numpy
from minipar.comm.group import Group


class OnDevice:
    """The calls are those of `Group`; xp: the array module, e.g. cupy."""

    def __init__(self, group: Any, xp: Any) -> None:
        self._group, self._xp = group, xp

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._group, name)
        if not callable(found):
            return found

        def call(*args: Any, out: np.ndarray | None = None, **kwargs: Any) -> Any:
            if out is not None:
                kwargs["out"] = self._xp.asarray(out)
            result = found(*(self._there(a) for a in args), **kwargs)
            return (
                UnderWay(self, result, out) if hasattr(result, "wait") else self.here(result, out)
            )

        return call

    def _there(self, x: Any) -> Any:
        return self._xp.asarray(x) if isinstance(x, np.ndarray) else x

    def here(self, result: Any, out: np.ndarray | None) -> Any:
        """What a call returned, in host memory; in `out`, if that was passed."""
        if isinstance(result, tuple):
            return tuple(self.here(part, out) for part in result)
        if isinstance(result, Group):
            return OnDevice(result, self._xp)
        if not is_array(result):
            return result
        array = to_numpy(result)
        if out is None or array.shape != out.shape:
            return array
        out[...] = array
        return out


class UnderWay:
    """A handle, or a message under way."""

    def __init__(self, group: OnDevice, pending: Any, out: np.ndarray | None) -> None:
        self._group, self._pending, self._out = group, pending, out

    def done(self) -> bool:
        return bool(self._pending.done())

    def wait(self) -> Any:
        return self._group.here(self._pending.wait(), self._out)
