"""The beginning and the end of a rank under MPI.

It ends well when all ranks return. If one fails, everybody is to stop within two seconds, and the
last that the user reads is the traceback of that rank:

    the rank that failed      FAILED ->                            prints its traceback; exit code
    all others                         print a line; -> STOPPED                     wait for the end

If two fail at once, the lower one counts. Whoever does not answer in GRACE_S (it computes, say) is
ended by MPI.Abort. A rank of a failed job leaves without MPI_Finalize, which would wait for all.

Where ranks may be lost while the others go on (`lose`), one that raises says that it is, and stays
until the others have returned: MPI would take the end of its process for that of the job.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import NoReturn

from minipar.comm.environment import THREAD_VARIABLES
from minipar.comm.failure import Failure
from minipar.comm.mpi.notices import Kind, Notice
from minipar.comm.mpi.start import need_mpi4py
from minipar.comm.mpi.transport import MpiTransport
from minipar.comm.started import under_mpi
from minipar.comm.transport import DEFAULT_TIMEOUT_S
from minipar.comm.whereabouts import FINISHED, Whereabouts, packed, story
from minipar.errors import CallMismatch, PeerLost

GRACE_S = 1.0
DRAWING_S = 10.0  # for the figure of a trace
SILENT = "does not answer (it computes, or hangs)"


def join(
    environ: Mapping[str, str], timeout_s: float = DEFAULT_TIMEOUT_S, reports: bool = False
) -> MpiTransport | None:
    """For a script started by plain `python` under mpirun: its end of the job; None elsewhere.

    An exception that nobody catches ends the whole job from now on. (What cannot be seen from here
    is the code of a sys.exit.)
    """
    place = under_mpi(environ)
    if place is None:
        return None
    need_mpi4py()
    transport = MpiTransport(timeout_s=timeout_s, reports=reports)
    set_before = any(name in environ for name in THREAD_VARIABLES)
    if transport.rank == 0 and transport.size > 1 and not set_before:
        print(
            "minipar: NumPy was imported before the number of its threads could be set; "
            "`mpirun -n N minipar run script.py` sets it",
            file=sys.stderr,
        )

    def hook(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        fail(transport, error)

    sys.excepthook = hook
    return transport


def finish(transport: MpiTransport, close: Callable[[], CallMismatch | None]) -> None:
    """This rank has returned: wait for the others.  Does not return if the job fails.

    close: of its group.
    """
    try:
        left = close()
    except BaseException as error:
        if transport.failed:
            _stop(transport, "")  # it has nothing to say: its work was done
        fail(transport, error)
    if left is not None:
        fail(transport, left)


def fail(
    transport: MpiTransport, error: BaseException, at_last: Callable[[], None] | None = None
) -> NoReturn:
    """This rank has raised: end the job, as above.

    at_last: what the rank whose failure counts does then; the others give it DRAWING_S for that.
    """
    transport.patience_s = GRACE_S if at_last is None else DRAWING_S
    failure = Failure.of(transport.rank, error)
    if transport.failed:
        _stop(transport, failure.summary)
    others = set(range(transport.size)) - {transport.rank}
    transport.tell(sorted(others), Notice(Kind.FAILED, failure.summary, failure.exit_code))

    def outranked() -> bool:
        return any(rank < transport.rank for rank in transport.failed)

    def all_know() -> bool:
        return others <= transport.stopped.keys() | transport.finished.keys()

    _listen(transport, lambda: outranked() or all_know())
    if outranked():
        _stop(transport, failure.summary)
    told = story(_all(transport, failure), failure.rank, failure.kind, failure.in_a_call)
    replace(failure, notes=told).show(transport.size)
    if at_last is not None:
        at_last()
    _flush()
    if not all_know():
        transport.abort(failure.exit_code)
    os._exit(failure.exit_code)


def _all(transport: MpiTransport, failure: Failure) -> list[Whereabouts]:
    """Where all ranks were when this one failed, as far as they have answered."""
    found = []
    for rank in range(transport.size):
        if rank == transport.rank:
            where = transport.whereabouts()
            if failure.fate:
                where = where._replace(whom=None, fate=failure.fate)
        elif rank in transport.finished:
            where = Whereabouts((transport.finished[rank],), fate=FINISHED)
        else:
            where = transport.stopped.get(rank, Whereabouts(("unknown",), fate=SILENT))
        found.append(where)
    return found


def lose(transport: MpiTransport, error: BaseException) -> int:
    """This rank has raised, and the others go on: stay until they have returned.

    Returns: the exit code; not 0 if all ranks are lost.  Does not return if the job fails.
    """
    failure = Failure.of(transport.rank, error)
    if transport.failed:
        _stop(transport, failure.summary)
    others = [rank for rank in range(transport.size) if rank != transport.rank]
    transport.tell(others, Notice(Kind.LOST, failure.why))
    print(f"[rank {transport.rank}] {failure.why}; the others go on", file=sys.stderr, flush=True)
    try:
        transport.stay()
    except PeerLost:
        _stop(transport, "")
    if len(transport.gone) < len(others):
        return 0
    failure.show(transport.size)
    return failure.exit_code


def _stop(transport: MpiTransport, line: str) -> NoReturn:
    """Another rank has failed: say so in a line, tell it, and wait to be ended."""
    if line:
        print(f"[rank {transport.rank}] {line}", file=sys.stderr)
    _flush()
    told: set[int] = set()

    def answered() -> bool:
        new = transport.failed.keys() - told
        transport.tell(sorted(new), Notice(Kind.STOPPED, packed(transport.whereabouts())))
        told.update(new)
        return False

    _listen(transport, answered, transport.patience_s)
    os._exit(transport.failed[min(transport.failed)].code)


def _listen(
    transport: MpiTransport, enough: Callable[[], bool], patience_s: float = GRACE_S
) -> None:
    """Until that is enough, or for so long."""
    until = time.monotonic() + patience_s
    while not enough() and time.monotonic() < until:
        if not transport.move():
            time.sleep(0.001)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a script may have put anything in their place
            stream.flush()
