"""Parcels arrive as they were, for whom they were meant, whatever the order."""

import numpy as np
import pytest

import minipar
from minipar.comm.launch import run_threads
from minipar.comm.local import LocalWorld
from minipar.errors import UsageError
from minipar.parallel.parcel import LABEL_BYTES, Mail, leaves_of, mapped, slots_for
from minipar.tensor import Tensor

TREES = [
    Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True),
    np.arange(3),
    None,
    (),
    {"h": [Tensor(np.ones(2, np.float32)), (np.zeros((0, 2), bool), None)], "ids": np.ones(())},
    (Tensor(np.arange(6.0).reshape(2, 3).T, requires_grad=True), {}),
]


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.requires_grad is b.requires_grad and same(a.data, b.data)
    if a is None:
        return b is None
    return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())


def travel(group):
    mail = Mail(group)
    if group.rank == 0:
        for m, tree in enumerate(TREES):
            mail.post(1, ("F", m, 0), tree)
        mail.finish()
        return None
    return [mail.take(0, ("F", m, 0)) for m in range(len(TREES))]


@pytest.mark.parametrize("backend", ["local", pytest.param("process", marks=pytest.mark.slow)])
def test_any_tree_arrives_as_it_was(backend):
    arrived = minipar.run(travel, 2, backend=backend)[1]
    assert all(map(same, TREES, arrived))


def test_what_arrives_wants_a_gradient_and_has_no_history():
    def work(group):
        x = Tensor(np.ones(2), requires_grad=True)
        mail = Mail(group)
        mail.post(0, ("F", 0, 1), x + x)
        y = mail.take(0, ("F", 0, 1))
        y.backward(np.ones(2))
        return x.grad is None and (y.grad == 1).all()

    assert minipar.run(work, 1) == [True]


def test_what_comes_early_is_put_aside():
    def work(group):
        mail = Mail(group)
        if group.rank == 0:
            for key in [("F", 0, 0), ("B", 0, 0), ("F", 1, 0), ("F", 0, 1)]:
                mail.post(1, key, np.array(["FB".index(key[0]), *key[1:]]))
            return mail.finish()
        wanted = [("F", 0, 1), ("F", 1, 0), ("B", 0, 0), ("F", 0, 0)]
        return [mail.take(0, key).tolist() for key in wanted]

    assert minipar.run(work, 2)[1] == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_a_stage_is_no_more_than_one_parcel_of_a_kind_ahead():
    """On rendezvous, both begin with two sends; the third waits until the first is taken."""

    def work(group):
        mail, other, log = Mail(group), 1 - group.rank, []
        for m in range(2):
            mail.post(other, ("F", m, 0), np.full(2, m))
            log.append(m)
            mail.post(other, ("B", m, 0), np.full(2, m))
            if m == 0:
                mail.take(other, ("F", 0, 0))
                mail.take(other, ("B", 0, 0))
        mail.take(other, ("F", 1, 0))
        mail.take(other, ("B", 1, 0))
        mail.finish()
        return log

    results, failed = run_threads(work, 2, (), LocalWorld(2, buffer_bytes=0))
    assert failed is None and results == [[0, 1], [0, 1]]


def test_what_takes_too_many_words_is_refused():
    def work(group):
        Mail(group).post(1, ("F", 0, 0), [np.zeros(1)] * LABEL_BYTES)

    with pytest.raises(UsageError, match="concatenated"):
        minipar.run(work, 2)


def test_leaves_and_maps_of_trees():
    tree = {"a": (1, [2]), "b": {"c": 3}}
    assert list(leaves_of(tree)) == [1, 2, 3]
    assert mapped(lambda leaf: 2 * leaf, tree) == {"a": (2, [4]), "b": {"c": 6}}


def test_arrays_of_a_gpu_arrive_on_it(cupy):
    def work(group):
        mail = Mail(group, cupy)
        if group.rank == 0:
            mail.post(1, ("F", 0, 0), Tensor(cupy.ones((2, 3))))
            return mail.finish()
        return mail.take(0, ("F", 0, 0)).data

    arrived = minipar.run(work, 2)[1]
    assert isinstance(arrived, cupy.ndarray) and arrived.shape == (2, 3)


def through_slots(group):
    """Six parcels, of which two are under way at a time: what the receiver got, if it dawdles."""
    arrays = [(np.full(40_000, m + 0.5), np.full(3, m), np.full((2, 50_000), m)) for m in range(6)]
    mail = Mail(group, slots=slots_for(largest=320_000 + 800_000, group=group))
    if group.rank == 0:
        for m, tree in enumerate(arrays):
            mail.post(1, ("F", m, 0), tree)
            assert mail.largest == mail.slots.shape[-1]
        return mail.finish()
    return all(same(mail.take(0, ("F", m, 0)), tree) for m, tree in enumerate(arrays))


@pytest.mark.parametrize("backend", ["local", "process"])
def test_large_arrays_go_through_slots(backend):
    assert minipar.run(through_slots, 2, backend=backend)[1]


def test_what_has_no_room_in_a_slot_goes_as_it_is():
    def work(group):
        mail = Mail(group, slots=slots_for(64, group))
        if group.rank == 0:
            mail.post(1, ("F", 0, 0), np.ones(100_000))
            return mail.finish()
        return mail.take(0, ("F", 0, 0)).sum()

    assert minipar.run(work, 2)[1] == 100_000
