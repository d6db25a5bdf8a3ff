"""What the doctor says about what is missing."""

from minipar import doctor
from minipar.comm.environment import THREAD_VARIABLES
from minipar.errors import SharedMemoryFull, UsageError


def test_advice_for_what_is_missing(monkeypatch):
    def no_memory(ranks):
        raise SharedMemoryFull("there is none; do this")

    monkeypatch.setattr(doctor, "create_segment", no_memory)
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 0.5)
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = {f.what: f for f in doctor.examine()}
    assert not found["shared memory"].ok and "do this" in found["shared memory"].advice
    assert found["cores"].found.endswith("(the container grants 0.5)")
    assert "take turns" in found["cores"].advice
    assert found["BLAS threads"].found == "OMP_NUM_THREADS=3"
    assert "do this" in doctor.table(list(found.values()))


def test_json_and_table_say_the_same():
    findings = doctor.examine()
    table, as_dict = doctor.table(findings), doctor.as_dict(findings)
    assert list(as_dict) == [f.what for f in findings]
    assert all(str(entry["found"]) in table for entry in as_dict.values())


def test_mpi_is_mpi4py_and_a_launcher(monkeypatch):
    monkeypatch.setattr(doctor, "version", lambda name: "4.1")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/mpirun")
    assert doctor._mpi() == doctor.Finding("MPI", "mpi4py 4.1", True)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    found = doctor._mpi()
    assert not found.ok and found.found == "mpi4py 4.1, no mpirun in PATH"


def test_without_mpi4py_it_is_told_what_it_is_for(monkeypatch):
    def missing(name):
        raise doctor.PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", missing)
    assert "pip install mpi4py" in doctor._mpi().advice


def test_without_cupy_there_is_no_nccl(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor._nccl().found == "needs CuPy" and not doctor._nccl().ok
    assert doctor._ranks_on_gpus().found == "0 GPUs"


def test_without_nccl_it_is_told_how_to_get_it(monkeypatch):
    def refuse():
        raise UsageError("CuPy finds no NCCL; install it with: pip install nvidia-nccl-cu13")

    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor.library, "load", refuse)
    assert "pip install nvidia-nccl-cu13" in doctor._nccl().advice


def test_one_gpu_can_be_shared_and_several_take_a_rank_each(cupy, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: name)
    assert "--share-gpu" in doctor._ranks_on_gpus().advice
    monkeypatch.setattr(cupy.cuda.devices, "count", 8)
    assert doctor._ranks_on_gpus() == doctor.Finding(
        "GPUs for ranks", "8 GPUs: up to 8 ranks of --backend nccl", True
    )
    monkeypatch.setattr(
        doctor.library, "load", lambda: type("", (), {"get_version": lambda: 22809})
    )
    assert doctor._nccl() == doctor.Finding("NCCL", "2.28.9", True)
