"""`minipar run`: a script on several ranks, as processes or as threads of this process."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from typing import IO, Any

from minipar import ambient
from minipar.comm.cluster import Cluster
from minipar.comm.failure import Failure
from minipar.comm.group import Group
from minipar.comm.hosts.meeting import Meeting
from minipar.comm.hosts.rendezvous import meet
from minipar.comm.launch import (
    check,
    check_cluster,
    nccl_work,
    run_processes,
    run_threads,
    script_work,
)
from minipar.comm.local import LocalWorld
from minipar.comm.mpi.start import become_rank
from minipar.comm.nccl.start import Options
from minipar.comm.output import Output
from minipar.comm.started import under_mpi
from minipar.comm.transport import DEFAULT_TIMEOUT_S
from minipar.errors import UsageError


def run_script(
    path: str,
    arguments: Sequence[str],
    ranks: int | None = None,
    *,
    backend: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    log_dir: str | None = None,
    check_native: bool = True,
    meeting: Meeting | None = None,
    cluster: Cluster | None = None,
    share_gpu: bool = False,
) -> int:
    """Run the script on `ranks` ranks; the exit code of the job.

    ranks, backend: None for 2 processes or, where mpirun has started this one, for its ranks.
    meeting: where the launchers of other hosts are met, which have ranks of the same job.
    cluster: declared speeds of links and ranks, for virtual time; only on `local`.
    share_gpu: whether several ranks of nccl may have one GPU.
    Raises: UsageError; CommError if they do not come.
    """
    if not os.path.isfile(path):
        raise UsageError(f"there is no script {path}.")
    if meeting is not None and backend not in (None, "process", "nccl"):
        raise UsageError(
            f"--backend {backend} has no --nnodes; several hosts take 'process' or 'nccl'."
        )
    if cluster is not None:
        check_cluster(cluster, ranks or 2, backend or "process")
    by_mpi = backend is None and meeting is None and under_mpi(os.environ) is not None
    if backend == "mpi" or by_mpi:
        if log_dir is not None:
            raise UsageError("--log-dir is not for mpi; mpirun has --output for that.")
        become_rank(path, arguments, ranks, timeout_s, check_native, os.environ)
    ranks, backend = 2 if ranks is None else ranks, backend or "process"
    check(ranks if meeting is None else meeting.on_host, backend, share_gpu)
    if backend == "local":
        return _run_here(path, arguments, LocalWorld(ranks, cluster=cluster), log_dir)
    work = script_work(path, arguments)
    if backend == "nccl":
        work = nccl_work(work, Options(share_gpu, check_native))
    nodes = None if meeting is None else meet(meeting)
    job = run_processes(work, ranks, timeout_s=timeout_s, log_dir=log_dir, nodes=nodes)
    if job.failure is None:
        return 0
    job.failure.show(ranks if nodes is None else nodes.ranks)
    return job.failure.exit_code


def _run_here(path: str, arguments: Sequence[str], world: LocalWorld, log_dir: str | None) -> int:
    """On the local backend: all ranks share sys.argv, sys.path, and every imported module."""
    ranks = world.size
    sys.argv[:] = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    with LabelledOutput(ranks, log_dir):
        _, failed = run_threads(_script, ranks, (path,), world)
    if failed is None:
        return 0
    failure = Failure.of(*failed)
    failure.show(ranks)
    return failure.exit_code


def _script(group: Group, path: str) -> None:
    runpy.run_path(path, run_name="__main__")


class LabelledOutput:
    """Inside the block, what threads of local ranks print gets their labels."""

    def __init__(self, ranks: int, log_dir: str | None = None, plain: Sequence[int] = ()) -> None:
        self._ranks = ranks
        self._outputs = [
            Output(stream, ranks, plain=plain, log_dir=log_dir)
            for stream in (sys.stdout, sys.stderr)
        ]

    def __enter__(self) -> None:
        self._before: tuple[Any, Any] = sys.stdout, sys.stderr
        wrapped = (_RankStream(*pair, self._ranks) for pair in zip(self._before, self._outputs))
        sys.stdout, sys.stderr = wrapped

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._before
        for output in self._outputs:
            output.close()


class _RankStream:
    """A text stream that knows from the ambient world which rank is writing."""

    def __init__(self, stream: IO[str], output: Output, ranks: int) -> None:
        self._stream, self._output, self._ranks = stream, output, ranks

    def write(self, text: str) -> int:
        world = ambient.world.get()
        if world is None:
            return self._stream.write(text)
        self._output.feed(min(world.rank, self._ranks - 1), text)  # a job inside a rank
        if self._output.error is not None:
            raise self._output.error
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
