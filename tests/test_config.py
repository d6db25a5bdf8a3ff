"""Configs: saved, loaded, refused."""

from dataclasses import replace

import pytest

from minipar.config import Config, check, option_types
from minipar.errors import CheckpointError, UsageError

TINY = Config(layers=1, d=8, heads=2, block=8)


def test_round_trip(tmp_path):
    config = replace(TINY, data="x", lr=0.1)
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


@pytest.mark.parametrize("text", ["", "[]", '{"no_such_option": 1}'])
def test_what_is_no_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Config.load(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimizer": "adam"}, "--optimizer is one of adamw, sgd, adagrad, not 'adam'"),
        ({"momentum": 1.0}, "--momentum must be at least 0 and below 1"),
        ({"batch": 16, "dp": 3}, "cannot be divided among 3 ranks: use --batch 15 or 18"),
        ({"batch": 2, "dp": 4}, "use --batch 4"),
        ({"dtype": "float16"}, "float32 or float64"),
        ({"steps": 2.5}, "--steps is of type int, not 2.5"),
        ({"lr": "0.1"}, "--lr is of type float, not '0.1'"),
        ({"overlap": 1}, "--overlap is of type bool, not 1"),
        ({"data": 7}, "--data is of type str, not 7"),
        ({"dp": 0}, "--dp must be at least 1"),
        ({"eval_batches": 0}, "--eval-batches must be at least 1"),
        ({"dropout": 1.0}, "below 1"),
        ({"heads": 3}, "--d 8 cannot be divided among 3 heads"),
    ],
)
def test_what_cannot_work_is_one_sentence(change, says):
    with pytest.raises(UsageError, match=says):
        check(replace(TINY, **change))


def test_option_types():
    kinds = option_types()
    assert (kinds["steps"], kinds["lr"], kinds["data"], kinds["check"]) == (int, float, str, bool)
