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
from minipar.comm.process import ProcessTransport
from minipar.comm.segment import Segment
from minipar.errors import CommError, Deadlock, Interrupted, PeerLost
from minipar.events import Recorder

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _die_with_launcher()
    control, segment, heap = (int(argument) for argument in sys.argv[1:4])
    os.set_inheritable(control, False)
    sock = socket.socket(fileno=control)
    message = receive_message(sock)
    if message is None:
        os._exit(1)
    _, rank, ranks, timeout_s, work = message
    memory = Segment(segment, ranks)
    streams = {r: (memory.ring(rank, r), memory.ring(r, rank)) for r in range(ranks) if r != rank}
    transport = ProcessTransport(rank, ranks, memory.board(), streams, timeout_s)
    os.close(segment)
    os.set_inheritable(heap, False)
    spins = SPINS if usable_cores() >= ranks else 0
    transport.share(Exchange(memory, Heap(heap, rank), range(ranks), rank, transport.wait, spins))
    threading.Thread(target=_listen, args=(sock, transport), daemon=True).start()
    os.register_at_fork(after_in_child=partial(_become_a_copy, sock, transport))
    group = Group(transport)
    ambient.world.set(group)
    ambient.recorder.set(Recorder())
    sys.exit(_work(sock, group, work))


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


def _listen(sock: socket.socket, transport: ProcessTransport) -> None:
    """Turn what the launcher says into the end of waits; without a launcher, end at once."""
    while (message := receive_message(sock)) is not None:
        match message:
            case ("lost", rank, reason) if rank != transport.rank:
                transport.note_failure(PeerLost(reason))
            case ("finished", rank):
                transport.note_finished(rank)
            case ("deadlock", report):
                transport.note_failure(Deadlock(report))
            case ("interrupt",):
                transport.note_failure(Interrupted("the job was interrupted"))
    os._exit(1)


def _work(sock: socket.socket, group: Group, work: tuple[Any, ...]) -> int:
    """Do the work and report it; the exit code."""
    try:
        kind, *what = work
        result = _run_script(*what) if kind == "script" else _call(group, *what)
        return _return(sock, group, result)
    except Interrupted:
        return 130
    except BaseException as error:
        if left_cleanly(error):
            return _return(sock, group, None)
        failure = Failure.of(group.rank, error)
        send_message(sock, "error", failure, group.history.partings)
        _flush()
        return failure.exit_code


def _return(sock: socket.socket, group: Group, result: Any) -> int:
    if sock.fileno() < 0:  # this is a copy that the rank has forked
        return 0
    left = group.close()
    failure = None if left is None else Failure.of(group.rank, left)
    send_message(sock, "result", pickle.dumps(result), failure, group.history.partings)
    _flush()
    return 0


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
