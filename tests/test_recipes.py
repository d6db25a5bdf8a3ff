"""What can be trained: every model by name, with its data, and the user's own."""

import functools
import sys
from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar import recipes
from minipar.config import Config
from minipar.data import Sampler, load_images
from minipar.errors import UsageError
from minipar.recipes import RECIPES, build_model, find
from minipar.tensor import Tensor
from minipar.training import Trainer

SMALL = {
    "gpt": {"layers": 1, "d": 8, "heads": 2, "block": 8},
    "mlp": {"layers": 1, "d": 8, "block": 8},
    "resnet": {},
    "vit": {"layers": 1, "d": 8, "heads": 2, "patch": 14},
    "wide-deep": {"layers": 1, "d": 4},
}


def small(name, **changes):
    base = replace(Config(model=name, batch=12), **RECIPES[name].defaults)
    return replace(base, **{**SMALL[name], "batch": 12, "eval_batches": 2, **changes})


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """All that is drawn is drawn by every rank."""
    few = functools.partial(load_images, train=200, validation=60)
    monkeypatch.setattr(recipes, "load_images", few)


@pytest.mark.parametrize("name", RECIPES)
def test_models_are_built_from_the_seed(name):
    data = find(name).task.load(small(name))[0]
    for dtype in ("float32", "float64"):
        config = small(name, dtype=dtype)
        one, same = (build_model(config, data).state_dict() for _ in range(2))
        other = build_model(replace(config, seed=1), data).state_dict()
        assert all(x.dtype == dtype for x in one.values())
        assert all((one[n] == same[n]).all() for n in one)
        assert not all((one[n] == other[n]).all() for n in one)


def steps(group, config):
    trainer = Trainer(group, config)
    losses = [trainer.train_step()["loss"] for _ in range(6)]
    return losses, trainer.weights(), trainer.evaluate()


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "resnet")) for n in RECIPES]
)
def test_every_model_goes_through_the_same_numbers_on_any_number_of_ranks(name):
    """float64: also the images and numbers, which are stored as float32."""
    config = small(name, dtype="float64", dropout=0.2)
    one = minipar.run(steps, 1, args=(config,))[0]
    for p in (2, 3):
        for losses, weights, found in minipar.run(steps, p, args=(replace(config, dp=p),)):
            np.testing.assert_allclose(losses, one[0], rtol=1e-10)
            for n, w in weights.items():
                np.testing.assert_allclose(w, one[1][n], rtol=0, atol=1e-10, err_msg=n)
            assert found == pytest.approx(one[2], rel=1e-10)


EIGHT = pytest.param({"pp": 2, "tp": 2, "dp": 2}, marks=pytest.mark.slow)


@pytest.mark.parametrize("way", [{"pp": 2, "microbatches": 2}, EIGHT])
def test_accuracy_is_the_same_where_the_last_stage_finds_it(way):
    config = small("vit", dtype="float64", eval_batches=5)
    (alone,) = minipar.run(lambda group: Trainer(group, config).evaluate(), 1)
    assert alone["val_accuracy"] > 0
    config = replace(config, **way)
    for found in minipar.run(lambda group: Trainer(group, config).evaluate(), config.ranks):
        assert found == pytest.approx(alone, rel=1e-12)


def test_accuracy_is_the_share_of_rows_that_are_right():
    trainer = minipar.run(lambda group: Trainer(group, small("vit")), 1)[0]
    found = trainer.evaluate()
    right = []
    for n in range(2):
        x, y = trainer.val.batch(Sampler(len(trainer.val), 12).indices(n))
        right += list(trainer.strategy.model(Tensor(x)).data.argmax(axis=1) == y)
    assert len(right) == 24 and found["val_accuracy"] == pytest.approx(np.mean(right))


