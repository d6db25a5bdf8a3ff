"""All of a rank's calls to NCCL, one at a time, and what their errors mean.

NCCL's communicators are not to be used by two threads at once, and ranks here may have three: their
own, the second one (`asynchronous`), and one for each connection that is being made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minipar.comm.frame import Call
from minipar.comm.nccl.watch import Watch
from minipar.errors import CommError

NEWS_S = 2.0  # in which the launcher tells why NCCL has lost a rank


class Desk:
    """NCCL as one rank uses it."""

    def __init__(self, nccl: Any, host: Any, watch: Watch, device: Any) -> None:
        """nccl: the module.  host: the transport of host memory.  device: this rank's GPU."""
        self.nccl, self.host, self.watch, self.device = nccl, host, watch, device
        self.lock = threading.RLock()

    def join(self, key: Any, size: int, ident: bytes, rank: int, call: Call, whom: int) -> Any:
        """This rank's end of a new communicator; returns when all have come.

        key:  sorts the communicators of the job alike on all ranks.
        whom: the world rank that it needs, or ANY.
        """
        self.device.use()
        with self.watch.blocking(call, whom):
            handle = self._tried(call, lambda: self.nccl.NcclCommunicator(size, ident, rank))
        self.watch.handles[key] = handle
        return handle

    def do(self, call: Call, method: Callable[..., None], *arguments: Any) -> None:
        """Put an operation into a stream."""
        with self.lock:
            self._tried(call, lambda: method(*arguments))

    @contextmanager
    def group(self, call: Call) -> Iterator[None]:
        """Operations that begin together; a send and a receive then do not wait for each other."""
        with self.lock:
            self.nccl.groupStart()
            try:
                yield
            finally:  # or this thread would never leave the group
                self._tried(call, self.nccl.groupEnd)

    def _tried(self, call: Call, action: Callable[[], Any]) -> Any:
        """action(), with NCCL's error as one of ours: the failure of another rank, if it is that.

        Raises: CommError.
        """
        try:
            return action()
        except self.nccl.NcclError as error:
            until = time.monotonic() + NEWS_S
            while time.monotonic() < until:
                self.host.raise_failure(call)
                time.sleep(0.01)
            raise CommError(f"rank {self.host.rank}, {call}: NCCL reports: {error}") from error
