"""What a step should send, by formula, held against what it sends."""

from dataclasses import replace

import pytest

import minipar
from minipar.config import Config
from minipar.expected import Expected, Sent, expected
from minipar.recipes import build_model, find
from minipar.training import Trainer
from minipar.trial import Trial, tried

CONFIG = Config(layers=4, d=48, heads=4, block=32, batch=16, steps=4, backend="local")


def foreseen(config):
    train = find(config.model).task.load(config)[0]
    return expected(config, train, tried(config, build_model(config, train), train))


def sent(group, config):
    trainer = Trainer(group, config)
    for _ in range(3):
        trainer.train_step()
    return trainer.ledger.summary(group)["sent"]


# The share by which bytes may differ: what ranks tell each other beside the arrays.
LAYOUTS = (
    ({"dp": 2}, 1e-3),
    ({"dp": 4, "zero": 3}, 0.01),
    ({"tp": 2}, 1e-3),
    ({"pp": 2}, 1e-3),
    ({"dp": 2, "zero": 1, "precision": "bfloat16"}, 2e-3),
)
MORE = (
    ({"dp": 4, "bucket_mb": 0.05}, 2e-3),
    ({"dp": 3, "batch": 15, "bucket_mb": 0.0}, 0.02),
    ({"dp": 2, "overlap": True}, 1e-3),
    ({"dp": 2, "zero": 1}, 0.01),
    ({"dp": 2, "zero": 2}, 0.01),
    ({"dp": 2, "local_steps": 3}, 0.01),
    ({"dp": 2, "compress": "float16"}, 1e-3),
    ({"dp": 2, "compress": "int8"}, 1e-3),
    ({"dp": 2, "compress": "top-k"}, 0.01),
    ({"dp": 2, "compress": "powersgd"}, 0.02),
    ({"tp": 4, "sequence_parallel": True}, 0.01),
    ({"model": "vit", "tp": 2, "patch": 7, "batch": 16}, 0.01),
    ({"pp": 2, "schedule": "interleaved"}, 1e-3),
    ({"pp": 2, "tp": 2, "dp": 2}, 5e-3),
    ({"pp": 2, "tp": 2, "recompute": True}, 0.02),
    ({"dp": 2, "precision": "float16"}, 0.01),
    ({"dp": 2, "pp": 2, "tp": 2, "precision": "float16"}, 0.02),
    ({"dp": 2, "tp": 2, "zero": 1}, 0.01),
    ({"dp": 2, "tp": 2, "zero": 3}, 0.01),
    ({"dp": 2, "pp": 2, "zero": 1}, 0.01),
    ({"dp": 2, "pp": 2, "zero": 2}, 0.01),
    ({"dp": 2, "pp": 2, "zero": 2, "schedule": "zero-bubble"}, 0.01),
    ({"dp": 2, "pp": 2, "zero": 3}, 0.02),
    ({"dp": 2, "pp": 2, "zero": 3, "recompute": True}, 0.02),
    ({"dp": 2, "pp": 2, "tp": 2, "zero": 2}, 0.01),
    ({"dp": 2, "zero": 3, "accumulate": 2}, 1e-3),
    ({"dp": 2, "pp": 4, "zero": 2, "layers": 8, "schedule": "interleaved"}, 1e-3),
    ({"dp": 2, "pp": 4, "zero": 3, "layers": 8, "schedule": "interleaved"}, 1e-3),
    ({"dp": 2, "pp": 2, "zero": 3, "schedule": "zero-bubble"}, 1e-3),
)
# In 16 bits weights are gathered in 16, and gradients are summed up in 32.
HALVES = (
    {"dp": 2, "zero": 1},
    {"dp": 2, "zero": 3},
    {"tp": 2, "sequence_parallel": True},
    {"dp": 2, "pp": 2, "zero": 2},
    {"dp": 2, "pp": 2, "zero": 3},
    {"dp": 2, "zero": 3, "accumulate": 2},
    {"dp": 2, "compress": "top-k"},
    {"dp": 2, "compress": "powersgd"},
)


@pytest.mark.parametrize(("layout", "apart"), LAYOUTS, ids=str)
def test_the_bytes_of_a_step_are_those_of_the_formula(layout, apart):
    hold(layout, apart)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "apart"), MORE, ids=str)
def test_the_bytes_of_more_layouts_are_those_of_the_formula(layout, apart):
    hold(layout, apart)


@pytest.mark.slow
@pytest.mark.parametrize("layout", HALVES, ids=str)
def test_the_bytes_in_16_bits_are_those_of_the_formula(layout):
    hold({**layout, "precision": "bfloat16"}, 0.01)


def hold(layout, apart):
    config = replace(CONFIG, **layout)
    formula = foreseen(config).sent
    counted = minipar.run(sent, config.ranks, args=(config,))[0]
    assert set(formula) == set(counted) - {"world"}
    for axis, found in formula.items():
        assert counted[axis] == pytest.approx(found.nbytes, rel=apart), axis


def test_seconds_are_the_longer_of_path_and_work_and_what_is_sent():
    found = Expected({"dp": Sent(1000, 4)}, 0.0, path_s=2.0, work_s=3.0, cores=2)
    links = {"alpha": 0.25, "beta": 1e-3}
    assert found.seconds(links) == pytest.approx(2.0 + 1.0 + 1.0)
    assert found._replace(cores=1).seconds(links) == pytest.approx(3.0 + 2.0)


def test_the_bubble_lengthens_the_path_and_not_the_work():
    config = replace(CONFIG, pp=2, microbatches=3, batch=15)
    train = find("gpt").task.load(config)[0]
    trial = tried(config, build_model(config, train), train)
    even = Trial(trial.kept, [1.0, 1.0], 0.0)
    found = expected(config, train, even)
    assert found.bubble == 1 / 4 and found.path_s == pytest.approx(15 / (3 / 4))
    assert found.work_s == pytest.approx(30)
    assert expected(replace(config, tp=2), train, even).path_s == pytest.approx(10)
