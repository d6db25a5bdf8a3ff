"""Collectives that go on while the rank computes: one thread per rank carries them out in order.

    rank's own thread   all_reduce(a, async_op=True)   compute   compute   handle.wait()
    its second thread        [all_reduce a ..............]   [all_reduce b ....]

All ranks queue the same calls in the same order, so the second threads meet. A collective that is
not asynchronous, but called while others are still queued, joins the queue and is waited for: the
order of the calls is the order of the work. Sends and receives stay in the rank's own thread.

The second thread never spins: that would take the interpreter's lock from the first one, whose
computing releases it thousands of times a second. Where it waits, it sleeps a little.

Source: so do the NCCL streams of torch.distributed: one queue for all groups of a rank.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from minipar.comm.frame import Call
from minipar.comm.on_device import Later, taken
from minipar.comm.transport import Transport
from minipar.errors import PeerLost


class Handle:
    """A collective under way."""

    def __init__(self, transport: Transport, work: Callable[[], Any], call: Call) -> None:
        self._transport, self._work, self.call = transport, work, call
        self._result: Any = None
        self.error: BaseException | None = None
        self.over = self.asked = False

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        if not self.over:
            self._transport.progress()
        if not self.over:
            self._transport.check(self._transport.rank, self.call)
        return self.over and (not isinstance(self._result, Later) or self._result.ready())

    def wait(self) -> Any:
        """What the call returns.  Raises: what the call raises."""
        if not self.over:
            self._transport.wait(lambda: self.over, self._transport.rank, self.call)
        self.asked = True
        if self.error is not None:
            raise self.error
        return taken(self._result)

    def carry_out(self, earlier: BaseException | None) -> None:
        """Do the work, unless an earlier call has failed, which then is this one's error, too.

        It is not `over` before the second thread has noted how it went.
        """
        self.error = earlier
        if earlier is None:
            try:
                self._result = self._work()
            except BaseException as error:  # raised again by `wait`, in the rank's own thread
                self.error = error


class Worker:
    """The second thread of a rank, from the first asynchronous call on."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.queue: deque[Handle] = deque()  # calls that wait, or are under way
        self._arrived = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._failed: Handle | None = None  # the first one
        self._ending = False

    def submit(self, work: Callable[[], Any], call: Call) -> Handle:
        """Queue work(), which carries out that call."""
        handle = Handle(self._transport, work, call)
        self.queue.append(handle)
        if self._thread is None:
            name = f"rank {self._transport.rank}, asynchronous calls"
            target = copy_context().run
            self._thread = threading.Thread(target=target, args=(self._run,), name=name)
            self._thread.daemon = True
            self._transport.begin_second_thread()
            self._thread.start()
        self._arrived.release()
        return handle

    def end(self) -> None:
        """Wait until everything has been carried out, and end the thread.

        Raises: the error of a call that failed, if nobody has seen it.
        """
        if self._thread is None:
            return
        left = list(self.queue)
        if left:
            left[-1].wait()
        self._ending = True
        self._arrived.release()
        if self._failed is not None and not self._failed.asked:
            self._failed.wait()

    def _run(self) -> None:
        with self._transport.second_thread() as wait_for_work:
            while True:
                wait_for_work(self._arrived, lambda: bool(self.queue) or self._ending)
                if not self.queue:
                    return
                handle = self.queue[0]
                handle.carry_out(None if self._failed is None else self._failed.error)
                if handle.error is not None and not is_reported(handle.error):
                    self._failed = self._failed or handle
                self.queue.popleft()
                handle.over = True
                del handle  # with its arrays, which may be large, while there is nothing to do


def is_reported(error: BaseException) -> bool:
    """Whether that is a loss which concerns only the groups that the lost rank was in."""
    return isinstance(error, PeerLost) and error.rank is not None
