import numpy as np
import pytest

from minipar.errors import ShapeMismatch
from minipar.models import WideDeep
from minipar.ops import binary_cross_entropy_with_logits as bce
from minipar.optim import Adagrad
from minipar.random import Draw, Init
from minipar.sparse import RowGradient

TABLES, NUMBERS, B = (4, 9, 6), 2, 5
DICE = np.random.default_rng(0)
X = (DICE.normal(size=(B, NUMBERS)), DICE.integers(0, TABLES, size=(B, 3)))
Y = np.array([0.0, 1.0, 1.0, 0.0, 1.0])


def wide_deep(sparse=True, dropout=0.0, dtype=np.float64):
    return WideDeep(Init(0, dtype), TABLES, NUMBERS, 3, (7, 5), dropout, sparse)


def test_each_row_is_a_linear_model_plus_a_network():
    model = wide_deep()
    for n, x in enumerate(model.parameters()):
        x.data += np.random.default_rng(n).normal(size=x.shape) * 0.3
    w = model.state_dict()
    logits = model(X).data
    assert logits.shape == (B,)
    for dense, ids, found in zip(*X, logits):
        rows = [sum(TABLES[:n]) + i for n, i in enumerate(ids)]
        wide = sum(w["wide.weight"][row, 0] for row in rows)
        wide += dense @ w["linear.weight"][:, 0] + w["linear.bias"][0]
        h = np.concatenate([*(w["deep.weight"][row] for row in rows), dense])
        for n in range(2):
            h = np.maximum(h @ w[f"layers.{n}.weight"] + w[f"layers.{n}.bias"], 0)
        assert found == pytest.approx(wide + h @ w["out.weight"][:, 0], rel=1e-9)


def test_its_size_is_the_formula_of_the_docs():
    n, f, k, d = sum(TABLES), 3, NUMBERS, 3
    size = n * (1 + d) + k + 1 + ((f * d + k) * 7 + 7) + (7 * 5 + 5) + 5
    assert sum(x.data.size for x in wide_deep().parameters()) == size


def test_the_gradients_of_the_tables_hold_the_rows_of_the_batch():
    sparse, dense = wide_deep(), wide_deep(sparse=False)
    for model in (sparse, dense):
        bce(model(X), Y).backward()
    rows = np.unique(X[1] + [0, 4, 13])
    for name in ("wide", "deep"):
        grad = getattr(sparse, name).weight.grad
        assert isinstance(grad, RowGradient) and (grad.ids == rows).all()
        assert (grad.dense() == getattr(dense, name).weight.grad).all()


def test_sparse_training_is_dense_training():
    ends = []
    for sparse in (True, False):
        model = wide_deep(sparse)
        optimizer = Adagrad(model.named_parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            bce(model(X), Y).backward()
            optimizer.step()
        ends.append(model.state_dict())
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])


def clicks(n):
    """x, clicks and their true probabilities, in which the first two ids also count as a pair."""
    dice = np.random.default_rng(1)
    dense, ids = dice.normal(size=(n, 2)).astype(np.float32), dice.integers(0, TABLES, (n, 3))
    logit = dense @ [0.7, -0.4] + dice.normal(size=TABLES[:2])[ids[:, 0], ids[:, 1]]
    for field, count in enumerate(TABLES):
        logit += dice.normal(size=count)[ids[:, field]]
    p = 1 / (1 + np.exp(-logit))
    return (dense, ids), (dice.uniform(size=n) < p).astype(np.float32), p


def excess_over_the_best(hidden, seen=20_000, batch=500):
    """How far the expected loss on unseen rows is above the lowest possible, after 160 steps."""
    (dense, ids), y, p = clicks(seen + 2000)
    model = WideDeep(Init(0), TABLES, NUMBERS, d=4, hidden=hidden)
    optimizer = Adagrad(model.named_parameters(), lr=0.2)
    for step in range(160):
        rows = slice(step * batch % seen, step * batch % seen + batch)
        optimizer.zero_grad()
        bce(model((dense[rows], ids[rows])), y[rows]).backward()
        optimizer.step()
    q = 1 / (1 + np.exp(-model((dense[seen:], ids[seen:])).data.astype(np.float64)))
    p = p[seen:]
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()


def test_it_comes_near_the_best_loss_there_is_if_it_is_deep():
    deep, shallow = excess_over_the_best((32, 16)), excess_over_the_best((1,))
    assert 0 < deep < 0.012  # nats; the best loss is about 0.43
    assert shallow > 0.017  # it remembers the ids, not the pairs


def test_dropout_needs_a_draw():
    dropping = wide_deep(dropout=0.5)
    assert dropping.dropout.name == "dropout"
    assert (dropping(X).data == wide_deep()(X).data).all()
    assert (dropping(X, Draw(0, 0, range(B))).data != wide_deep()(X).data).any()


def test_ids_of_another_field_are_not_taken_for_ones_own():
    dense, ids = X
    for bad in (4, -1):  # row 4 of the common table exists: it is the next field's
        wrong = ids.copy()
        wrong[2, 0] = bad
        with pytest.raises(ShapeMismatch, match=r"\[4, 9, 6\] ids"):
            wide_deep()((dense, wrong))
    with pytest.raises(ShapeMismatch, match="3 fields"):
        wide_deep()((dense, ids[:, :2]))


@pytest.mark.parametrize(("tables", "numbers"), [((4, 9), 0), ((), 3)])
def test_a_table_of_nothing_but_ids_or_numbers_is_learnt_too(tables, numbers):  # Avazu: only ids
    model = WideDeep(Init(0), tables, numbers, 3, (7,))
    ids = DICE.integers(0, tables or (1,), size=(B, max(len(tables), 1)))[:, : len(tables)]
    optimizer, losses = Adagrad(model.named_parameters(), lr=0.1), []
    for _ in range(20):
        loss = bce(model((X[0][:, :1].repeat(numbers, 1).astype("float32"), ids)), Y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05
