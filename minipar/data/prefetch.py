"""One thread reads ahead while the caller computes; a bounded queue lies between them.

    thread:  item -> put ... waits while `ahead` items lie there          [ | ] -> get: the caller

Each waits for the other on one condition and is woken by it: nobody sleeps and looks. An error in
the thread is raised in the caller, once what was read before it has been taken.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from typing import Any

from minipar.data.sources import Wait


class Queue:
    """At most `ahead` items, between one thread that puts them and one that gets them."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def put(self, item: Any) -> bool:
        """Add an item once there is room.  False: closed, stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._ahead)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def pause(self, seconds: float) -> bool:
        """Wait so long.  False: closed, stop."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._closed, seconds)

    def end(self, error: BaseException | None = None) -> None:
        """There is no more; the getter hears why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> Any:
        """The next item once there is one.  Raises: StopIteration, or the error of the putter."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._closed)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """Nobody gets any more: let go of what is here, and of the putter."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def fill(items: Generator[Any, None, None], queue: Queue) -> None:
    """Put every item into the queue, until they end or it is closed."""
    try:
        for item in items:
            more = queue.pause(item.seconds) if isinstance(item, Wait) else queue.put(item)
            if not more:
                break
        items.close()  # a file is closed by the thread that has read it
        queue.end()
    except BaseException as error:
        queue.end(error)


class Prefetch:
    """Iterates over what a generator gives; a thread of its own runs it, `ahead` items ahead."""

    def __init__(self, items: Generator[Any, None, None], ahead: int) -> None:
        self._queue = Queue(ahead)  # the thread knows the queue only, so that this can be dropped
        self._thread = threading.Thread(
            target=fill, args=(items, self._queue), name="minipar prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Any:
        return self._queue.get()

    def close(self, timeout_s: float = 1.0) -> bool:
        """End the thread.  False: it hangs in a call of the source's own, and ends with that."""
        self._queue.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __del__(self) -> None:
        self._queue.close()
