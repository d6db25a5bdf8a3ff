"""Cores, quotas, and what a rank's environment says about threads."""

import minipar
from minipar.comm.environment import THREAD_VARIABLES, cpu_quota, rank_environment, usable_cores
from tests.comm import ranks


def test_threads_are_cores_over_ranks_and_at_least_one():
    cores = usable_cores()
    assert rank_environment(1, {})["OPENBLAS_NUM_THREADS"] == str(cores)
    assert rank_environment(10 * cores, {})["OMP_NUM_THREADS"] == "1"


def test_what_the_user_has_set_stays():
    env = rank_environment(2, {"OMP_NUM_THREADS": "7", "MALLOC_TOP_PAD_": "1"})
    assert (env["OMP_NUM_THREADS"], env["MALLOC_TOP_PAD_"]) == ("7", "1")


def test_quota_of_both_kinds_of_cgroup(tmp_path):
    assert cpu_quota(str(tmp_path)) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(str(tmp_path)) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(str(tmp_path)) is None
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_quota(str(tmp_path)) == 0.5


def test_processes_find_it(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    found = minipar.run(ranks.environment, 2, args=("OMP_NUM_THREADS",), backend="process")
    assert found == [str(max(1, usable_cores() // 2))] * 2
