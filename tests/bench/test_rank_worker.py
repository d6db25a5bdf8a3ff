import numpy as np
import pytest

import minipar
from minipar.bench.rank_worker import STRATEGIES, TENSOR, MiniparRank, TensorRank, epoch, timed
from minipar.bench.workloads import WORKLOADS


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_train_on_other_batches_and_keep_the_same_weights(strategy):
    def work(group):
        rank = MiniparRank(WORKLOADS["shallow"], strategy, group)
        x, _ = rank.batch(0)
        answer = timed(rank, range(2))
        with rank.parallel.whole() as model:
            return x, model.state_dict(), answer

    (x, state, answer), (x_1, state_1, _) = minipar.run(work, 2)
    assert (x != x_1).any() and all((state[n] == state_1[n]).all() for n in state)
    assert len(answer["step_ms"]) == 2 and 0 < answer["comm_ms"] < sum(answer["step_ms"])
    assert 0 <= answer["wait_ms"] <= answer["comm_ms"]
    assert np.isfinite(state["layers.0.weight"]).all()


@pytest.mark.parametrize("strategy", TENSOR)
def test_ranks_that_share_the_matrices_train_on_one_batch(strategy):
    def work(group):
        small = WORKLOADS["gpt-128"]
        sizes = {**small.sizes, "layers": 1, "d": 8, "heads": 2}
        rank = TensorRank(small._replace(sizes=sizes), strategy, group)
        x, _ = rank.batch(0)
        answer = timed(rank, range(2))
        return x, rank.model.state_dict(), answer

    (x, state, answer), (x_1, state_1, _) = minipar.run(work, 2)
    assert (x == x_1).all()
    assert (state["token.weight"] != state_1["token.weight"]).any()
    norm, norm_1 = state["norm.weight"], state_1["norm.weight"]
    assert (norm == norm_1).all() and np.isfinite(norm).all()
    assert len(answer["step_ms"]) == 2 and answer["comm_ms"] > 0


def test_an_epoch_takes_every_row_of_this_rank_once():
    class Fake:
        work, rank, ranks, seen = WORKLOADS["shallow"], 1, 2, []

        def given(self, array):
            return array

        def step(self, x, y):
            self.seen.append(len(y))

    answer = epoch(Fake(), 301, seed=0)
    assert Fake.seen == [64, 64, 22] and answer["steps"] == 3


def test_what_went_by_before_the_last_rank_came_is_waiting():
    def work(group):
        rank = MiniparRank(WORKLOADS["shallow"], "dp", group)
        calls = [[(10, 40), (50, 70)], [(15, 45), (45, 60)]][group.rank]
        return rank.waited_ns(np.array(calls))

    assert minipar.run(work, 2) == [5, 5]
