"""Jobs of the mpi backend, for tests that need a real MPI; without one, they are skipped."""

import functools
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "tests/comm/mpi_ranks.py")
DEADLINE_S = 60


def mpirun(ranks, *words):
    """The command that runs `python words...` on so many ranks."""
    return [*_mpirun(), "-n", str(ranks), sys.executable, *words]


def done(command, **options):
    """The command's end: returncode, stdout, stderr."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=DEADLINE_S, **options
    )


def ranks_do(ranks, *arguments, options=()):
    """`minipar run [options] mpi_ranks.py arguments...` under mpirun."""
    return done(mpirun(ranks, "-m", "minipar", "run", *options, SCRIPT, *arguments), cwd=ROOT)


@functools.cache
def _mpirun():
    if find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    beside = os.path.dirname(sys.executable)
    found = shutil.which("mpirun", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("there is no mpirun")
    words = [found]
    if "Open MPI" in subprocess.run([found, "--version"], capture_output=True, text=True).stdout:
        words += ["--oversubscribe"] + ["--allow-run-as-root"] * (os.geteuid() == 0)
    code = "from mpi4py import MPI; print(MPI.COMM_WORLD.Get_size())"
    probe = done([*words, "-n", "2", sys.executable, "-c", code])
    if probe.stdout.split() != ["2", "2"]:
        pytest.skip(f"mpirun and mpi4py do not work together: {(probe.stderr or probe.stdout)!r}")
    return words
