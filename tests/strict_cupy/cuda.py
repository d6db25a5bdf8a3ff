"""The stand-in's `cupy.cuda`: streams, events and memory, as far as order is concerned.

A kernel runs when it is launched, in the thread that launches it. Only what is put into a stream
with `enqueue` (the fake NCCL does that) runs later, in a thread of its own; a kernel that comes
after it in its stream, or behind an event, waits for it first.

Every stream knows up to which launch it has waited for every other one. Whoever reads memory that
another stream has written, or writes what another has read, without an event between the two, is
told: on a GPU that is a race. So is the use of a new array in another stream than the one that was
current when it was made, since CuPy may have taken its memory back from there just now.
Left out: that the null stream waits for streams that are not `non_blocking`; ours all are.
"""

import itertools
import threading
import weakref
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar
from types import SimpleNamespace

PATIENCE_S = 40.0  # of whoever waits for the GPU
NOT_READY = 600
devices = SimpleNamespace(count=1)
pinned = Counter()
_local = threading.local()
_numbers = itertools.count(1)
_host = Counter()  # what the host has waited for, by stream
_memory = {}  # id of the owner of memory -> Allocation
_events = weakref.WeakValueDictionary()
streams = weakref.WeakValueDictionary()


class CUDARuntimeError(RuntimeError):
    pass


class Race(AssertionError):
    """Two streams use memory in no particular order."""


class Work:
    """Something in a stream that runs later."""

    def __init__(self):
        self.done = threading.Event()


class Allocation:
    """Memory of the device: who has written and read it last."""

    def __init__(self, owner, stream):
        self.owner = weakref.ref(owner)
        self.start, self.nbytes = owner.__array_interface__["data"][0], owner.nbytes
        self.written = stream, stream.tick()
        self.read = {}


class Stream:
    null = None

    def __init__(self, null=False, non_blocking=False):
        self.ptr = 0 if null else next(_numbers)
        streams[self.ptr] = self
        self.known, self.ticks, self.pending = Counter(), 0, []

    def tick(self):
        self.ticks += 1
        return self.ticks

    def knows(self, stream, tick):
        return stream is self or max(self.known[stream], _host[stream]) >= tick

    def wait_event(self, event):
        self.known |= event.known
        self.pending += event.pending

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def finish(self):
        """Wait for what runs later. Another thread may add to it."""
        for work in list(self.pending):
            finish([work])
            with suppress(ValueError):
                self.pending.remove(work)

    def synchronize(self):
        self.finish()
        _host.update({s: max(0, n - _host[s]) for s, n in self.clock().items()})

    def clock(self):
        return self.known | Counter({self: self.ticks})

    def use(self):
        _local.stream = self
        return self

    def __enter__(self):
        _stack().append(getattr(_local, "stream", None))
        return self.use()

    def __exit__(self, *_):
        _local.stream = _stack().pop()


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.ptr, self.known, self.pending = next(_numbers), Counter(), []
        _events[self.ptr] = self

    def record(self, stream=None):
        stream = stream or get_current_stream()
        self.known, self.pending = stream.clock(), list(stream.pending)

    def synchronize(self):
        finish(self.pending)


class Device:
    def __init__(self, device=None):
        self.id = getattr(_local, "device", 0) if device is None else int(device)

    def use(self):
        _local.device = self.id
        return self

    def __enter__(self):
        self._before = getattr(_local, "device", 0)
        return self.use()

    def __exit__(self, *_):
        _local.device = self._before

    def synchronize(self):
        get_current_stream().synchronize()


def _stack():
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


def get_current_stream():
    return getattr(_local, "stream", None) or null_stream.get()


def finish(pending):
    for work in pending:
        if not work.done.wait(PATIENCE_S):
            raise TimeoutError("the GPU would hang here")


# -- memory ---------------------------------------------------------------------------------------


def allocated(owner):
    """`owner`, a NumPy array that owns memory of the device, is new."""
    key = id(owner)
    if key not in _memory:
        _memory[key] = Allocation(owner, get_current_stream())
        weakref.finalize(owner, _memory.pop, key, None).atexit = False


def launched(reads, writes):
    """The current stream has a kernel that reads and writes the memory of these owners."""
    stream = get_current_stream()
    stream.finish()
    touched(stream, reads, writes)


def touched(stream, reads, writes):
    tick = stream.tick()
    for owner, writing in [(o, False) for o in reads] + [(o, True) for o in writes]:
        memory = _memory.get(id(owner))
        if memory is None:
            continue
        before = [memory.written, *(memory.read.items() if writing else ())]
        for other, when in before:
            if not stream.knows(other, when):
                what = "written by" if (other, when) == memory.written else "read by"
                raise Race(f"memory was {what} another stream, and no event stands between")
        if writing:
            memory.written, memory.read = (stream, tick), {}
        else:
            memory.read[stream] = tick


def allocation(pointer, nbytes):
    """The Allocation in which that memory lies."""
    for memory in list(_memory.values()):
        if memory.start <= pointer and pointer + nbytes <= memory.start + memory.nbytes:
            return memory
    raise AssertionError(f"{nbytes} bytes at {pointer} are not within one array of the device")


def enqueue(stream, reads, writes, run):
    """Let run() run in a thread, after what the stream has to do so far."""
    before, work = list(stream.pending), Work()
    touched(stream, reads, writes)
    stream.pending[:] = [work]

    def later():
        finish(before)
        try:
            run()
        finally:
            work.done.set()

    threading.Thread(target=later, daemon=True).start()


# -- the module -----------------------------------------------------------------------------------


def _event_query(pointer):
    return NOT_READY if any(not w.done.is_set() for w in _events[pointer].pending) else 0


def _host_register(address, nbytes, flags):
    if nbytes <= 0:
        raise CUDARuntimeError("cudaErrorInvalidValue: invalid argument")
    pinned[address] = nbytes


Stream.null = Stream(null=True)
# Each process has one. Ranks that are threads, and play processes, set their own.
null_stream = ContextVar("the null stream", default=Stream.null)
runtime = SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    eventQuery=_event_query,
    hostRegister=_host_register,
    getDeviceCount=lambda: devices.count,
)
