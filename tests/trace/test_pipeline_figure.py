"""Pipelines from a trace in virtual time: bubbles are those of the formulas."""

from fractions import Fraction

import numpy as np
import pytest

from minipar import Cluster, cost
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.ops import mse, mul
from minipar.parallel.mesh import Mesh
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.random import Draw
from minipar.tensor import Tensor
from minipar.trace.pipeline_figure import bubbles, draw_pipeline, rows_of, timeline_of
from minipar.trace.trace_file import Trace
from minipar.trace.traced import takes, traced
from tests.trace.test_totals import TRACE


class Scale(Module):
    def __init__(self):
        self.weight = Tensor(np.ones(3, np.float32), requires_grad=True)

    def __call__(self, x, draw=None):
        return mul(x, self.weight)


class Chain(Module):
    def __init__(self, n):
        self.layers = [Scale() for _ in range(n)]
        takes(self.layers, 2e-3, 3e-3)

    def pieces(self):
        return self.layers


def pipeline(schedule, stages, micros, dp=1):
    """The trace of a step of stages that take the same time, on links that take none."""

    def work(group):
        mesh = Mesh(group, dp=dp, pp=stages)
        pipe = Pipeline(Chain(stages), mesh.pp, mse, schedule)
        x = np.ones((micros, 3), np.float32)
        pipe.train(micro_batches(Tensor(x), x, Draw(0, 0, range(micros)), micros))

    return traced(work, dp * stages, cluster=Cluster(0, 0, 0))[1]


@pytest.mark.parametrize(("stages", "micros"), [(2, 3), (4, 8)])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_the_bubble_of_each_stage_is_that_of_the_formula(schedule, stages, micros):
    trace = pipeline(schedule, stages, micros)
    timeline = timeline_of(trace, range(stages), 0, trace.end)
    share = Fraction(stages - 1, micros + stages - 1)
    for found in (timeline.bubble, *bubbles(timeline)):
        assert found == pytest.approx(float(share), abs=1e-12)
    assert timeline.peaks == cost.of_schedule(schedule, stages, micros, 1)[1]


def test_replicas_stand_below_each_other():
    trace = pipeline("1f1b", 2, 2, dp=2)
    assert rows_of(trace) == [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 3)]
    (axes,) = draw_pipeline(trace, 0, trace.end, "mine").axes
    assert axes.get_title(loc="left") == "mine: 33.3% bubble"
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"replica {r}, stage {s}" for r in (0, 1) for s in (0, 1)]
    assert "bubble 33.3%" in {text.get_text().strip() for text in axes.texts}


def test_of_ranks_with_slices_of_a_stage_the_first_stands_for_all():
    groups = {
        n: {1: ("tp", (n // 2 * 2, n // 2 * 2 + 1)), 2: ("pp", (n % 2, n % 2 + 2))}
        for n in range(4)
    }
    (rank,) = TRACE.ranks
    ranks = [rank._replace(rank=n, groups=groups[n]) for n in range(4)]
    assert rows_of(Trace("local", True, ranks, 0)) == [(0, 0, 0), (0, 1, 2)]


def test_what_is_no_pipeline_cannot_be_drawn():
    with pytest.raises(UsageError, match="no rank of this trace was a stage of a pipeline"):
        draw_pipeline(TRACE, 0, 100)
