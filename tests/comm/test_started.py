"""Which launcher has started this process: pure functions of an environment."""

import pytest

from minipar.comm.started import Place, Started, started, under_mpi

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


# -- torchrun and srun --------------------------------------------------------------------

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RUN_ID": "run",
    "TORCHELASTIC_RESTART_COUNT": "0",
}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_NNODES": "3",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}


def test_torchrun():
    assert started(TORCHRUN) == Started("torchrun", 3, 4, 1, 2, "run-29400-0")


def test_a_restart_is_another_job():
    again = started(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert again is not None and again.job != started(TORCHRUN).job


def test_srun():
    assert started(SRUN) == Started("srun", 3, 5, 1, 2, "77-0")
    one_host = SRUN | {"SLURM_NNODES": "1"}
    assert started(one_host) == Started("srun", 3, 5, 1, 5, "77-0")
    last = SRUN | {"SLURM_NODEID": "2", "SLURM_PROCID": "4", "SLURM_LOCALID": "0"}
    assert started(last) == Started("srun", 4, 5, 0, 1, "77-0")


def test_srun_without_the_tasks_of_each_node():
    assert started({k: v for k, v in SRUN.items() if "TASKS_PER" not in k}).local_ranks == 2


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "2"},  # somebody's own variables
        TORCHRUN | {"RANK": "first"},
        SRUN | {"SLURM_NTASKS": "1"},
        {k: v for k, v in SRUN.items() if k != "SLURM_STEP_ID"},  # a batch script, not a task
        SRUN | {"SLURM_STEP_NUM_TASKS": "1"},  # an interactive shell inside a larger allocation
    ],
)
def test_a_process_of_its_own(environ):
    assert started(environ) is None
