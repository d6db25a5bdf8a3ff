"""`minipar train` under mpirun: every rank trains, and rank 0 does what stands around it.

all      the threads of BLAS are set, and the process starts anew      (as `minipar run` does)
rank 0   prepares the run folder and tells the others where it is
all      train
rank 0   compares with one rank, draws, reports; the others wait
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from minipar import ambient
from minipar.comm.environment import rank_environment
from minipar.comm.failure import left_cleanly
from minipar.comm.group import Group
from minipar.comm.mpi import job as mpi_job
from minipar.comm.mpi.start import need_mpi4py
from minipar.comm.started import Place, under_mpi
from minipar.comm.transport import DEFAULT_TIMEOUT_S
from minipar.config import Config
from minipar.errors import UsageError
from minipar.forecast import table
from minipar.ranks import restarts
from minipar.run_folder import RunFolder
from minipar.training import train_rank
from minipar.training_job import Job, Result, conclude, prepare


def wanted(given: Mapping[str, Any]) -> bool:
    """Whether these options of `minipar train` ask for it: under mpirun also if they are silent."""
    place = under_mpi(os.environ)
    return given.get("backend", "mpi" if place and place.size > 1 else "process") == "mpi"


def execute(
    given: Mapping[str, Any], out: str | None, resume: str | None, log_dir: str | None = None
) -> Result | None:
    """Train as a rank of MPI's job; what rank 0 has to report, None on the others.

    Raises: UsageError.
    """
    if log_dir is not None:
        raise UsageError("--log-dir is not for mpi; mpirun has --output for that.")
    place = under_mpi(os.environ)
    _check(place, given)
    assert place is not None
    env = rank_environment(place.local_size)
    if env != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
    may_be_lost = given.get("ps", "none") != "none" or resume is not None
    timeout_s = given.get("timeout_s", DEFAULT_TIMEOUT_S)
    transport = mpi_job.join(os.environ, timeout_s, reports=may_be_lost)
    assert transport is not None
    group = Group(transport)
    ambient.world.set(group)
    try:
        result = _train(group, {**given, "backend": "mpi"}, out, resume)
    except _Lost as lost:
        raise SystemExit(mpi_job.lose(transport, lost.error)) from None
    except BaseException as error:
        if not left_cleanly(error):
            mpi_job.fail(transport, error)
    mpi_job.finish(transport, group.close)
    return result


def _check(place: Place | None, given: Mapping[str, Any]) -> None:
    if place is None:
        ranks = math.prod(given.get(axis, 1) for axis in ("dp", "pp", "tp"))
        if given.get("ps", "none") != "none":
            ranks = given.get("workers", Config.workers) + given.get("servers", Config.servers)
        raise UsageError(
            "ranks of the mpi backend are started by MPI: "
            f"mpirun -n {ranks if ranks > 1 else 2} minipar train ..."
        )
    need_mpi4py()


def _train(
    group: Group, given: Mapping[str, Any], out: str | None, resume: str | None
) -> Result | None:
    begun = time.monotonic()
    job = _the_same_everywhere(
        group, _prepared(group, given, out, resume) if group.rank == 0 else None
    )
    if job.plan is not None:
        print(table(job.plan.needs), file=sys.stderr)
    try:
        result = train_rank(group, job.config, str(job.run.path), job.resume)
    except Exception as error:
        if restarts(job.config) is None:
            raise
        raise _Lost(error) from error
    return conclude(job, result, begun) if group.rank == 0 else None


class _Lost(Exception):
    """This rank has raised, without which the others can go on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _prepared(group: Group, given: Mapping[str, Any], out: str | None, resume: str | None) -> Job:
    try:
        return prepare(given, out=out, resume=resume, ranks=group.size)
    except UsageError as error:
        print(f"minipar: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _the_same_everywhere(group: Group, job: Job | None) -> Job:
    """Rank 0's job on every rank, as text in bytes."""
    told = b""
    if job is not None:
        told = json.dumps([asdict(job.config), str(job.run.path), job.resume]).encode()
    length = int(group.broadcast(np.array(len(told))))
    text = np.zeros(length, np.uint8)
    if job is not None:
        text[:] = np.frombuffer(told, np.uint8)
    config, path, resume = json.loads(group.broadcast(text).tobytes())
    return Job(Config(**config), RunFolder(path), resume, None if job is None else job.plan)
