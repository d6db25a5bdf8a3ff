"""Who has started this process: what the environment tells of a launcher that is not ours.

Pure functions of the environment's variables: nothing here asks the launcher, or MPI.
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
