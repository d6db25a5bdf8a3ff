"""The ways to share the work give the same numbers under MPI, and on ranks of several hosts."""

import json
from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar.training import alone
from tests.comm.mpirun import ROOT, done, mpirun
from tests.comm.several import Hosts
from tests.in_place import TINY, numbers

SCRIPT = ROOT / "tests/in_place.py"
WAYS = {
    "tensor and data": {"tp": 2, "dp": 2},
    "pipelines, sharded": {"pp": 2, "dp": 2, "zero": 1, "microbatches": 3},
    "two servers": {"ps": "sync", "workers": 2, "servers": 2},
}


def compare(text, config):
    (one,) = minipar.run(numbers, 1, args=(alone(config),))
    np.testing.assert_allclose(json.loads(text), one, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_under_mpi(way):
    config = replace(TINY, **WAYS[way])
    script = [str(SCRIPT), json.dumps(WAYS[way])]
    job = done(mpirun(config.ranks, "-m", "minipar", "run", *script), cwd=ROOT)
    assert job.returncode == 0, job.stderr
    compare(job.stdout, config)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_on_two_hosts(way, tmp_path):
    arguments, path = [json.dumps(WAYS[way])], f"{ROOT}"
    source = SCRIPT.read_text()
    with Hosts(tmp_path, source, ranks=2, arguments=arguments, PYTHONPATH=path) as hosts:
        hosts.start_all()
        first, second = hosts.ends()
    assert (first.code, second.code) == (0, 0), first.err
    compare(first.out.removeprefix("[rank 0] "), replace(TINY, **WAYS[way]))
