"""NCCL with the signatures of `cupy.cuda.nccl`, between threads of one process, on no GPU.

    nccl = fake_nccl.Nccl()         in the place of the module; one for all ranks of a test

It works on the memory of the stand-in for CuPy, given as pointers, and behaves as NCCL where that
finds mistakes in those who call it:
- an operation is put into a stream, and runs when the stream gets to it and all its ranks have; a
  send waits in its stream for its receive, so two of them in one stream can wait for ever;
- within groupStart and groupEnd nothing begins; what was in the group goes on together;
- memory must lie in one array, be ordered by events (`strict_cupy.cuda`), and live until the end;
- ranks must agree on operation, count, dtype and root; a communicator is for one thread at a time.

Whatever is wrong is in `nccl.complaints`, which a test expects to be empty; the operation then ends
without a result.
"""

import itertools
import os
import threading
from collections import defaultdict, deque
from functools import partial

import numpy as np

from tests.strict_cupy import cuda

DTYPES = ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64",
          "bfloat16")  # fmt: skip
OPS = (np.add, np.multiply, np.maximum, np.minimum)
PATIENCE_S = 30.0
UID_BYTES = 128


class NcclError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"NCCL_ERROR: status {status}")


class Nccl:
    """The module."""

    NcclError = NcclError
    available = True

    def __init__(self):
        self.meetings = {}
        self.complaints = []
        self.calls = []  # (rank, method) in the order in which they were put into streams
        self.deaf = set()  # ranks whose operations never run, as if their process were gone
        self._local = threading.local()
        self.lock = threading.Lock()
        self.NcclCommunicator = partial(Communicator, self)

    def get_version(self):
        return 22809

    def get_unique_id(self):
        return os.urandom(UID_BYTES)

    def groupStart(self):
        assert getattr(self._local, "group", None) is None, "groups are not nested here"
        self._local.group = []

    def groupEnd(self):
        group, self._local.group = self._local.group, None
        by_stream = defaultdict(list)
        for operation in group:
            by_stream[operation.stream].append(operation)
        for stream, operations in by_stream.items():
            self._start(stream, operations)

    def put(self, operation):
        self.calls.append((operation.comm.rank, operation.name))
        if getattr(self._local, "group", None) is None:
            self._start(operation.stream, [operation])
        else:
            self._local.group.append(operation)

    def _start(self, pointer, operations):
        stream = STREAMS(pointer)
        reads = [a.owner() for o in operations for a in o.reads]
        writes = [a.owner() for o in operations for a in o.writes]
        memory = [a for o in operations for a in o.reads + o.writes]
        for o in operations:
            o.enter()

        def run():
            try:
                for o in operations:
                    o.give()
                for o in operations:
                    o.take()
                for o in operations:
                    o.finish()
                if any(a.owner() is None for a in memory):
                    raise AssertionError("an array went while NCCL had it")
            except Aborted:
                pass
            except Exception as error:
                self.complaints.append(f"rank {operations[0].comm.rank}: {error!r}")

        cuda.enqueue(stream, reads, writes, run)


def STREAMS(pointer):
    stream = cuda.streams.get(pointer)
    assert stream is not None and pointer != 0, "NCCL was given no stream of ours"
    return stream


class Aborted(Exception):
    pass


class Meeting:
    """What the ranks of a communicator have in common."""

    def __init__(self, size):
        self.size, self.changed, self.aborted = size, threading.Condition(), False
        self.here, self.left = set(), set()
        self.sent = defaultdict(deque)  # by (src, dst)
        self.given = defaultdict(dict)  # by the number of a collective: rank -> (what, data)

    def wait(self, ready, what):
        with self.changed:
            if not self.changed.wait_for(lambda: self.aborted or ready(), PATIENCE_S):
                raise AssertionError(f"{what} would hang")
            if self.aborted:
                raise Aborted

    def change(self, action):
        with self.changed:
            action()
            self.changed.notify_all()


