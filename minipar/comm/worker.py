"""What a rank's process runs:  main() with the arguments CONTROL_FD SEGMENT_FD HEAP_FD

It connects to its peers, gets its work from the launcher (a function, or a script to run as
`__main__`), and reports the result or the exception. A thread listens to the launcher all the
while: what it says of other ranks ends waits, and if the launcher is gone, this process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from minipar import ambient
from minipar.comm.control import MAIN_ALIAS, receive_message, send_message
from minipar.comm.environment import usable_cores
from minipar.comm.exchange import SPINS, Exchange
from minipar.comm.failure import Failure, left_cleanly
from minipar.comm.group import Group
from minipar.comm.heap import Heap
from minipar.comm.history import History, Parting
from minipar.comm.hosts.comeback import call, let_in
from minipar.comm.hosts.host_memory import HostMemory
from minipar.comm.hosts.neighbours import Address, Neighbours
from minipar.comm.hosts.network import Network, connect
from minipar.comm.hosts.tcp import TcpStream
from minipar.comm.losses import Standing
from minipar.comm.nccl import start as nccl
from minipar.comm.nccl.transport import open_transport
from minipar.comm.process import ProcessTransport
from minipar.comm.reach import let_siblings_in
from minipar.comm.segment import Segment
from minipar.comm.streams import Closed
from minipar.comm.tracing import tracing_if_asked
from minipar.errors import CommError, Deadlock, Interrupted, PeerLost
from minipar.events import Recorder

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with_launcher()
    let_siblings_in(os.getppid())
    control, segment, heap = (int(argument) for argument in sys.argv[1:4])
    os.set_inheritable(control, False)
    sock = socket.socket(fileno=control)
    message = receive_message(sock)
    if message is None:
        os._exit(1)
    _, rank, ranks, timeout_s, work, neighbours, standing = message
    try:
        again = standing is not None and standing.incarnation(rank) > 0
        transport, network = _transport(rank, ranks, timeout_s, (segment, heap), neighbours, again)
    except CommError as error:
        sys.exit(_report(sock, Failure.of(rank, error), {}))
    if standing is not None:
        transport.report(standing)
        if again and neighbours is not None:
            _let_in(transport, network, neighbours, standing)
    os.close(segment)
    os.set_inheritable(heap, False)
    _in_thread(_listen, sock, transport, network, neighbours)
    os.register_at_fork(after_in_child=partial(_become_a_copy, sock, transport))
    ambient.recorder.set(Recorder())
    if work[0] == "nccl":
        _, options, work = work
        sys.exit(_work_with_nccl(sock, options, work, transport, network))
    group = Group(transport)
    ambient.world.set(group)
    sys.exit(_work(sock, group, work, transport, network))


def _work_with_nccl(
    sock: socket.socket,
    options: nccl.Options,
    work: tuple[Any, ...],
    host: ProcessTransport,
    network: Network,
) -> int:
    """The same, with arrays of the GPU going through NCCL; the exit code."""
    nccl.set_environment(options, str(os.getppid()), host.rank)
    history = History()

    def give_up(error: CommError) -> None:
        os._exit(_report(sock, Failure.of(host.rank, error), history.partings))

    try:
        transport = open_transport(host, options, host.place, give_up)
    except Exception as error:  # of ours, or whatever CUDA says
        return _report(sock, Failure.of(host.rank, error), {})
    group = Group(transport, history=history)
    ambient.world.set(group)
    code = _work(sock, group, work, host, network)
    if code and not transport.abandon():
        os._exit(code)  # the interpreter would wait for NCCL
    return code


def _transport(
    rank: int,
    ranks: int,
    timeout_s: float,
    memory: tuple[int, int],
    neighbours: Neighbours | None,
    again: bool,
) -> tuple[ProcessTransport, Network]:
    """Shared memory to the ranks of this host, connections to those of others.

    memory: the descriptors of segment and heap.  again: whether this rank was lost before; then
    those of others will call.  Raises: PeerLost.
    """
    descriptor, heap = memory
    if neighbours is None:
        here, tcp = range(ranks), {}
        segment = Segment(descriptor, ranks)
        board = segment.board()
        rings = {r: (segment.ring(rank, r), segment.ring(r, rank)) for r in here if r != rank}
    else:
        here = neighbours.shared
        tcp = {} if again else connect(rank, neighbours, timeout_s)
        host = HostMemory(descriptor, here, ranks)
        segment, board, rings = host.segment, host.board, host.streams(rank)
    streams: dict[int, Any] = {r: (Closed(), Closed()) for r in range(ranks) if r != rank}
    streams |= rings | {r: (stream, stream) for r, stream in tcp.items()}
    transport = ProcessTransport(rank, ranks, board, streams, timeout_s)
    spins = SPINS if usable_cores() >= len(here) else 0
    mine = Heap(heap, here.index(rank))
    exchange = Exchange(segment, mine, here, rank, transport.wait, spins)
    exchange.board = board
    transport.share(exchange)
    return transport, Network(tcp)


def _die_with_launcher() -> None:
    """Have the kernel kill this process if the launcher dies, where it can (Linux): the thread
    below could not, if this process is stopped or holds the interpreter's lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_a_copy(sock: socket.socket, transport: ProcessTransport) -> None:
    """What the rank forks (multiprocessing does) is not the rank: it has nothing to report, and
    must not write into the rank's channels.
    """
    sock.close()
    transport.note_failure(
        CommError(
            f"this process was forked by rank {transport.rank}, and only the rank itself can "
            "use its groups"
        )
    )


