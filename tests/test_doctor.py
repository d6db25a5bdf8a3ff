"""What the doctor says about what is missing."""

from minipar import doctor
from minipar.errors import SharedMemoryFull


def test_advice_for_what_is_missing(monkeypatch):
    def no_memory(ranks):
        raise SharedMemoryFull("there is none; do this")

    monkeypatch.setattr(doctor, "create_segment", no_memory)
    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 0.5)
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
