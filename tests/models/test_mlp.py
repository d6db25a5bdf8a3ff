import numpy as np

from minipar.models import MLP
from minipar.models.mlp import windows
from minipar.ops import cross_entropy
from minipar.random import Draw, Init

IDX = np.random.default_rng(0).integers(1, 20, size=(3, 6))


def mlp(dropout: float = 0.0) -> MLP:
    init = Init(0, np.float64)
    return MLP(init, vocab=20, context=4, d=5, hidden=(8, 7), dropout=dropout)


def test_windows_end_at_their_position_and_begin_with_zeros():
    assert windows(np.array([[1, 2, 3]]), 2).tolist() == [[[0, 1], [1, 2], [2, 3]]]
    assert windows(np.array([[1, 2]]), 4).tolist() == [[[0, 0, 0, 1], [0, 0, 1, 2]]]


def test_each_position_is_a_network_on_its_last_tokens():
    model = mlp()
    w = {name: x.data for name, x in model.named_parameters()}
    for i in range(3):
        for t in range(6):
            seen = ([0, 0, 0, *IDX[i]])[t : t + 4]
            x = np.concatenate([w["token.weight"][token] for token in seen])
            x = np.tanh(x @ w["layers.0.weight"] + w["layers.0.bias"])
            x = np.tanh(x @ w["layers.1.weight"] + w["layers.1.bias"])
            expected = x @ w["out.weight"] + w["out.bias"]
            np.testing.assert_allclose(model(IDX).data[i, t], expected, rtol=1e-10)


def test_init_paths_are_attribute_paths():
    init = Init(0, np.float64)
    stds = {"token.weight": 1.0, "out.weight": 0.02}
    stds |= {"layers.0.weight": 20**-0.5, "layers.1.weight": 8**-0.5}
    for name, x in mlp().named_parameters():
        if name.endswith("weight"):
            assert (x.data == init.normal(name, x.shape, stds[name])).all(), name


def test_all_parameters_learn_and_dropout_needs_a_draw():
    model = mlp(dropout=0.5)
    assert (model(IDX).data == mlp()(IDX).data).all()
    assert (model(IDX, Draw(0, 0, range(3))).data != mlp()(IDX).data).any()
    cross_entropy(model(IDX), IDX).backward()
    assert all(x.grad is not None for x in model.parameters())