def _in_thread(fn: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=fn, args=args, daemon=True).start()


def _take_up(
    transport: ProcessTransport, network: Network, rank: int, incarnation: int, stream: TcpStream
) -> None:
    """A connection to an incarnation of a rank of another host, unless that is lost by now."""
    if transport.note_joined(rank, incarnation, stream):
        network.take_up(rank, stream)
    else:
        stream.clear()


def _let_in(
    transport: ProcessTransport, network: Network, neighbours: Neighbours, standing: Standing
) -> None:
    """Those of other hosts who are there will call this incarnation."""
    others = (r for r in range(transport.size) if r not in neighbours.shared)
    who, take_up = standing.there(others), partial(_take_up, transport, network)
    _in_thread(let_in, transport.rank, transport.losses.incarnation, neighbours, who, take_up)


def _note_joined(
    transport: ProcessTransport,
    network: Network,
    neighbours: Neighbours | None,
    rank: int,
    incarnation: int,
    address: Address | None,
) -> None:
    """A rank begins again; if it is of another host, call it."""
    if neighbours is None or address is None or rank in neighbours.shared:
        transport.note_joined(rank, incarnation)
        return
    me, take_up = (
        (transport.rank, transport.losses.incarnation),
        partial(_take_up, transport, network),
    )
    _in_thread(call, me, (rank, incarnation), address, neighbours, take_up)


def _listen(
    sock: socket.socket,
    transport: ProcessTransport,
    network: Network,
    neighbours: Neighbours | None,
) -> None:
    """Turn what the launcher says into the end of waits; without a launcher, end at once."""
    while (message := receive_message(sock)) is not None:
        match message:
            case ("lost", rank, reason) if rank != transport.rank:
                transport.note_failure(PeerLost(reason))
            case ("reported", lost):
                transport.note_lost(lost)
                network.note_lost(lost.rank)
            case ("joined", *about):
                _note_joined(transport, network, neighbours, *about)
            case ("finished", rank):
                transport.note_finished(rank)
                network.note_finished(rank)
            case ("deadlock", report):
                transport.note_failure(Deadlock(report))
            case ("interrupt",):
                transport.note_failure(Interrupted("the job was interrupted"))
        if message[0] not in ("finished", "reported", "joined"):
            network.may_leave.set()
    os._exit(1)


def _work(
    sock: socket.socket,
    group: Group,
    work: tuple[Any, ...],
    transport: ProcessTransport,
    network: Network,
) -> int:
    """Do the work and report it; the exit code."""
    try:
        kind, *what = work
        with tracing_if_asked(group):
            result = _run_script(*what) if kind == "script" else _call(group, *what)
        return _return(sock, group, result, transport, network)
    except Interrupted:
        return 130
    except BaseException as error:
        if left_cleanly(error):
            return _return(sock, group, None, transport, network)
        return _report(sock, Failure.of(group.rank, error), group.history.partings)


def _return(
    sock: socket.socket, group: Group, result: Any, transport: ProcessTransport, network: Network
) -> int:
    if sock.fileno() < 0:  # this is a copy that the rank has forked
        return 0
    left = group.close()
    network.finish()
    failure = None if left is None else Failure.of(group.rank, left)
    send_message(sock, "result", pickle.dumps(result), failure, group.history.partings)
    _flush()
    left = network.last_look(transport)
    if left is not None:
        send_message(sock, "left", Failure.of(group.rank, left), group.history.partings)
    return 0


def _report(sock: socket.socket, failure: Failure, partings: Mapping[Any, Parting]) -> int:
    send_message(sock, "error", failure, partings)
    _flush()
    return failure.exit_code


def _call(group: Group, path: list[str], module: str, script: bool, name: str, args: bytes) -> Any:
    """fn(group, *args), where fn is `name` in a module, or in the script of that path."""
    sys.path[:] = path
    if script:
        module = _load_main(module)
    function: Any = import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    return function(group, *pickle.loads(args))


def _load_main(path: str) -> str:
    """Import the launching script, without what stands under `if __name__ == "__main__":`."""
    spec = spec_from_file_location(MAIN_ALIAS, path, loader=SourceFileLoader(MAIN_ALIAS, path))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[MAIN_ALIAS] = sys.modules["__main__"] = module  # its classes unpickle under both
    spec.loader.exec_module(module)
    return MAIN_ALIAS


def _run_script(path: str, arguments: list[str]) -> Any:
    sys.argv[:] = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a script may have put anything in their place
            stream.flush()