class Communicator:
    def __init__(self, nccl, ndev, commId, rank, config=None):
        assert isinstance(commId, bytes) and len(commId) == UID_BYTES and 0 <= rank < ndev
        with nccl.lock:
            self.meeting = nccl.meetings.setdefault(commId, Meeting(ndev))
        self.nccl, self.rank, self.size_ = nccl, rank, ndev
        assert self.meeting.size == ndev and rank not in self.meeting.here
        self.collectives = itertools.count()
        self.user = threading.Lock()
        self.gone = False
        self.meeting.change(lambda: self.meeting.here.add(rank))
        self.meeting.wait(lambda: len(self.meeting.here) == ndev, f"rank {rank}'s communicator")

    def rank_id(self):
        return self.rank

    def size(self):
        return self.size_

    def check_async_error(self):
        assert not self.gone, "a communicator was asked after its end"

    def abort(self):
        self.meeting.change(lambda: setattr(self.meeting, "aborted", True))

    def destroy(self):
        assert not self.gone
        self.gone = True
        self.meeting.change(lambda: self.meeting.left.add(self.rank))
        self.meeting.wait(lambda: len(self.meeting.left) == self.size_, "destroy")

    def _put(self, name, stream, reads, writes, what=(), peer=None, op=None):
        """reads, writes: (pointer, count, code)."""
        if not self.user.acquire(blocking=False):
            raise AssertionError("two threads use one communicator")
        try:
            assert not self.gone, "a communicator was used after its end"
            self.nccl.put(Operation(self, name, stream, reads, writes, what, peer, op))
        finally:
            self.user.release()

    def allReduce(self, sendbuf, recvbuf, count, datatype, op, stream):
        there = [(sendbuf, count, datatype)], [(recvbuf, count, datatype)]
        self._put("allReduce", stream, *there, (count, datatype, op), op=op)

    def reduce(self, sendbuf, recvbuf, count, datatype, op, root, stream):
        into = [(recvbuf, count, datatype)] if self.rank == root else []
        what = count, datatype, op, root
        self._put("reduce", stream, [(sendbuf, count, datatype)], into, what, root, op)

    def broadcast(self, sendbuff, recvbuff, count, datatype, root, stream):
        read = [(sendbuff, count, datatype)] if self.rank == root else []
        into, what = [(recvbuff, count, datatype)], (count, datatype, root)
        self._put("broadcast", stream, read, into, what, root)

    def reduceScatter(self, sendbuf, recvbuf, recvcount, datatype, op, stream):
        read = [(sendbuf, recvcount * self.size_, datatype)]
        into, what = [(recvbuf, recvcount, datatype)], (recvcount, datatype, op)
        self._put("reduceScatter", stream, read, into, what, op=op)

    def allGather(self, sendbuf, recvbuf, count, datatype, stream):
        into = [(recvbuf, count * self.size_, datatype)]
        self._put("allGather", stream, [(sendbuf, count, datatype)], into, (count, datatype))

    def send(self, sendbuf, count, datatype, peer, stream):
        self._put("send", stream, [(sendbuf, count, datatype)], [], (count, datatype), peer)

    def recv(self, recvbuf, count, datatype, peer, stream):
        self._put("recv", stream, [], [(recvbuf, count, datatype)], (count, datatype), peer)


class Operation:
    """One call, from `enter` (it gets its number) over `give` and `take` to `finish`."""

    def __init__(self, comm, name, stream, reads, writes, what, peer, op):
        assert 0 <= (peer or 0) < comm.size_
        self.comm, self.name, self.stream, self.what = comm, name, stream, (name, *what)
        self.peer, self.op = peer, op
        self._spans = [[self._span(*span) for span in spans] for spans in (reads, writes)]
        self.reads, self.writes = ([a for a, _, _ in spans] for spans in self._spans)
        self.pair = name in ("send", "recv")

    def _span(self, pointer, count, code):
        """(allocation, first byte in it, dtype and bytes)."""
        assert isinstance(pointer, int) and isinstance(count, int) and count > 0, self.name
        name = DTYPES[code]
        if name == "bfloat16":
            from ml_dtypes import bfloat16 as name
        dtype = np.dtype(name)
        memory = cuda.allocation(pointer, count * dtype.itemsize)
        return memory, pointer - memory.start, (dtype, count * dtype.itemsize)

    def enter(self):
        self.number = None if self.pair else next(self.comm.collectives)

    def _bytes(self, span):
        memory, first, (dtype, nbytes) = span
        owner = memory.owner()
        assert owner is not None, "an array went before NCCL had done with it"
        raw = owner.reshape(-1, order="A").view(np.uint8)[first : first + nbytes]
        return raw.view(dtype)

    def give(self):
        meeting, me = self.comm.meeting, self.comm.rank
        if me in self.comm.nccl.deaf:
            meeting.wait(lambda: False, "a rank that is gone")
        data = self._bytes(self._spans[0][0]).copy() if self._spans[0] else None
        if self.name == "send":
            self.parcel = [self.what[1:], data, False]
            meeting.change(lambda: meeting.sent[me, self.peer].append(self.parcel))
        elif not self.pair:
            meeting.change(lambda: meeting.given[self.number].update({me: (self.what, data)}))

    def take(self):
        meeting, me = self.comm.meeting, self.comm.rank
        if self.name == "recv":
            pair = self.peer, me
            meeting.wait(lambda: meeting.sent[pair], f"a receive from {self.peer}")
            parcel = meeting.sent[pair].popleft()
            assert parcel[0] == self.what[1:], f"sent {parcel[0]}, received as {self.what[1:]}"
            self._bytes(self._spans[1][0])[...] = parcel[1]
            meeting.change(lambda: parcel.__setitem__(2, True))
        elif not self.pair:
            meeting.wait(lambda: len(meeting.given[self.number]) == meeting.size, self.name)
            given = meeting.given[self.number]
            whats = {what for what, _ in given.values()}
            assert len(whats) == 1, f"ranks disagree: {whats}"
            result = self._result([given[r][1] for r in range(meeting.size)])
            for span in self._spans[1]:
                self._bytes(span)[...] = result

    def finish(self):
        if self.name == "send":
            self.comm.meeting.wait(lambda: self.parcel[2], f"a send to {self.peer}")

    def _result(self, xs):
        if self.name == "broadcast":
            return xs[self.peer]
        if self.name == "allGather":
            return np.concatenate(xs)
        total = xs[0]
        for x in xs[1:]:
            with np.errstate(all="ignore"):
                total = OPS[self.op](total, x)
        if self.op in (2, 3) and total.dtype.kind == "f":
            total = np.where(
                np.isnan(total), xs[0], total
            )  # NCCL does not promise that nan spreads
        return np.array_split(total, len(xs))[self.comm.rank] if "Scatter" in self.name else total
