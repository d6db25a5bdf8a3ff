"""The loss of shards of logits is that of all logits, forward and backward."""

import numpy as np
import pytest

import minipar
from minipar.errors import ShapeMismatch, UsageError
from minipar.events import recording
from minipar.ops import cross_entropy
from minipar.parallel.vocab_loss import vocab_parallel_cross_entropy
from minipar.tensor import Tensor

V, N = 17, 12
OPTIONS = (
    {},
    {"ignore_index": -100},
    {"label_smoothing": 0.1},
    {"ignore_index": 3, "label_smoothing": 0.2},
)


def targets(**options):
    """Each class is one, that of every rank; some are ignored."""
    y = np.random.default_rng(1).permutation(V)[:N].reshape(3, 4)
    if "ignore_index" in options:
        y[0, :3] = options["ignore_index"]
    return y


def padded(logits, p):
    """With nonsense where there is no class."""
    k = -(-V // p)
    more = np.full((*logits.shape[:-1], p * k - V), 1e30, logits.dtype)
    return np.concatenate([logits, more], axis=-1), k


def on_many(group, logits, y, options):
    everything, k = padded(logits, group.size)
    mine = slice(group.rank * k, (group.rank + 1) * k)
    x = Tensor(everything[..., mine].copy(), requires_grad=True)
    with recording() as log:
        loss = vocab_parallel_cross_entropy(x, y, group, V, **options)
        (loss * 2).backward()
    whole = np.concatenate(list(group.all_gather(x.grad)), axis=-1)
    return loss.data, whole, sum(e.nbytes for e in log)


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("p", [1, 2, 3, 8])
def test_it_is_the_cross_entropy_of_all_logits(p, options, scale):
    logits = scale * np.random.default_rng(0).choice([-1.0, 0.3, 1.0], size=(3, 4, V))
    y = targets(**options)
    x = Tensor(logits, requires_grad=True)
    loss = cross_entropy(x, y, **options)
    (loss * 2).backward()
    for found, grad, _ in minipar.run(on_many, p, args=(logits, y, options)):
        assert found == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(grad[..., :V], x.grad, rtol=0, atol=1e-14)
        assert (grad[..., V:] == 0).all()


def test_the_logits_are_not_sent():
    logits = np.zeros((3, 4, V))
    for _, _, sent in minipar.run(on_many, 2, args=(logits, targets(), {})):
        assert sent == 3 * N * 8  # a maximum; a sum and the target's logit


def test_a_loss_in_float32_stays_there():
    logits = np.ones((3, 4, V), np.float32)
    for options in OPTIONS:
        for loss, grad, _ in minipar.run(on_many, 3, args=(logits, targets(**options), options)):
            assert loss.dtype == grad.dtype == np.float32


@pytest.mark.parametrize(
    ("y", "options", "vocab", "error", "said"),
    [
        (np.full((3, 4), V), {}, V, ShapeMismatch, "17 classes, but a target is 17"),
        (np.full((3, 4), -1), {}, V, ShapeMismatch, "a target is -1"),
        (np.full((3, 4), -1), {"ignore_index": -1}, V, ShapeMismatch, "all 12 targets are"),
        (np.zeros((3, 4)), {}, V, ShapeMismatch, "must be integers"),
        (np.zeros((3, 5), int), {}, V, ShapeMismatch, "one for each row"),
        (np.zeros((3, 4), int), {}, 40, ShapeMismatch, "fewer than 40 classes"),
        (np.zeros((3, 4), int), {"label_smoothing": 1.0}, V, UsageError, "0 <= ε < 1"),
    ],
)
def test_what_cannot_be_is_refused(y, options, vocab, error, said):
    def work(group):
        vocab_parallel_cross_entropy(Tensor(np.zeros((3, 4, 9))), y, group, vocab, **options)

    with pytest.raises(error, match=said):
        minipar.run(work, 2)
