"""Ranks with a GPU each: arrays of the GPU go through NCCL, all else through host memory.

It is a process's transport (`comm.process`) with another way for payloads that lie on a GPU:

    numpy array      header and payload through host memory, as ever
    cupy array       the header through host memory, the payload by NCCL      (`connection`)
    collective       agreed on through host memory, carried out by NCCL       (`native`)

So shapes, dtypes and call sites are compared before NCCL is asked for anything, and ranks that
disagree, wait for each other or have ended are found out, and named, as on every other backend.

Nobody waits for the GPU here. What a call returns is complete in the order of the caller's stream;
`Watch` sees to it that nothing takes longer than timeout_s. And no stream of the caller's waits for
a receiver: what is sent is copied first. Two ranks that send, and then receive, would else wait for
each other on their GPUs, where nobody takes in what arrives.

Memory: CuPy gives a block that was freed to the next array in the same stream at once, and other
streams do not know. So what a caller gets, and what it is received into, is always allocated in the
caller's stream, and a stream of ours begins with an event of that one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minipar.array import Array, on_host
from minipar.comm.frame import BY_NCCL, Call, Header, header_for
from minipar.comm.mailbox import Receive
from minipar.comm.nccl.communicator import Communicator
from minipar.comm.nccl.connection import RECEIVER, SENDER, Connection, Transfer
from minipar.comm.nccl.desk import Desk
from minipar.comm.nccl.library import load
from minipar.comm.nccl.start import Options, count_gpus, in_words
from minipar.comm.nccl.watch import Watch
from minipar.comm.on_device import Later, in_callers_stream
from minipar.comm.transport import ANY, Message, Pending, WaitForWork
from minipar.errors import CallMismatch, CommError, UsageError

IDENT = Call((1 << 32) - 1, 0, "send", "", "minipar itself")  # what tells where to connect
AT_THE_END = Call(0, 0, "sending the rest", "", "its return")


class NcclTransport:
    """One rank's end; what is not said here, the transport of host memory does."""

    backend = "nccl"

    def __init__(
        self,
        host: Any,
        nccl: Any,
        device: Any,
        give_up: Callable[[CommError], None],
        check: bool = True,
    ) -> None:
        """host: a ProcessTransport.  nccl: the module.  device: this rank's GPU, a cupy Device.

        give_up: reports an error to the launcher, and ends this process.
        check:   whether the ranks compare their calls before a `native` one.
        """
        import cupy

        device.use()
        self._host, self.check_native = host, check
        self._watch = Watch(host, give_up)
        self._desk = Desk(nccl, host, self._watch, device)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._home = cupy.cuda.get_current_stream()  # the one of the rank's own thread
        self._handles: dict[int, Any] = {}  # of groups, by their number
        self._sending: dict[int, Connection] = {}
        self._receiving: dict[int, Connection] = {}
        self._lock = threading.Lock()  # header and payload of two sends in the same order
        host.take_by_nccl(self._take)
        self._watch.start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def announce(self, call: Call) -> None:
        import cupy

        self._home = cupy.cuda.get_current_stream()
        self._host.announce(call)

    # -- messages -----------------------------------------------------------------------------

    def isend(self, array: Array, dst: int, call: Call) -> Pending:
        host = self._host
        if on_host(array) or dst == host.rank:
            return host.isend(array, dst, call)
        header = header_for(call, array)._replace(place=BY_NCCL)
        copy = array.copy(order="C")  # or the caller's stream would have to wait for the receiver
        with self._lock:
            connection = self._sending.get(dst) or self._connect(dst)
            host.send_header(header, dst)
            connection.begin(copy, self._fence(), call)
        return Pending(host, lambda: True, dst, call)

    def _connect(self, dst: int) -> Connection:
        host, ident = self._host, self._desk.nccl.get_unique_id()
        host.isend(np.frombuffer(ident, np.uint8), dst, IDENT)
        self._sending[dst] = Connection(self._desk, SENDER, (host.rank, dst), ident)
        return self._sending[dst]

    def _take(self, src: int, header: Header, dtype: np.dtype) -> Message:
        """The message of a header that has come; its payload may still be on its way."""
        import cupy

        with self._home:
            array = cupy.empty(header.shape, dtype)
        if src not in self._receiving:
            pair = src, self._host.rank
            self._receiving[src] = Connection(self._desk, RECEIVER, pair, self._ident(src))
        transfer = self._receiving[src].begin(array, self._fence(self._home), header.call)
        message = Message(src, header, array)
        message.arrive = partial(self._arrive, transfer, src)
        return message

    def _ident(self, src: int) -> bytes:
        """What the other rank has sent before its first header."""
        receive = Receive(src, IDENT)
        self._host.post(receive)
        assert receive.message is not None
        return receive.message.array.tobytes()

    def _arrive(self, transfer: Transfer, src: int) -> None:
        if not transfer.under_way():
            self._host.wait(self._noted(transfer.under_way), src, transfer.call)
        _wait_in_stream(transfer)

    def _noted(self, ready: Callable[[], bool]) -> Callable[[], bool]:
        """ready, of something that NCCL does: a wait for it is no deadlock."""

        def noted() -> bool:
            self._host.note_progress()
            return ready()

        return noted

    # -- collectives --------------------------------------------------------------------------

    @contextmanager
    def second_thread(self) -> Iterator[WaitForWork]:
        self._desk.device.use()
        with self._host.second_thread() as wait_for_work:
            yield wait_for_work

    def on_device(
        self, work: Callable[[], Any], call: Call, native: bool
    ) -> Callable[[], Any | Later]:
        import cupy

        if not native:  # hand-written: messages, and sums in the caller's stream
            return in_callers_stream(work)
        fence = self._fence()

        def in_our_stream() -> Later:
            with self._watch.blocking(call, ANY), self._stream:
                self._stream.wait_event(fence)
                result = work()
                end = cupy.cuda.Event(disable_timing=True)
                end.record(self._stream)
            self._watch.add(call, ANY, end, (work, result))
            return Later(result, end)

        return in_our_stream

    def communicator(self, call: Call, ranks: tuple[int, ...]) -> Communicator:
        """That of the call's group; the first time, all its ranks ask for it together."""
        host, rank = self._host, ranks.index(self._host.rank)
        if call.group not in self._handles:
            ident = self._shared_ident(call, ranks)
            key = 0, call.group, 0
            self._handles[call.group] = self._desk.join(key, len(ranks), ident, rank, call, ANY)
        handle, place = self._handles[call.group], (rank, len(ranks))
        host.raise_failure(call)
        communicator = Communicator(self._desk, handle, self._stream, place)
        communicator.call = call
        return communicator

    def _shared_ident(self, call: Call, ranks: tuple[int, ...]) -> bytes:
        """The address of a new communicator: from its rank 0, through host memory."""
        host, (root, *others) = self._host, ranks
        if host.rank != root:
            message = host.irecv(root, call).wait()
            return bytes(message.array.tobytes())
        ident = self._desk.nccl.get_unique_id()
        for dst in others:
            host.isend(np.frombuffer(ident, np.uint8), dst, call).wait()
        return bytes(ident)

    def _fence(self, stream: Any = None) -> Any:
        """An event at the end of what the stream (the caller's, if not given) has to do so far."""
        import cupy

        fence = cupy.cuda.Event(disable_timing=True)
        fence.record(cupy.cuda.get_current_stream() if stream is None else stream)
        return fence

    # -- the end ------------------------------------------------------------------------------

    def close(self) -> CallMismatch | None:
        """Finish what is under way, and take leave of the others.  Returns, raises: as others."""
        left = self._host.close()
        self._host.wait(self._noted(self._watch.idle), ANY, AT_THE_END)
        self._watch.ask_no_more()
        for key in sorted(self._watch.handles):  # NCCL's ranks leave together, in this order
            with self._watch.blocking(AT_THE_END, ANY):
                self._watch.handles[key].destroy()
        self._watch.end()
        self._watch.handles.clear()
        return left

    def abandon(self) -> bool:
        """This rank has failed; whether NCCL has let go of it."""
        self._watch.end()
        return self._watch.abort()


def _wait_in_stream(transfer: Transfer) -> None:
    """All that the caller puts into its stream from now on comes after the transfer."""
    import cupy

    cupy.cuda.get_current_stream().wait_event(transfer.end)


def open_transport(
    host: Any,
    options: Options,
    local_rank: int,
    give_up: Callable[[CommError], None],
) -> NcclTransport:
    """The transport of a rank.  host: the one of host memory.  Raises: UsageError."""
    import cupy

    nccl, gpus = load(), count_gpus()
    if local_rank >= gpus and not (options.share_gpu and gpus):
        raise UsageError(f"rank {host.rank} has no GPU: this host has {in_words(gpus)}")
    device = cupy.cuda.Device(local_rank % gpus)
    return NcclTransport(host, nccl, device, give_up, options.check)
