"""The values of one server: updated in steps, never while they are being sent."""

import numpy as np
import pytest

from minipar.errors import PeerLost, ShapeMismatch, UsageError
from minipar.optim import SGD, Adagrad, Adam
from minipar.parallel.parameter_server.keys import shards_of
from minipar.parallel.parameter_server.store import Store, mean, norm_squared
from minipar.sparse import RowGradient
from tests.parallel.parameter_server.serving import Small

X, Y, TABLE = range(3)


def sgd(named):
    return SGD(named, lr=1.0)


def store_of(make=sgd):
    model = Small()
    return Store(shards_of(model, 1)[0], model, make), model


class Sending:
    """A send under way."""

    def __init__(self, over=False, lost=False):
        self.over, self.lost = over, lost

    def done(self):
        if self.lost:
            raise PeerLost("gone")
        return self.over


@pytest.mark.parametrize(
    "make",
    [
        lambda named: Adam(named, lr=0.1),
        lambda named: Adagrad(named, lr=0.1),
        lambda named: SGD(named, lr=0.1, momentum=0.9),
    ],
)
def test_an_update_is_a_step_of_the_optimizer(make):
    store, model = store_of(make)
    optimizer = make([("x", model.x), ("y", model.y)])
    dice = np.random.default_rng(0)
    for lr in (0.3, 0.2, 0.1):
        model.x.grad, model.y.grad = dice.normal(size=(3, 4)), dice.normal(size=5)
        store.update({X: 2 * model.x.grad, Y: 2 * model.y.grad}, lr, factor=0.5)
        optimizer.lr = lr
        optimizer.step()
    assert (store.tensors[X].data == model.x.data).all()
    assert (store.tensors[Y].data == model.y.data).all()
    mine = store.optimizer.state_dict()
    assert all((mine[name] == array).all() for name, array in optimizer.state_dict().items())


def test_versions_count_the_updates_of_each_key():
    store, _ = store_of()
    store.update({X: np.ones((3, 4))}, 1.0)
    store.update(
        {X: np.ones((3, 4)), TABLE: RowGradient(np.array([3]), np.ones((1, 2)), (12, 2))}, 1.0
    )
    assert store.versions.tolist() == [2, 0, 1]
    assert store.updates == 2
    assert (store.tensors[TABLE].data[:, 0] == [0, 1, 2, 2, *range(4, 12)]).all()


def test_what_is_being_sent_is_not_written_to():
    store, _ = store_of()
    arrays = []
    for sending in (Sending(), Sending(over=True), Sending(lost=True)):
        arrays.append(store.tensors[X].data)
        store.lend(X, sending)
        store.update({X: np.ones((3, 4))}, 1.0)
    assert [a[0, 0] for a in arrays] == [0, -3, -3]  # the second and third are the same, and free
    assert store.tensors[X].data is arrays[2]


def test_a_mean_is_weighted_by_rows_and_leaves_out_what_nobody_has():
    rows = RowGradient(np.array([1, 3]), np.ones((2, 2)), (12, 2))
    more = RowGradient(np.array([3, 4]), np.full((2, 2), 5.0), (12, 2))
    found = mean([(1.0, {X: np.full(2, 8.0), TABLE: rows}), (3.0, {TABLE: more})])
    assert found.keys() == {X, TABLE}
    assert found[X].tolist() == [2, 2]
    assert found[TABLE].ids.tolist() == [1, 3, 4]
    assert found[TABLE].rows[:, 0].tolist() == [0.25, 4.0, 3.75]
    assert norm_squared({X: np.array([3.0, 4.0])}) == 25
    assert mean([]) == {}


def test_state_goes_round_and_what_does_not_fit_changes_nothing():
    store, _ = store_of(lambda named: SGD(named, lr=1.0, momentum=0.5))
    store.update({X: np.ones((3, 4))}, 1.0)
    state = store.state()
    assert len(state) == 3
    other, _ = store_of(lambda named: SGD(named, lr=1.0, momentum=0.5))
    with pytest.raises(UsageError, match="2 arrays came, 3 are kept"):
        other.put_state(state[:2], 1)
    with pytest.raises(ShapeMismatch):
        other.put_state(state[::-1], 1)
    assert not any(a.any() for a in other.state())
    other.put_state(state, 1)
    assert all((a == b).all() for a, b in zip(other.state(), state))
    assert other.optimizer.steps == 1


def test_values_can_be_put_whole_or_by_rows():
    store, _ = store_of()
    store.put(
        {X: np.full((3, 4), 7.0), TABLE: RowGradient(np.array([2]), np.full((1, 2), 9.0), (12, 2))}
    )
    assert (store.tensors[X].data == 7).all()
    assert store.tensors[TABLE].data[:4, 0].tolist() == [0, 1, 9, 3]
