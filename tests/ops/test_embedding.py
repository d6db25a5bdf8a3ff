import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.ops import embedding
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
