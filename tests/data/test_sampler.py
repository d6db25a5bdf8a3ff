import numpy as np
import pytest

from minipar.data.sampler import RESTS, Sampler
from minipar.errors import UsageError


def test_an_epoch_takes_every_example_at_most_once():
    sampler = Sampler(n=23, batch=4, seed=1)
    assert sampler.steps_per_epoch == 5  # three examples are left over
    seen = np.concatenate([sampler.indices(step) for step in range(5)])
    assert len(set(seen)) == 20 and set(seen) <= set(range(23))


def test_epochs_and_seeds_have_orders_of_their_own():
    first = [Sampler(40, 40, seed).indices(step).tolist() for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in first}) == 4


def test_a_step_is_a_function_of_its_number_alone():
    there, fresh = Sampler(30, 4), Sampler(30, 4)
    steps = [3, 17, 3, 0, 9]
    assert [there.indices(s).tolist() for s in steps] == [
        Sampler(30, 4).indices(s).tolist() for s in steps
    ]
    assert fresh.indices(17).tolist() == there.indices(17).tolist()


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_the_ranks_parts_make_up_the_batch(ranks):
    sampler = Sampler(100, 12)
    parts = [sampler.indices(9, rank, ranks) for rank in range(ranks)]
    assert np.concatenate(parts).tolist() == sampler.indices(9).tolist()
    rows = [i for rank in range(ranks) for i in sampler.rows(rank, ranks)]
    assert rows == list(range(12))


@pytest.mark.parametrize(("batch", "ranks", "near"), [(10, 4, "8 or 12"), (3, 4, "use 4")])
def test_a_batch_that_cannot_be_divided_names_ones_that_can(batch, ranks, near):
    with pytest.raises(UsageError, match=near):
        Sampler(100, batch).rows(0, ranks)


@pytest.mark.parametrize("batch", [0, 11])
def test_a_batch_must_fit_the_data(batch):
    with pytest.raises(UsageError, match="10 examples"):
        Sampler(10, batch)


def epoch_of(sampler, ranks, epoch=1):
    first = epoch * sampler.steps_per_epoch
    steps = range(first, first + sampler.steps_per_epoch)
    return [[sampler.indices(step, rank, ranks) for rank in range(ranks)] for step in steps]


def test_the_rest_of_an_epoch_is_dropped_padded_or_short():
    parts = {rest: epoch_of(Sampler(22, 6, rest=rest), 2) for rest in RESTS}
    flat = {rest: np.concatenate([np.concatenate(step) for step in parts[rest]]) for rest in RESTS}
    assert [len(flat[rest]) for rest in RESTS] == [18, 24, 22]
    assert (flat["drop"] == flat["short"][:18]).all()
    assert sorted(flat["short"]) == list(range(22))  # each once
    assert (flat["pad"] == np.concatenate([flat["short"], flat["short"][:2]])).all()
    assert [len(part) for part in parts["short"][-1]] == [2, 2]


def test_a_short_rest_is_dealt_to_ranks_unevenly_and_may_leave_some_without():
    last = epoch_of(Sampler(9, 8, rest="short"), 4)[-1]
    assert sorted(len(part) for part in last) == [0, 0, 0, 1]
    sampler = Sampler(13, 8, rest="short")
    rows = [sampler.rows(rank, 2, step=3) for rank in range(2)]
    assert [i for part in rows for i in part] == list(range(5))


@pytest.mark.parametrize("rest", RESTS)
def test_a_run_goes_on_in_the_middle_of_an_epoch(rest):
    whole = [Sampler(22, 6, seed=3, rest=rest).indices(step, 1, 2) for step in range(9)]
    one = Sampler(22, 6, seed=3, rest=rest)
    assert all((one.indices(step, 1, 2) == whole[step]).all() for step in range(9))
    resumed = Sampler(22, 6, seed=3, rest=rest)  # which knows nothing of steps 0 to 4
    assert all((resumed.indices(step, 1, 2) == whole[step]).all() for step in range(5, 9))
    assert (Sampler(22, 6, seed=3, rest=rest).indices(7, 1, 2) == whole[7]).all()


def test_another_word_for_the_rest_is_answered_with_the_known():
    with pytest.raises(UsageError, match="drop, pad, short"):
        Sampler(22, 6, rest="keep")
