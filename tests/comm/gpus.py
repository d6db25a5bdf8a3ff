"""Ranks of the nccl backend as threads of one process: the stand-in for CuPy, and the fake NCCL.

Each rank has a process's transport over a real segment of shared memory, as a real rank has.
"""

import contextvars
import os
import threading

from minipar.comm.exchange import Exchange
from minipar.comm.group import Group
from minipar.comm.heap import Heap
from minipar.comm.nccl.transport import NcclTransport
from minipar.comm.process import ProcessTransport
from minipar.comm.segment import Segment, create_segment
from minipar.comm.shared_file import anonymous_file
from tests.fake_nccl import Nccl
from tests.strict_cupy import cuda


class Ranks:
    """p ranks, each in a thread; `results` and `errors` by rank, when `run` has returned."""

    def __init__(self, p, timeout_s=20.0, check=True):
        self.nccl, self.p = Nccl(), p
        descriptor, heap = create_segment(p), anonymous_file()
        segment = Segment(descriptor, p)
        self.hosts = [self._host(segment, Heap(os.dup(heap), r), r, timeout_s) for r in range(p)]
        self.check, self.gave_up = check, []
        self.results, self.errors = [None] * p, [None] * p
        self.transports = [None] * p
        os.close(descriptor)
        os.close(heap)

    def _host(self, segment, heap, r, timeout_s):
        others = [other for other in range(self.p) if other != r]
        rings = {other: (segment.ring(r, other), segment.ring(other, r)) for other in others}
        host = ProcessTransport(r, self.p, segment.board(), rings, timeout_s)
        exchange = Exchange(segment, heap, range(self.p), r, host.wait, spins=0)
        exchange.board = segment.board()
        host.share(exchange)
        return host

    def run(self, fn, *args, close=True):
        """fn(group, *args) on every rank; what they returned.  Raises: the first one's error."""

        def live(r):
            cuda.null_stream.set(cuda.Stream(null=True))
            try:
                transport = self.transports[r] = NcclTransport(
                    self.hosts[r], self.nccl, cuda.Device(0), self.gave_up.append, self.check
                )
                group = Group(transport)
                self.results[r] = fn(group, *args)
                if close:
                    group.close()
            except BaseException as error:
                self.errors[r] = error
                for host in self.hosts:
                    host.note_failure(type(error)(*error.args))

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(live, r), daemon=True)
            for r in range(self.p)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a rank hangs"
        return self.results

    def end(self):
        for transport in self.transports:
            if transport is not None:
                transport.abandon()


def on_gpus(fn, p, *args, **options):
    """fn(group, *args) on p ranks that do nothing wrong; what they returned."""
    ranks = Ranks(p, **options)
    results = ranks.run(fn, *args)
    ranks.end()
    errors = [error for error in ranks.errors if error is not None]
    if errors:
        raise errors[0]
    assert not ranks.nccl.complaints, ranks.nccl.complaints
    assert not ranks.gave_up
    return results
