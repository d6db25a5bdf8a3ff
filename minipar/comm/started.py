"""Who has started this process: what the environment tells of a launcher that is not ours.

Under mpirun a process is a rank of MPI. Under torchrun or srun it becomes the launcher of one rank,
with its number among the processes. Pure functions of the environment's variables: nothing here
asks the launcher, or MPI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Place(NamedTuple):
    """A rank's place in its job, and among the ranks of its host."""

    rank: int
    size: int
    local_rank: int
    local_size: int


# rank, size, rank on this host, ranks on this host, as each family of MPI libraries names them
MPI_VARIABLES = (
    (  # Open MPI
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    (  # MVAPICH2
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI
)


def under_mpi(environ: Mapping[str, str]) -> Place | None:
    """This process's place, if an mpirun (or mpiexec) has started it; None if not.

    If it does not tell about the host, all ranks are taken to be on this one.
    """
    for rank, size, local_rank, local_size in MPI_VARIABLES:
        if _is_number(environ.get(rank)) and _is_number(environ.get(size)):
            r, p = int(environ[rank]), int(environ[size])
            return Place(
                r, p, int(environ.get(local_rank, r)), max(1, int(environ.get(local_size, p)))
            )
    return None


def _is_number(text: str | None) -> bool:
    return text is not None and text.isdecimal()


class Started(NamedTuple):
    """One of `ranks` processes, as whoever started them has numbered them."""

    by: str
    rank: int
    ranks: int
    local_rank: int  # among those on this host
    local_ranks: int
    job: str  # the same for all processes of the job, and no other's


def started(environ: Mapping[str, str]) -> Started | None:
    """What the environment says; None if this process was started on its own."""
    try:
        return _by_torchrun(environ) or _by_srun(environ)
    except ValueError:  # numbers that are none, so not what these launchers set
        return None


def _by_torchrun(environ: Mapping[str, str]) -> Started | None:
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"} <= environ.keys():
        return None
    ranks = int(environ["WORLD_SIZE"])
    return Started(
        "torchrun",
        int(environ["RANK"]),
        ranks,
        int(environ["LOCAL_RANK"]),
        int(environ.get("LOCAL_WORLD_SIZE", ranks)),
        "-".join(
            environ.get(name, "")
            for name in ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
        ),
    )


def _by_srun(environ: Mapping[str, str]) -> Started | None:
    if not {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"} <= environ.keys():
        return None
    ranks = int(environ.get("SLURM_STEP_NUM_TASKS", environ["SLURM_NTASKS"]))
    if ranks < 2:
        return None
    hosts = int(environ.get("SLURM_STEP_NUM_NODES", environ.get("SLURM_NNODES", "1")))
    return Started(
        "srun",
        int(environ["SLURM_PROCID"]),
        ranks,
        int(environ.get("SLURM_LOCALID", "0")),
        ranks if hosts == 1 else _tasks_here(environ, ranks, hosts),
        f"{environ.get('SLURM_JOB_ID', '')}-{environ['SLURM_STEP_ID']}",
    )


def _tasks_here(environ: Mapping[str, str], ranks: int, hosts: int) -> int:
    """Tasks on this host, from e.g. SLURM_STEP_TASKS_PER_NODE = "2(x3),1" and SLURM_NODEID."""
    counts: list[int] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if part:
            count, _, times = part.removesuffix(")").partition("(x")
            counts += [int(count)] * int(times or 1)
    node = int(environ.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else -(-ranks // hosts)
