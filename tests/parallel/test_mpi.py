"""Data parallel between ranks of a real MPI gives what its definition says.

The other ways have tests/test_in_place.py.
"""

import json

import pytest

from minipar.testing.strategies import TOLERANCE
from minipar.verify import STRATEGIES
from tests.comm.mpirun import ROOT, done, mpirun

DATA_PARALLEL = [name for name, held in STRATEGIES.items() if held.measure is None]
SCRIPT = str(ROOT / "tests/parallel/mpi_strategies.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "names"),
    [(3, DATA_PARALLEL), (2, ["dp", "bucketed", "overlapped", "zero1", "zero2", "zero3"])],
)
def test_every_strategy_is_right_under_mpi(ranks, names):
    job = done(mpirun(ranks, "-m", "minipar", "run", SCRIPT, *names), cwd=ROOT)
    assert job.returncode == 0, job.stderr
    rows = [json.loads(line) for line in job.stdout.splitlines()]
    assert [row["strategy"] for row in rows] == names
    assert all(row["ranks"] == ranks and row["max_error"] <= TOLERANCE for row in rows), rows
