"""The ranks of one host as threads of one process, over a real segment: exchanges and circles."""

import os
import threading

from minipar.comm.circle import Circles
from minipar.comm.exchange import Exchange
from minipar.comm.frame import Call
from minipar.comm.heap import Heap
from minipar.comm.mismatch import mismatch
from minipar.comm.segment import Segment, create_segment
from minipar.comm.shared_file import anonymous_file


class Host:
    """The exchanges of p ranks, here in threads of one process, over one real segment."""

    def __init__(self, p):
        descriptor, heap = create_segment(p), anonymous_file()
        self.segment = Segment(descriptor, p)
        self.exchanges = [
            Exchange(self.segment, Heap(os.dup(heap), r), range(p), r, self.wait, spins=0)
            for r in range(p)
        ]
        self.somebody_waits = threading.Event()
        self.circles = [Circles(exchange) for exchange in self.exchanges]
        os.close(descriptor)
        os.close(heap)

    def wait(self, ready, whom, call):
        self.somebody_waits.set()
        for _ in range(10_000_000):
            if ready():
                return
        raise TimeoutError(f"{call} waits for {whom}")

    def run(self, work):
        """work(rank, circle_of) on every rank; what they returned."""
        found = [None] * len(self.exchanges)

        def live(r):
            try:
                found[r] = work(r, lambda *ranks: self.circles[r].of(ranks))
            except Exception as error:
                found[r] = error

        threads = [threading.Thread(target=live, args=(r,)) for r in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def enter(circle, number, host=None, rank=0, op="all_reduce", site="a.py:1"):
    call = Call(0, number, op, "sum", site)
    if host is not None:
        host.segment.board().write(rank, call)
    circle.enter(call, None, lambda other, theirs: compare(rank, other, call, theirs))
    return circle


def compare(rank, other, mine, theirs):
    if mine[:4] != theirs[:4]:
        raise mismatch(mine, theirs, rank, other, (0, 1))
