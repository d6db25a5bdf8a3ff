"""A promise, as a function that all ranks call: how it is checked, and told if it is broken.

It raises if the promise does not hold. It may also never come back, which is what a broken
transport does most often; so it runs in a thread of its own, and the error says where it stands.
Its docstring becomes part of the error: the first line is the promise, the rest the usual cause.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from minipar.array import describe
from minipar.comm.group import Group
from minipar.errors import CommError, Interrupted, PeerLost, said

Promise = Callable[[Group], None]


class PromiseBroken(CommError, AssertionError):
    """A transport does not do what it owes to the collectives."""


def expect(got: Any, wanted: Any, what: str) -> None:
    """Both None, or arrays of one shape and dtype that are equal.  Raises: PromiseBroken."""
    if got is None or wanted is None:
        same = got is wanted
    else:
        alike = (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        same = alike and np.array_equal(got, wanted)
    if not same:
        raise PromiseBroken(f"{what} is {shown(got)}, expected {shown(wanted)}")


def shown(x: Any) -> str:
    """An array as messages show it: dtype, shape, and a few of its values."""
    if x is None:
        return "nothing"
    values = np.array2string(x.reshape(-1), threshold=6, edgeitems=3).replace("\n", "")
    return f"{describe(x)} {values}"


def check_promise(group: Group, promise: Promise, patience_s: float) -> None:
    """Call promise(group), in a thread, so that one that hangs can be named.

    Raises: PromiseBroken; PeerLost and Interrupted as they are, for another rank knows more.
    """
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            promise(group)
            group.barrier()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(attempt,), daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        place = _place(thread, promise)
        seen = f"it has not come back after {patience_s:g} s; it stands at {place}"
        raise PromiseBroken(_report(group, promise, seen))
    if not failed:
        return
    if isinstance(failed[0], PeerLost | Interrupted):
        raise failed[0]
    seen = said(failed[0])
    if not isinstance(failed[0], PromiseBroken):
        seen = f"{type(failed[0]).__name__}: {seen}"
    raise PromiseBroken(_report(group, promise, seen)) from failed[0]


def _report(group: Group, promise: Promise, seen: str) -> str:
    name, about = getattr(promise, "__name__", repr(promise)), promise.__doc__ or ""
    lines = [line.strip() for line in about.splitlines() if line.strip()]
    told = "".join(f"\n  {line}" for line in lines)
    return f"rank {group.rank}/{group.size}: {name} does not hold: {seen}{told}"


def _place(thread: threading.Thread, promise: Promise) -> str:
    """The line of the promise that a thread is in."""
    code = getattr(promise, "__code__", None)
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    if frame is None:
        return "the barrier after it"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
