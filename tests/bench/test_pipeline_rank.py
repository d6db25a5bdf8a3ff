"""Stages train together, and what they measure is given to the simulator."""

import pytest

import minipar
from minipar.bench.pipeline_rank import MICROS, PIPELINES, PipelineRank
from minipar.bench.rank_worker import timed
from minipar.bench.workloads import WORKLOADS


@pytest.mark.parametrize("schedule", PIPELINES)
def test_stages_have_one_batch_and_say_how_long_it_should_take(schedule):
    def work(group):
        rank = PipelineRank(WORKLOADS["shallow"], schedule, group)
        x, _ = rank.batch(0)
        answer = timed(rank, range(2))
        return x, answer

    (x, answer), (x_1, _) = minipar.run(work, 2)
    assert (x == x_1).all() and answer["simulated"] > 0
    assert len(answer["step_ms"]) == 2 and 0 < answer["comm_ms"] < sum(answer["step_ms"])


def test_what_is_simulated_are_the_medians_of_the_actions():
    """Of 1 and 2 ms on two stages: GPipe takes (m + 1) · 3 ms, and was measured at 3 times that."""

    def work(group):
        rank = PipelineRank(WORKLOADS["shallow"], "gpipe", group)
        rank.took.update(F=[1.0, 1.0, 9.0], B=[2.0, 2.0, 9.0])
        rank.times = [3 * (MICROS + 1) * 3.0]
        return rank.more(), rank.times

    for found, left in minipar.run(work, 2):
        assert found["simulated"] == pytest.approx(3) and left == []


def test_the_workloads_of_pipelines_can_be_cut():
    for name, work in WORKLOADS.items():
        assert len(work.model(minipar.Init(), **work.sizes).pieces()) >= 3, name
