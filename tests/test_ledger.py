"""What steps cost, added up on each rank and put together."""

import numpy as np
import pytest

import minipar
from minipar.ledger import Ledger, links
from minipar.parallel.mesh import Mesh
from minipar.tally import axes_of


def kept(group):
    mesh = Mesh(group, dp=2, tp=2)
    ledger = Ledger(group, axes_of(mesh))
    for n in (10, 30):
        with ledger.step() as found:
            mesh.tp.all_reduce(np.ones(n), algorithm="ring")
        mesh.dp.all_reduce(np.ones(50))  # no part of a step
    ledger.wait(ledger.step_ns // 2)
    return found, ledger.summary(group), ledger.summary(None)


def test_only_steps_count_and_the_summary_is_their_mean():
    for found, together, own in minipar.run(kept, 4):
        assert found == {"sent": {"tp": 240}}
        assert together["sent"] == own["sent"] == {"tp": (80 + 240) / 2}
        assert len(together["memory"]) == 4 and len(own["memory"]) == 1
        assert 0 < own["share"]["tp"] <= 1 and own["step_seconds"] > 0
        assert own["waiting"] == pytest.approx(0.5, rel=0.01)
        assert own["share"]["pp"] == own["waiting"]


def test_all_ranks_find_the_same_links_and_one_rank_has_none():
    assert minipar.run(links, 1) == [{"alpha": 0.0, "beta": 0.0}]
    first, *others = minipar.run(links, 3)
    assert first["alpha"] > 0 and first["beta"] >= 0
    assert all(other == first for other in others)
