import numpy as np

from minipar.nn import Block
from minipar.nn.transformer import stack_of_blocks
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from minipar.testing.gradcheck import gradcheck

X = np.random.default_rng(0).normal(size=(2, 5, 8))


def block(causal, dropout=0.0):
    return Block(Init(0, np.float64) / "b", 8, 2, dropout, 0.3, causal)


def test_only_a_causal_block_hides_the_future():
    changed = X.copy()
    changed[:, 3, 0] += 1
    for causal in (True, False):
        moved = np.abs(block(causal)(Tensor(X)).data - block(causal)(Tensor(changed)).data)
        assert (moved[:, :3].max() == 0) == causal
        assert (moved[:, 3:].max(axis=2) > 0).all()


def test_a_block_that_sees_all_positions_does_not_care_for_their_order():
    order = np.array([3, 0, 4, 1, 2])
    shuffled = block(causal=False)(Tensor(X[:, order])).data
    np.testing.assert_allclose(shuffled, block(causal=False)(Tensor(X)).data[:, order], rtol=1e-10)


def test_gradients():
    for causal in (True, False):
        gradcheck(block(causal), X)


def test_branches_that_give_nothing_leave_the_sum_alone():
    silent = block(causal=True)
    for layer in (silent.attention.out, silent.mlp.down):
        layer.weight.data[...] = 0
    assert (silent(Tensor(X)).data == X).all()


def test_dropout_falls_on_both_branches():
    names = [part.dropout.name for part in (block(True).attention, block(True).mlp)]
    assert names == ["b.attention.dropout", "b.mlp.dropout"]
    draw = Draw(0, 0, range(2))
    assert (block(True, 0.5)(Tensor(X), draw).data != block(True)(Tensor(X)).data).any()


def test_a_stack_begins_with_the_variance_of_one_block():
    for layers in (1, 8):
        blocks = stack_of_blocks(Init(0, np.float64) / "s", layers, 32, 4, 0.0, causal=False)
        stds = [b.mlp.down.weight.data.std() * (2 * layers) ** 0.5 for b in blocks]
        np.testing.assert_allclose(stds, 0.02, rtol=0.05)
        assert not any(b.attention.causal for b in blocks)