OWN = """
from helper import WIDTH
from minipar.nn import Linear, Module
from minipar.ops import mse

print("executed")

class Net(Module):
    task = "images"

    def __init__(self, init):
        self.out = Linear(init / "out", WIDTH, 10)

    def __call__(self, x, draw=None):
        return self.out(x.reshape(len(x), WIDTH))

class Line(Module):
    def __init__(self, init):
        self.out = Linear(init / "out", 1, 1)

    def __call__(self, x, draw=None):
        return self.out(x)

    @staticmethod
    def load(path):
        return Halves(path), Halves(path)

    @staticmethod
    def loss(output, y):
        return mse(output, y)

class Halves:
    def __init__(self, path):
        self.half = float(path)

    def __len__(self):
        return 100

    def batch(self, indices):
        x = indices[:, None] / 100
        return x, x * self.half

class Wrong(Module):
    task = "music"

class NumPyLoss(Line):
    @staticmethod
    def loss(output, y):
        return ((output.data - y) ** 2).mean()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "helper.py").write_text("WIDTH = 784\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # so that it is taken away again
    monkeypatch.chdir(tmp_path)


def test_a_model_of_a_file_learns_a_task_by_name(own, capsys):
    config = Config(model="own.py:Net", batch=12)
    trainer = minipar.run(lambda group: Trainer(group, config), 1)[0]
    assert trainer.strategy.model.out.weight.shape == (784, 10)
    assert trainer.train_step()["loss"] == pytest.approx(np.log(10), abs=0.5)
    assert set(trainer.evaluate()) == {"val_loss", "val_accuracy"}
    assert find("own.py:Net").task.item == "image"
    assert capsys.readouterr().out.count("executed") == 1


def test_a_model_of_a_file_brings_its_own_data_and_loss(own):
    """y = x / 2 is a line through 0 with slope 1/2."""
    options = {"optimizer": "sgd", "lr": 0.5, "warmup": 0, "clip": 100.0, "weight_decay": 0.0}
    config = Config(model="own.py:Line", data="0.5", batch=20, **options, dtype="float64")

    def trained(group):
        trainer = Trainer(group, config)
        for _ in range(200):
            trainer.train_step()
        return trainer.weights()

    (weights,) = minipar.run(trained, 1)
    np.testing.assert_allclose(weights["model/out.weight"], [[0.5]], atol=1e-4)


def test_a_loss_that_is_no_tensor_is_named(own):
    config = Config(model="own.py:NumPyLoss", data="0.5", batch=20)
    with pytest.raises(UsageError, match=r"NumPyLoss.loss must return a tensor with one number"):
        minipar.run(lambda group: Trainer(group, config).train_step(), 1)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("gtp", "there is no model 'gtp'; there are gpt, mlp,"),
        ("gone.py:Net", r"there is no file gone\.py"),
        ("own.py:Gone", "Gone is not there"),
        ("own.py:WIDTH", "WIDTH is no subclass"),
        ("own.py:Wrong", "Wrong.task is 'music'; it can be text, images, clicks"),
        ("own.py", "there is no model 'own.py'"),
    ],
)
def test_what_is_no_model_is_one_sentence(own, model, says):
    with pytest.raises(UsageError, match=says):
        find(model)


def test_wide_deep_takes_every_optimizer_and_dropout():
    train = minipar.data.Clicks(np.ones((2, 3), "f4"), np.ones((2, 1), int), np.ones(2), (5,))
    for optimizer, momentum, sparse in [
        ("adagrad", 0.9, True),
        ("sgd", 0.0, True),
        ("sgd", 0.9, False),
        ("adamw", 0.9, False),
    ]:
        options = {"optimizer": optimizer, "momentum": momentum, "weight_decay": 0.0}
        model = build_model(Config(model="wide-deep", d=4, dropout=0.25, **options), train)
        assert (model.wide.sparse, model.deep.sparse, model.dropout.p) == (sparse, sparse, 0.25)


@pytest.mark.parametrize(
    ("returns", "kinds"),
    [
        ("DATA", "Data"),
        ("None", "NoneType"),
        ("(DATA, [1])", "Data, list"),
        ("(DATA,) * 3", "Data"),
    ],
)
def test_what_load_must_return_is_said(tmp_path, returns, kinds):
    (tmp_path / "loads.py").write_text(
        "from minipar.nn import Module\n"
        "class Data:\n"
        "    def __len__(self): return 3\n"
        "    def batch(self, indices): ...\n"
        "DATA = Data()\n"
        "class Net(Module):\n"
        "    @staticmethod\n"
        f"    def load(path): return {returns}\n"
    )
    task = find(f"{tmp_path}/loads.py:Net").task
    with pytest.raises(UsageError, match=rf"Net.load must return .* it returned {kinds}"):
        task.load(Config(model="x"))
    sys.modules.pop("minipar_own.loads")


TWICE = """
from minipar.nn import Linear, Module

class Same(Module):
    task = "images"

    def __init__(self, init):
        self.first, self.second = Linear(init, 4, 4), Linear(init, 4, 4)
"""


def test_weights_that_were_drawn_under_one_name_are_noticed(tmp_path, monkeypatch):
    (tmp_path / "twice.py").write_text(TWICE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"first.weight and second.weight begin with the same"):
        build_model(Config(model="twice.py:Same"))
