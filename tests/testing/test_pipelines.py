"""The run on which pipelines are held passes what is right, and finds what is wrong."""

import pytest

from minipar.parallel.pipeline import StageRun
from minipar.testing.pipelines import CASES, ROWS, batch, difference, gpt, train_alone
from minipar.verify import Held, verify


def one_case(p, backend):
    return difference(p, backend, "1f1b", CASES[:1])


def test_a_pipeline_is_what_one_rank_is():
    (row,) = verify({"1f1b": Held(None, axis="pp", measure=one_case)}, ["local"], [2])
    assert row["ok"] and (row["layout"], row["ranks"]) == ("pp=2", 2)


@pytest.mark.parametrize("forgotten", ["share", "draw"])
def test_a_mistake_is_found(forgotten, monkeypatch):
    """Every micro-batch counts as the whole batch; or nothing is dropped."""
    compute = StageRun.compute

    def wrong(self, x, m, c):
        other = {"share": 1.0, "draw": None}[forgotten]
        self.parts = [part._replace(**{forgotten: other}) for part in self.parts]
        return compute(self, x, m, c)

    monkeypatch.setattr(StageRun, "compute", wrong)
    found = difference(2, "local", "1f1b", CASES[:1])
    assert found.error > 1e-6 and "momentum: " in found.where


def test_the_model_has_what_goes_wrong():
    """Dropout, weights on both ends, a number of rows that micro-batches do not divide."""
    first, *_, last = gpt().pieces()
    assert gpt().dropout.p > 0 and first.parts[0].weight.shape == last.parts[1].weight.shape
    assert ROWS % 2 == 1 and len(batch(0)[0]) == ROWS
    assert len(train_alone(CASES[0])["losses"]) == 10
