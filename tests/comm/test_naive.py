"""All messages go to rank 0 or come from there; results and costs are in test_algorithms."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.algorithms import ALGORITHMS
from minipar.events import recording

CALLS = sorted(op for op in ALGORITHMS if "naive" in ALGORITHMS[op])


@pytest.mark.parametrize("p", [1, 2, 5])
@pytest.mark.parametrize("op", CALLS)
def test_everything_goes_through_rank_0(op, p):
    def work(group):
        with recording() as log:
            arguments = () if op == "barrier" else (np.ones((p, 2)),)
            getattr(group, op)(*arguments, algorithm="naive")
        return log

    logs = run(work, p)
    assert all(0 in (event.rank, event.peer) for log in logs for event in log)
    assert sum(map(len, logs)) in (p - 1, 2 * (p - 1))


def test_sums_are_added_in_rank_order():
    x = np.array([1e16, 1.0, 1.0, -1e16])  # any other order gives another result
    total = run(lambda g: g.all_reduce(x[g.rank], algorithm="naive"), 4)[0]
    assert total == ((x[0] + x[1]) + x[2]) + x[3]
