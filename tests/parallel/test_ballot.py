import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.events import recording
from minipar.parallel.ballot import Ballot, with_room
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.buckets import lay_out
from minipar.tensor import Tensor


def test_room_is_at_the_end_of_the_last_bucket():
    tensors = [Tensor(np.zeros(n, np.float32), True) for n in (3, 4)]
    layout, place = with_room(lay_out(tensors, 16), 5)
    assert layout.buckets == [(4, np.float32), (8, np.float32)] and place == (1, 3, 8)


@pytest.mark.parametrize("parameters", [[], [Tensor(np.zeros(3, np.float16), True)]])
def test_room_is_in_a_bucket_of_its_own_where_there_is_none_that_can_count(parameters):
    layout, place = with_room(lay_out(parameters, 16), 5)
    assert layout.buckets[-1] == (5, np.float32) and place == (len(layout.buckets) - 1, 0, 5)


def test_all_ranks_count_the_same():
    def work(group):
        named = [(name, Tensor(np.zeros(2), True)) for name in "ab"]
        numbers = np.full(5, np.nan)
        ballot = Ballot(numbers, named, group)
        ballot.fill([1, 5, 2][group.rank], [True, group.rank == 2])
        group.all_reduce(numbers, out=numbers)
        shares = ballot.count()
        ballot.fill(1, [True, False])
        group.all_reduce(numbers, out=numbers)
        with pytest.raises(UsageError, match="b has no gradient on any rank"):
            ballot.count()
        return shares.tolist(), numbers.tolist()

    assert minipar.run(work, 3) == [([0.125, 0.625, 0.25], [1, 1, 1, 3, 0])] * 3


def test_the_mean_is_right_when_the_number_of_rows_changes_from_step_to_step():
    rows = [(2, 6), (2, 6), (3, 1), (0, 5), (2, 2), (2, 2)]

    def work(group):
        x = Tensor(np.zeros(3), True)
        model = minipar.nn.Module()
        model.x = x
        parallel, found = BucketedDataParallel(model, group), []
        for pair in rows:
            x.grad = np.full(3, 1.0 + 10 * group.rank)
            with recording() as log:
                parallel.sync_gradients(pair[group.rank])
            found.append((x.grad[0], sum(event.op == "all_gather" for event in log)))
        with pytest.raises(UsageError, match=r"\[0.0, 0.0\] rows"):
            parallel.sync_gradients(0)
        x.grad = np.full(3, 1.0 + 10 * group.rank)
        parallel.sync_gradients(2)  # and it can go on
        return [*found, (x.grad[0], 0)]

    expected = [(1 * a + 11 * b) / (a + b) for a, b in [*rows, (2, 2)]]
    for found in minipar.run(work, 2):
        assert np.abs(np.array(found)[:, 0] - expected).max() < 1e-14
        assert all(gathers == 0 for _, gathers in found)
