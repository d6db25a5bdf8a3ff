"""Which launcher has started this process: pure functions of an environment."""

import pytest

from minipar.comm.started import Place, under_mpi

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
MVAPICH = {name.replace("OMPI", "MV2"): value for name, value in OPEN_MPI.items()}


@pytest.mark.parametrize("environ", [OPEN_MPI, MPICH, MVAPICH])
def test_the_place_is_read_from_the_environment(environ):
    assert under_mpi(environ | {"HOME": "/"}) == Place(5, 8, 1, 4)


def test_without_a_word_about_hosts_all_ranks_are_on_one():
    assert under_mpi({"PMI_RANK": "2", "PMI_SIZE": "3"}) == Place(2, 3, 2, 3)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"HOME": "/", "RANK": "0", "WORLD_SIZE": "2"},
        {"PMI_RANK": "0"},
        {"PMI_SIZE": "2"},
        {"PMI_RANK": "", "PMI_SIZE": ""},
        {"PMI_RANK": "-1", "PMI_SIZE": "2"},
    ],
)
def test_anything_else_is_no_mpi(environ):
    assert under_mpi(environ) is None
