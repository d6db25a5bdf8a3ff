"""Mixed precision: float32 masters, 16 bits in between, and the scale of float16."""

import math
from pathlib import Path

import numpy as np
import pytest

import minipar
from minipar.config import Config
from minipar.errors import Diverged, UsageError
from minipar.models import GPT, ResNet
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy
from minipar.optim import SGD, AdamW, clip_grad_norm
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.mixed import LossScale, MixedPrecision, half_dtype
from minipar.random import Draw, Init
from minipar.run_folder import RunFolder
from minipar.tensor import Tensor
from minipar.training import Trainer
from tests.ops.test_half import half  # noqa: F401

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2])
B1, B2, LR, EPS, DECAY = 0.9, 0.999, 0.1, 1e-8, 0.01  # of AdamW


class Net(Module):
    def __init__(self):
        self.layer = Linear(Init(0) / "layer", 5, 3, std=0.5)

    def __call__(self, x):
        return self.layer(x)


def adamw(named):
    return AdamW(named, lr=LR)


def loss_of(model):
    return cross_entropy(model(Tensor(X.astype(model.layer.weight.dtype))), Y)


def emulated(dtype, steps):
    """The same training in NumPy: two masters in float32, the rest by hand."""

    def rounded(a):
        return a.astype(dtype).astype("float32")

    net = Net()
    w, b = net.layer.weight.data.copy(), net.layer.bias.data.copy()
    state = [np.zeros((2, *a.shape), "float32") for a in (w, b)]
    for n in range(1, steps + 1):
        x = rounded(X)
        logits = rounded(x @ rounded(w) + rounded(b))
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(6), Y] -= 1
        dz = rounded(p / 6)
        for a, g, (m, v) in zip((w, b), (rounded(x.T @ dz), rounded(dz.sum(axis=0))), state):
            m[...] = B1 * m + (1 - B1) * g
            v[...] = B2 * v + (1 - B2) * g * g
            a *= 1 - LR * DECAY
            a -= LR * (m / (1 - B1**n)) / (np.sqrt(v / (1 - B2**n)) + EPS)
    return w, b


