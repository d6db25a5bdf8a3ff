"""What a rank's process runs:  python -m minipar.comm.worker CONTROL_FD SEGMENT_FD

It connects to its peers, gets its work from the launcher (a function, or a script to run as
`__main__`), and reports the result or the exception. A thread listens to the launcher all the
while: what it says of other ranks ends waits, and if the launcher is gone, this process ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import runpy
import signal
import socket
import sys
import threading
import traceback
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import TracebackType
from typing import Any

from minipar import ambient
from minipar.comm.board import Segment
from minipar.comm.control import MAIN_ALIAS, receive_message, send_message
from minipar.comm.group import Group
from minipar.comm.process import ProcessTransport
from minipar.errors import Interrupted, MiniparError, PeerLost

OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    control, segment = (int(argument) for argument in sys.argv[1:3])
    os.set_inheritable(control, False)
    sock = socket.socket(fileno=control)
    message = receive_message(sock)
    if message is None:
        os._exit(1)
    _, rank, ranks, timeout_s, work = message
    transport = ProcessTransport(rank, ranks, Segment(segment, ranks), timeout_s)
    os.close(segment)
    threading.Thread(target=_listen, args=(sock, transport), daemon=True).start()
    group = Group(transport)
    ambient.world.set(group)
    sys.exit(_work(sock, group, work))


def _listen(sock: socket.socket, transport: ProcessTransport) -> None:
    """Turn what the launcher says into the end of waits; without a launcher, end at once."""
    while (message := receive_message(sock)) is not None:
        match message:
            case ("lost", rank, reason) if rank != transport.rank:
                transport.note_failure(PeerLost(reason))
            case ("finished", rank):
                transport.note_finished(rank)
            case ("interrupt",):
                transport.note_failure(Interrupted("the job was interrupted"))
    os._exit(1)


def _work(sock: socket.socket, group: Group, work: tuple[Any, ...]) -> int:
    """Do the work and report it; the exit code."""
    try:
        kind, *what = work
        result = _run_script(*what) if kind == "script" else _call(group, *what)
        group.close()
        _flush()
        send_message(sock, "result", result)
        return 0
    except Interrupted:
        return 130
    except SystemExit as leaving:
        return _exit(sock, group, leaving)
    except BaseException as error:
        _report(sock, group.rank, error)
        return 1


def _call(group: Group, path: list[str], module: str, name: str, args: bytes) -> Any:
    sys.path[:] = path
    if module.endswith(".py"):
        module = _load_main(module)
    function: Any = import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    return function(group, *pickle.loads(args))


def _load_main(path: str) -> str:
    """Import the launching script, without what stands under `if __name__ == "__main__":`."""
    spec = spec_from_file_location(MAIN_ALIAS, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[MAIN_ALIAS] = sys.modules["__main__"] = module  # its classes unpickle under both
    spec.loader.exec_module(module)
    return MAIN_ALIAS


def _run_script(path: str, arguments: list[str]) -> Any:
    sys.argv[:] = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    runpy.run_path(path, run_name="__main__")


def _exit(sock: socket.socket, group: Group, leaving: SystemExit) -> int:
    """A rank that calls sys.exit: 0 is a return, anything else a failure."""
    if leaving.code in (None, 0):
        group.close()
        _flush()
        send_message(sock, "result", None)
        return 0
    code = leaving.code if isinstance(leaving.code, int) else 1
    text = f"rank {group.rank} called sys.exit({leaving.code!r})"
    _flush()
    send_message(sock, "error", text, "", b"", code)
    return code


def _report(sock: socket.socket, rank: int, error: BaseException) -> None:
    """Send the exception and its traceback, without the frames of the launching."""
    own = _user_part(error.__traceback__)
    text = "".join(traceback.format_exception(type(error), error, own)).rstrip()
    said = str(error).splitlines()[0] if str(error) else ""
    summary = said if isinstance(error, MiniparError) else ""
    summary = summary or f"rank {rank} raised {type(error).__name__}: {said}".rstrip(": ")
    if isinstance(error, PeerLost):  # not this rank's own doing: one line, not a traceback
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    _flush()
    try:
        exception = pickle.dumps(error.with_traceback(None))
        pickle.loads(exception)
    except Exception:  # whatever a foreign class may raise: the text has what can be carried over
        exception = b""
    send_message(sock, "error", summary, text, exception, 1)


def _user_part(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither ours nor runpy's."""
    first = tb
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if not (name.startswith(OWN_FOLDER) or "runpy" in name):
            return tb
        tb = tb.tb_next
    return first


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


if __name__ == "__main__":
    main()
