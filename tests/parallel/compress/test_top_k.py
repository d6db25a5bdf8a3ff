"""Top-k sends the largest, keeps the rest, and loses nothing."""

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import UsageError
from minipar.events import recording
from minipar.parallel.compress import TopK


def test_by_hand_the_largest_go_and_what_is_left_comes_in_time():
    """One of three numbers a step: 3, then 1 + 1 + 1 of the waiting ones."""

    def work(group):
        how, seen = TopK(keep=0.3), []
        for _ in range(4):
            x = [np.array([3.0, 1.0 if group.rank == 0 else 0.0, -2.0])]
            how.add_up(x, group)
            seen.append(x[0].tolist())
        return seen, how.error.tolist()

    (seen, error), (_, other) = minipar.run(work, 2)
    assert seen == [[6, 0, 0], [0, 0, -8], [12, 0, 0], [0, 0, -8]]
    assert (error, other) == ([3, 4, 0], [3, 0, 0])


@pytest.mark.parametrize("p", [1, 3])
def test_what_was_sent_and_what_is_kept_add_up_to_all_gradients(p):
    def work(group):
        how, dice, given, sent = TopK(0.05), np.random.default_rng(group.rank), 0, 0
        for _ in range(20):
            x = [dice.normal(size=(10, 9)), dice.normal(size=10)]
            given = given + np.concatenate([a.reshape(-1) for a in x])
            how.add_up(x, group)
            sent = sent + np.concatenate([a.reshape(-1) for a in x])
        return given, sent, how.error

    ends = minipar.run(work, p)
    given, kept = (sum(end[i] for end in ends) for i in (0, 2))
    for _, sent, _ in ends:
        assert np.abs(sent + kept - given).max() < 1e-12
        assert (sent == ends[0][1]).all()


@pytest.mark.parametrize("p", [1, 2, 4])
def test_the_bytes_are_those_of_the_formula(p):
    def work(group):
        x = [np.random.default_rng(group.rank).normal(size=990).astype("float32")]
        with recording() as log:
            TopK(0.01).add_up(x, group)
        return sum(event.nbytes for event in log)

    assert sum(minipar.run(work, p)) / p == cost.top_k_bytes(p, 10, itemsize=4)  # 9.9 are 10


def test_a_share_is_above_0_and_at_most_1():
    for keep in (0, 1.5):
        with pytest.raises(UsageError, match=f"not {keep}"):
            TopK(keep)
