import tracemalloc

import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.ops import embedding
from minipar.optim import SGD, clip_grad_norm
from minipar.sparse import RowGradient
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

W = np.random.default_rng(0).normal(size=(6, 3))


@pytest.mark.parametrize("ids", [[0], [5, 5, 5], [[1, 0], [1, 4]], np.zeros((0, 2), int)])
def test_rows_are_picked_and_their_gradients_added_up(ids):
    ids = np.array(ids)
    z = embedding(Tensor(W), ids)
    assert z.shape == (*ids.shape, 3) and (z.data == W[ids]).all()
    gradcheck(lambda w: embedding(w, ids), W)
    gradcheck(lambda w: embedding(w, Tensor(ids)), W)


def test_many_repetitions_are_a_product_with_one_hot_rows():
    ids = np.random.default_rng(1).integers(0, 5, size=1000)  # id 5 is absent
    w, dz = Tensor(W, requires_grad=True), np.random.default_rng(2).normal(size=(1000, 3))
    embedding(w, ids).backward(dz)
    np.testing.assert_allclose(w.grad, np.eye(6)[ids].T @ dz, atol=1e-12)


@pytest.mark.parametrize("ids", [[6], [-1]])
def test_ids_out_of_the_table_are_named(ids):
    with pytest.raises(ShapeMismatch, match=f"{ids[0]}.*6 rows"):
        embedding(Tensor(W), np.array(ids))


def test_ids_must_be_integers():
    with pytest.raises(ShapeMismatch, match="integers"):
        embedding(Tensor(W), np.ones(2))


@pytest.mark.parametrize("ids", [[0], [5, 5, 5], [[1, 0], [1, 4]], np.zeros((0, 2), int)])
def test_a_sparse_gradient_is_the_dense_one(ids):
    ids = np.array(ids)
    dz = np.random.default_rng(3).normal(size=(*ids.shape, 3))
    dense, rows = Tensor(W, requires_grad=True), Tensor(W, requires_grad=True)
    embedding(dense, ids).backward(dz)
    embedding(rows, ids, sparse=True).backward(dz)
    assert isinstance(rows.grad, RowGradient) and (rows.grad.dense() == dense.grad).all()
    assert len(rows.grad.ids) == len(np.unique(ids))


def test_a_sparse_gradient_costs_what_was_touched_and_not_the_table():
    w = Tensor(np.zeros((10_000_000, 8), np.float32), requires_grad=True)  # 320 MB, never touched
    optimizer = SGD([("w", w)], lr=0.5)
    ids = len(w) - 1 - np.random.default_rng(0).integers(0, 20_000, 500)
    tracemalloc.start()
    (embedding(w, ids, sparse=True) * 2.0).sum().backward()
    clip_grad_norm([w], 1e9)
    optimizer.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 500 * 8 * 4  # some copies of the rows
    rest = np.setdiff1d(np.arange(len(w) - 20_000, len(w)), ids)
    counts = np.unique(ids, return_counts=True)[1]
    assert (w.data[np.unique(ids)] == -counts[:, None]).all() and (w.data[rest] == 0).all()


def test_a_sparse_gradient_needs_a_leaf():
    w = Tensor(W, requires_grad=True)
    with pytest.raises(UsageError, match="must be a leaf"):
        embedding(w * 2, np.array([0]), sparse=True)
    assert embedding(Tensor(W) * 2, np.array([0]), sparse=True).shape == (1, 3)  # no gradient


def test_ids_may_be_lists_and_words_are_refused():
    assert np.array_equal(embedding(Tensor(W), [1, 0]).data, W[[1, 0]])
    with pytest.raises(ShapeMismatch, match="must be integers"):
        embedding(Tensor(W), ["one", "two"])
