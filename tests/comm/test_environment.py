"""Cores, quotas, and what a rank's environment says about threads."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

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
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(str(tmp_path)) is None
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert cpu_quota(str(tmp_path)) == 2.5
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(str(tmp_path)) == 2.5
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    assert cpu_quota(str(tmp_path)) == 1.5


@pytest.mark.parametrize(
    ("line", "folder"), [("0::/slice/job", ""), ("7:cpuacct,cpu:/slice/job", "cpu")]
)
def test_the_quota_of_a_cgroup_inside_others(tmp_path, line, folder):
    """Batch systems and systemd limit a cgroup far below the root, or one around it."""
    own = tmp_path / "own"
    own.write_text(f"3:memory:/elsewhere\n{line}\n")
    around = tmp_path / folder / "slice"
    (around / "job").mkdir(parents=True)
    (around / "job/cpu.max").write_text("300000 100000\n")
    assert cpu_quota(str(tmp_path), str(own)) == 3
    (around / "cpu.max").write_text("50000 100000\n")
    assert cpu_quota(str(tmp_path), str(own)) == 0.5


def test_ranks_share_what_a_real_cgroup_grants():
    """One core of this machine's: so one thread for one rank."""
    if usable_cores() < 2:
        pytest.skip("has only one core")
    code = (
        "import minipar; from tests.comm import ranks; "
        "print(minipar.run(ranks.environment, 1, args=('OMP_NUM_THREADS',), backend='process'))"
    )
    env = {name: text for name, text in os.environ.items() if name not in THREAD_VARIABLES}
    with one_core() as cgroup:
        command = ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs && exec "$@"', "sh"]
        command += [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "['1']\n", done.stderr


@contextmanager
def one_core():
    root = Path("/sys/fs/cgroup")
    version2 = (root / "cgroup.controllers").exists()
    folder = root / ("" if version2 else "cpu") / f"minipar-test-{os.getpid()}"
    try:
        folder.mkdir()
        limit = ("cpu.max", "100000 100000") if version2 else ("cpu.cfs_quota_us", "100000")
        (folder / limit[0]).write_text(limit[1])
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_processes_find_it(monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    found = minipar.run(ranks.environment, 2, args=("OMP_NUM_THREADS",), backend="process")
    assert found == [str(max(1, usable_cores() // 2))] * 2
