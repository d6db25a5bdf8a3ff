"""What `minipar run` does under mpirun: it becomes a rank of the job that MPI has started.

The threads of BLAS are fixed when NumPy loads, and `minipar` has loaded it. So `become_rank` sets
the environment and replaces the process by a new Python, which keeps its place in MPI's job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import NoReturn

from minipar.comm.environment import child_environment, python_command
from minipar.comm.started import under_mpi
from minipar.errors import UsageError


def need_mpi4py() -> None:
    """Raises: UsageError if it is not installed."""
    if find_spec("mpi4py") is None:
        raise UsageError(
            "this rank was started by an MPI, but mpi4py is not installed here; "
            "install it with: pip install mpi4py"
        )


def become_rank(
    path: str,
    arguments: Sequence[str],
    ranks: int | None,
    timeout_s: float,
    check: bool,
    environ: Mapping[str, str],
) -> NoReturn:
    """Replace this process by one that runs the script as a rank of MPI's job.

    ranks: how many the user expects; None: as many as there are.  Raises: UsageError.
    """
    place = under_mpi(environ)
    if place is None and ranks != 1 and "PMIX_RANK" not in environ:  # which srun --mpi=pmix sets
        raise UsageError(
            f"--backend mpi runs in ranks that MPI has started: mpirun -n {ranks or 2} minipar run "
            f"{path}"
        )
    if place is not None and ranks not in (None, place.size):
        raise UsageError(
            f"-n {ranks}, but mpirun has started {place.size} ranks; leave out one of the two."
        )
    need_mpi4py()
    env = child_environment(1 if place is None else place.local_size, environ)
    words = [str(timeout_s), str(int(check)), path, *arguments]
    command = python_command("minipar.comm.mpi.worker", *words)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, env)
