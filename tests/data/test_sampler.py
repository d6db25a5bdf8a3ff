import numpy as np
import pytest

from minipar.data.sampler import Sampler
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
