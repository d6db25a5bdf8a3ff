"""One number for the validation data, in every layout, with a last batch that is not full."""

from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar.config import Config
from minipar.ops import cross_entropy
from minipar.training import Trainer

CONFIG = Config(
    layers=1, d=16, heads=2, block=8, batch=4, steps=1, dtype="float64", backend="local"
)  # fmt: skip
LAYOUTS = (
    {},
    {"dp": 4},
    {"dp": 2, "zero": 3},
    {"tp": 2},
    {"tp": 2, "sequence_parallel": True},
    {"pp": 2},
    {"dp": 2, "pp": 2},
    {"ps": "sync", "workers": 2},
)


@pytest.fixture
def text(tmp_path):
    """Whose validation part is 11 windows of 8 bytes: batches of 4, 4 and 3 rows."""
    path = tmp_path / "text.txt"
    path.write_bytes(bytes(32 + (n * n * 7 + n // 5) % 90 for n in range(890)))
    return str(path)


def found(group, config):
    from minipar.parallel.parameter_server import Roles
    from minipar.recipes import find
    from minipar.strategies import serve_run

    roles = Roles(group, config.servers) if config.ps != "none" else None
    if roles is not None and roles.is_server:
        from pathlib import Path

        train = find(config.model).task.load(config)[0]
        return serve_run(config, roles, train, Path(config.data).parent / "servers")
    trainer = Trainer(group, config, roles)
    numbers = trainer.evaluate()
    if roles is not None:
        trainer.strategy.close()
    return numbers, len(trainer.val)


def alone(config):
    """All windows at once, without any of the code that deals them out."""
    with minipar.no_grad():
        trainer = minipar.run(lambda g: Trainer(g, config), 1)[0]
        x, y = trainer.val.batch(np.arange(len(trainer.val)))
        logits = trainer.passes.model(x)
    return cross_entropy(logits, y).item(), (logits.data.argmax(-1) == y).mean()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_same_number_in_every_layout(text, layout):
    config = replace(CONFIG, data=text, **layout)
    loss, right = alone(replace(CONFIG, data=text))
    results = [r for r in minipar.run(found, config.ranks, args=(config,)) if r is not None]
    assert results
    for numbers, windows in results:
        assert windows == 11
        assert abs(numbers["val_loss"] - loss) < 1e-12
        assert abs(numbers["val_accuracy"] - right) < 1e-12


def test_no_more_batches_than_are_asked_for(text):
    config = replace(CONFIG, data=text)
    some = [
        minipar.run(found, 1, args=(replace(config, eval_batches=n),))[0][0]["val_loss"]
        for n in (1, 2, 3, 100)
    ]
    assert len(set(some[:3])) == 3 and some[2] == some[3]
