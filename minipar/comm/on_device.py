"""What communication knows of a GPU's streams: in which one work is done, and when it has ended.

A script puts kernels into the current stream of its thread and goes on. So whoever works on its
arrays, in another thread or in another stream, has to come after what is in there already; and what
comes of it is complete only when a stream has got so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def in_callers_stream(work: Callable[[], Any]) -> Callable[[], Any]:
    """work, with this thread's device and stream as the current ones, whichever thread does it."""
    import cupy

    device, stream = cupy.cuda.Device(), cupy.cuda.get_current_stream()

    def wrapped() -> Any:
        with device, stream:
            return work()

    return wrapped


class Later:
    """A result that a GPU will have once an event has come."""

    def __init__(self, result: Any, event: Any) -> None:
        self._result, self._event = result, event

    def ready(self) -> bool:
        return has_come(self._event)

    def take(self) -> Any:
        """The result, for which the caller's stream waits, and not the caller."""
        import cupy

        cupy.cuda.get_current_stream().wait_event(self._event)
        return self._result


def taken(result: Any) -> Any:
    """The result as the caller gets it."""
    return result.take() if isinstance(result, Later) else result


def has_come(event: Any) -> bool:
    """Whether the stream has got to that event.  Raises: what the GPU has to report.

    Not `event.done`, which takes an error for "not yet", and for ever.
    """
    import cupy

    return bool(cupy.cuda.runtime.eventQuery(event.ptr) == 0)