@pytest.mark.parametrize("make", [DataParallel, BucketedDataParallel])
def test_its_steps_are_those_of_float32_masters(half, make):  # noqa: F811
    def train(group):
        model = Net()
        mixed = MixedPrecision(model, half)
        strategy = make(model, group, mixed.optimizer(adamw))
        for _ in range(4):
            strategy.zero_grad()
            (loss_of(model) * (mixed.scale.scale if mixed.scale else 1)).backward()
            strategy.sync_gradients()
            strategy.step()
        low = model.state_dict()
        with mixed.full():
            return low, model.state_dict()

    ((low, full),) = minipar.run(train, 1)
    for name, right in zip(("layer.weight", "layer.bias"), emulated(half, 4)):
        assert low[name].dtype == half and full[name].dtype == "float32"
        np.testing.assert_allclose(full[name], right, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(low[name], full[name].astype(half))


def test_a_change_too_small_for_16_bits_adds_up(half):  # noqa: F811
    model = Net()
    model.layer.weight.data[...] = 1
    mixed = MixedPrecision(model, half)
    mixed.scale = None
    optimizer = mixed.optimizer(lambda named: SGD(named, lr=1e-5))(model.named_parameters())
    for _ in range(1000):
        model.layer.weight.grad = np.ones((5, 3), half)
        optimizer.step()
    np.testing.assert_allclose(model.layer.weight.data.astype("float32"), 0.99, atol=2**-8)


def test_what_is_changed_inside_full_counts(half):  # noqa: F811
    model = Net()
    model.layer.bias.requires_grad = False  # it has no master
    mixed = MixedPrecision(model, half)
    optimizer = mixed.optimizer(adamw)(model.named_parameters())
    weight, bias = np.full((5, 3), 1 / 3, "float32"), np.full(3, 1 / 7, "float32")
    with mixed.full():
        model.load_state_dict({"layer.weight": weight, "layer.bias": bias})
    assert (optimizer.masters["layer.weight"].data == weight).all()
    assert (model.layer.weight.data == weight.astype(half)).all()
    assert (model.layer.bias.data == bias.astype(half)).all()


def test_replicas_that_begin_apart_get_the_masters_of_rank_0(half):  # noqa: F811
    def begin(group):
        model = Net()
        model.layer.weight.data += group.rank
        mixed = MixedPrecision(model, half)
        DataParallel(model, group, mixed.optimizer(adamw))
        with mixed.full():
            return model.layer.weight.data

    first, second = minipar.run(begin, 2)
    assert (first == Net().layer.weight.data).all()
    assert (second == first.astype(half)).all()  # it has seen no more of it


# -- the scale ---------------------------------------------------------------------------------


def test_the_scale_is_halved_by_overflow_and_doubled_after_good_steps():
    scale = LossScale(8.0, good_steps=3)
    assert [scale.holds(norm) for norm in (1.0, math.inf, 1.0, 1.0, math.nan)] == [
        *(True, False, True, True, False)
    ]
    assert scale.scale == 2
    assert all(scale.holds(1.0) for _ in range(3)) and scale.scale == 4
    other = LossScale()
    other.load(scale.state())
    assert other.state() == [4, 0]


def test_a_gradient_that_no_scale_helps_is_divergence():
    scale = LossScale()
    with pytest.raises(Diverged, match="smaller --lr, or bfloat16"):
        for _ in range(100):
            scale.holds(math.nan)
    assert scale.scale > 0


@pytest.mark.parametrize("scale", [1.0, 2.0**10])
def test_gradients_are_divided_by_the_scale_in_float32(scale):
    """A gradient of 2e-8 is none in float16; scaled by 1024 it is one."""
    model = Net()
    mixed = MixedPrecision(model, "float16")
    mixed.scale.scale = scale
    before = mixed.first[id(model.layer.weight)].copy()
    optimizer = mixed.optimizer(lambda named: SGD(named, lr=1e4))(model.named_parameters())
    (loss_of(model) * 0 + model.layer.weight.sum() * (2e-8 * scale)).backward()
    optimizer.step()
    moved = before - optimizer.masters["layer.weight"].data
    np.testing.assert_allclose(moved, 2e-4 if scale > 1 else 0, rtol=1e-2)


def test_the_square_of_a_float16_gradient_does_not_overflow():
    x = Tensor(np.zeros(4, "float16"), requires_grad=True)
    x.grad = np.full(4, 1000, "float16")
    assert clip_grad_norm([x], math.inf) == 2000


class Overflowing:
    """Passes whose gradient is inf on the last rank, in the second step."""

    def __init__(self, trainer, weights):
        self.trainer, self.passes, self.weights = trainer, trainer.passes, weights

    def train(self, parts):
        loss = self.passes.train(parts)
        if self.trainer.step == 1 and self.trainer.group.rank == self.trainer.group.size - 1:
            for x in self.weights:  # of which every rank has its own, or alike, under tp
                x.grad[...] = np.inf
        return loss


TINY = {
    "data": str(Path(__file__).parents[2] / "LICENSE"),  # a text that does not change
    "layers": 2,
    "d": 8,
    "heads": 2,
    "block": 8,
    "batch": 4,
    "steps": 4,
    "warmup": 1,
}


def overflow(group, options):
    trainer = Trainer(group, Config(**TINY, precision="float16", **options))
    weights = [x for optimizer in trainer.member.mixed.optimizers for x, _ in optimizer.pairs()]
    trainer.passes = Overflowing(trainer, weights)
    trainer.member.scale.scale = 1024.0
    found = []
    for _ in range(3):
        before = [x.data.copy() for x in weights]
        metrics = trainer.train_step()
        moved = any((a != x.data).any() for a, x in zip(before, weights))
        found.append((moved, metrics.get("skipped", False), metrics["loss_scale"]))
    return found


@pytest.mark.parametrize("layout", ["dp", "tp", "pp"])
def test_all_ranks_skip_the_step_in_which_one_overflows(layout):
    ranks = minipar.run(overflow, 2, args=({layout: 2, "microbatches": 2 * (layout == "pp")},))
    assert ranks[0] == ranks[1]
    assert [moved for moved, _, _ in ranks[0]] == [True, False, True]
    assert [skipped for _, skipped, _ in ranks[0]] == [False, True, False]
    assert [scale for _, _, scale in ranks[0]] == [1024, 1024, 512]


# -- a run -------------------------------------------------------------------------------------


def losses(group, options):
    trainer = Trainer(group, Config(**{**TINY, "steps": 30, "lr": 0.02}, **options))
    if trainer.member.scale:
        trainer.member.scale.scale = 256.0  # so that no step is left out
    return [trainer.train_step()["loss"] for _ in range(30)]


@pytest.fixture(scope="module")
def losses_in_float32():
    return minipar.run(losses, 1, args=({},))[0]


SHARED = [{"dp": 2}, {"tp": 2}, {"pp": 2, "microbatches": 2}]


@pytest.mark.parametrize("layout", [{}, *(pytest.param(s, marks=pytest.mark.slow) for s in SHARED)])
def test_a_gpt_learns_as_in_float32(half, layout, losses_in_float32):  # noqa: F811
    ranks = math.prod(n for axis, n in layout.items() if axis != "microbatches")
    low = minipar.run(losses, ranks, args=({**layout, "precision": half},))[0]
    apart = np.array(low) / losses_in_float32 - 1
    assert abs(apart).max() < 0.1 and abs(apart.mean()) < 0.01
    assert low != losses_in_float32 and low[-1] < low[0] - 1  # it has learnt something


def test_any_layout_and_any_precision_goes_on_from_a_checkpoint(tmp_path, half):  # noqa: F811
    run = RunFolder(tmp_path)

    def save(group):
        trainer = Trainer(group, Config(**TINY, dp=2, tp=2, precision=half))
        if trainer.member.scale:
            trainer.member.scale.load([512, 7])
        trainer.train_step()
        trainer.save(run)
        return trainer.weights(), trainer.strategy.state_dict()

    def restore(group, options):
        trainer = Trainer(group, Config(**TINY, **options))
        trainer.restore(run)
        scale = trainer.member.scale and trainer.member.scale.state()
        return trainer.weights(), trainer.strategy.state_dict(), scale

    weights, state = minipar.run(save, 4)[0]
    assert {a.dtype.name for a in weights.values()} == {"float32"}
    for options in ({}, {"pp": 2, "microbatches": 2, "precision": "float16"}):
        same, same_state, scale = minipar.run(restore, options.get("pp", 1), args=(options,))[0]
        for one, other in ((weights, same), (state, same_state)):
            assert one.keys() == other.keys()
            assert all((one[name] == other[name]).all() for name in one)
        if options:
            assert scale == ([512, 8] if half == "float16" else [2.0**16, 0])


def test_the_moments_of_batch_norm_stay_float32(half):  # noqa: F811
    model = ResNet(Init(0), 3, channels=2, width=4, layers=(1,))
    MixedPrecision(model, half)
    wide = {name for name, x in model.named_parameters() if x.dtype == "float32"}
    assert wide == {name for name, _ in model.named_parameters() if "running" in name}
    z = model(Tensor(np.ones((2, 6, 6, 2), half)), Draw(0, 0, range(2)))
    assert z.dtype == model(Tensor(np.ones((2, 6, 6, 2), half))).dtype == half


def test_other_names_are_refused():
    with pytest.raises(UsageError, match="float16 or bfloat16, not 'int8'"):
        half_dtype("int8")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(UsageError, match="pip install ml_dtypes"):
        MixedPrecision(GPT(Init(0), layers=1, d=8, heads=2), "bfloat16")
