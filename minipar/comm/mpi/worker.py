"""What a rank's process runs where MPI has started it:  main() with TIMEOUT_S CHECK PATH ARG..."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from functools import partial
from typing import NoReturn

from minipar import ambient
from minipar.comm.failure import left_cleanly
from minipar.comm.group import Group
from minipar.comm.mpi import job
from minipar.comm.mpi.transport import MpiTransport
from minipar.comm.tracing import VARIABLE, tracing_if_asked
from minipar.trace.last_moments import last_moments


def main() -> NoReturn:
    """Run the script as a rank."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for mpirun
    timeout_s, check, path, *arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    transport = MpiTransport(timeout_s=float(timeout_s), check=check == "1")
    group = Group(transport)
    ambient.world.set(group)
    sys.argv[:] = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    folder = os.environ.get(VARIABLE)
    try:
        with tracing_if_asked(group):
            runpy.run_path(path, run_name="__main__")
    except BaseException as error:
        if not left_cleanly(error):
            job.fail(transport, error, partial(_draw, folder) if folder else None)
    if folder:
        transport.patience_s = job.DRAWING_S
    job.finish(transport, group.close)
    sys.exit(0)


def _draw(folder: str) -> None:
    print(f"minipar: {last_moments(folder)}", file=sys.stderr)
