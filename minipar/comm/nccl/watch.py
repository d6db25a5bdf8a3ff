"""Whoever puts work into a stream does not wait for it. So a thread looks whether it gets done.

    all_reduce -> [call, its end as an event, the arrays that it needs]     kept until that event
                      ^ looked at every LOOK_S

An operation of NCCL whose partner never comes spins on the GPU for ever, and whatever waits for the
stream waits, too: no exception reaches it. So after timeout_s, or when the launcher says that a
rank has failed, the communicators are aborted, which ends what they have on the GPU; the rank's own
thread then finds the failure in its next call. If it does not come that far within GRACE_S, this
process reports for it, and ends.

Source: the watchdog of torch's ProcessGroupNCCL.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minipar.comm.frame import Call
from minipar.comm.on_device import has_come
from minipar.comm.transport import ANY, has_waited
from minipar.errors import CommError, CommTimeout

LOOK_S = 0.02
ABORT_S = 2.0  # for an abort, which may hang itself
GRACE_S = 3.0  # for the rank's own thread, after the aborts


class Operation(NamedTuple):
    """Something of which the end is not known yet."""

    call: Call
    whom: int  # the world rank that it needs, or ANY
    event: Any  # None for a call of NCCL's that has not returned
    since: float
    needs: Any  # kept until it has ended


class Watch:
    """Of all that one rank has under way on its GPU."""

    def __init__(self, host: Any, give_up: Callable[[CommError], None]) -> None:
        """host: the transport of host memory.  give_up: reports an error, and ends the process."""
        self._host, self._give_up = host, give_up
        self._under_way: list[Operation] = []
        self._lock = threading.Lock()
        self.handles: dict[Any, Any] = {}  # of NCCL's communicators, to be aborted; by a sort key
        self._over = self._leaving = False
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._look_on, daemon=True, name="watch of NCCL")

    def start(self) -> None:
        self._thread.start()

    def ask_no_more(self) -> None:
        """The communicators are about to go: they are not to be asked for errors any more."""
        self._leaving = True
        with self._asking:
            pass

    def end(self) -> None:
        self._over = True

    # -- what is under way --------------------------------------------------------------------

    def add(self, call: Call, whom: int, event: Any, needs: Any) -> None:
        """event: recorded behind the operation.  needs: kept until it has come."""
        with self._lock:
            self._under_way.append(Operation(call, whom, event, time.monotonic(), needs))

    @contextlib.contextmanager
    def blocking(self, call: Call, whom: int) -> Iterator[None]:
        """Around a call of NCCL's that may not return."""
        operation = Operation(call, whom, None, time.monotonic(), None)
        with self._lock:
            self._under_way.append(operation)
        try:
            yield
        finally:
            with self._lock:
                self._under_way = [o for o in self._under_way if o is not operation]

    def idle(self) -> bool:
        """Whether nothing is under way."""
        self._let_go()
        return not self._under_way

    def _let_go(self) -> None:
        """Forget operations that have ended, with what they needed."""
        ended = [o for o in list(self._under_way) if o.event is not None and has_come(o.event)]
        if ended:
            with self._lock:
                gone = set(map(id, ended))
                self._under_way = [o for o in self._under_way if id(o) not in gone]

    # -- the thread ---------------------------------------------------------------------------

    def _look_on(self) -> None:
        while not self._over:
            time.sleep(LOOK_S)
            try:
                self._let_go()
                failure = self._host.failure or self._late() or self._broken()
            except Exception as error:  # of CUDA, which from now on says the same to everybody
                failure = CommError(f"rank {self._host.rank}: the GPU reports: {error}")
            if failure is not None:
                self._host.note_failure(failure)
                self.abort()
                time.sleep(GRACE_S)
                if not self._over:
                    self._give_up(failure)
                return

    def _late(self) -> CommError | None:
        """The error if something takes longer than timeout_s."""
        now = time.monotonic()
        for o in list(self._under_way):
            slow = o.event is None  # a wait for a header in it ends first, and can say more
            if now - o.since > self._host.timeout_s + slow:
                last = self._host.last_call_of(o.whom) if o.whom != ANY else "unknown"
                words = has_waited(self._host.rank, now - o.since, o.whom, o.call, last, "")
                return CommTimeout(
                    f"{words}\nThat is the limit (timeout_s); the GPU had not finished. Usual "
                    "causes: a rank left out a call that the others made, or computes longer."
                )
        return None

    def _broken(self) -> CommError | None:
        """The error if NCCL has lost a connection; the launcher's word about why comes first."""
        with self._asking:
            handles = [] if self._leaving else list(self.handles.values())
            for handle in handles:
                try:
                    handle.check_async_error()
                except KeyError:  # CuPy's way to say "in progress"
                    continue
                except Exception as error:  # an NcclError
                    return self._why(error)
        return None

    def _why(self, error: Exception) -> CommError:
        until = time.monotonic() + ABORT_S
        while self._host.failure is None and time.monotonic() < until:
            time.sleep(LOOK_S)
        what = CommError(f"rank {self._host.rank}: NCCL reports: {error}")
        return self._host.failure or what

    # -- giving up ----------------------------------------------------------------------------

    def abort(self) -> bool:
        """End all that NCCL has on the GPU; whether NCCL has said that it is done."""
        handles, self.handles = list(self.handles.values()), {}
        threads = [threading.Thread(target=_abort, args=(h,), daemon=True) for h in handles]
        for thread in threads:
            thread.start()
        until = time.monotonic() + ABORT_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


def _abort(handle: Any) -> None:
    with contextlib.suppress(Exception):  # it is the end, however it goes
        handle.abort()
