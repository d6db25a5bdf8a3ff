"""Run folders: names, what is never overwritten, metrics that survive a crash."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from minipar.config import Config
from minipar.errors import CheckpointError, UsageError
from minipar.parallel import checkpoint
from minipar.run_folder import RunFolder, config_of


def test_the_first_free_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(RunFolder.create(Config(), None).path) for _ in range(3)]
    assert names == ["runs/gpt-1", "runs/gpt-2", "runs/gpt-3"]
    assert RunFolder(names[2]).config() == Config()


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="is not empty: choose another --out, or go on with --res"):
        RunFolder.create(Config(), str(tmp_path))
    with pytest.raises(UsageError, match=r"mine\.txt is a file"):
        RunFolder.create(Config(), str(tmp_path / "mine.txt"))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_metrics_after_a_step_are_forgotten_and_a_torn_line_is_left_out(tmp_path):
    run = RunFolder(tmp_path)
    assert run.metrics() == []
    lines = [json.dumps({"step": n, "loss": n / 7}) + "\n" for n in range(1, 5)]
    run.metrics_file.write_text("".join(lines) + '{"step": 5, "lo')
    assert [m["step"] for m in run.metrics()] == [1, 2, 3, 4]
    run.forget_after(2)
    assert run.metrics_file.read_text() == "".join(lines[:2])


def test_a_checkpoint_says_which_config_it_is_of_or_lies_below_it(tmp_path):
    config = Config(layers=3)
    meta = {"config": asdict(config)}
    for name, said in (("new", meta), ("other", {"config": {"x": 1}}), ("run/checkpoints/old", {})):
        checkpoint.save(tmp_path / name, {"x": np.zeros(2)}, said)
    config.save(tmp_path / "run/config.json")
    for name in ("new", "run/checkpoints/old"):
        assert config_of(checkpoint.Checkpoint(tmp_path / name)) == config
    with pytest.raises(CheckpointError, match="is of another minipar"):
        config_of(checkpoint.Checkpoint(tmp_path / "other"))
    wrong = {"config": asdict(config) | {"d": -4}}
    checkpoint.save(tmp_path / "wrong", {"x": np.zeros(2)}, wrong)
    with pytest.raises(CheckpointError, match="a config that cannot be: --d must be at least 1"):
        config_of(checkpoint.Checkpoint(tmp_path / "wrong"))
    checkpoint.save(tmp_path / "alone", {"x": np.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="does not say which model it is of"):
        config_of(checkpoint.Checkpoint(tmp_path / "alone"))


def test_a_trace_is_kept_when_the_run_is_resumed(tmp_path):
    run = RunFolder(tmp_path)
    run.keep_trace()
    for part in ("first", "second"):
        run.trace.mkdir()
        (run.trace / part).touch()
        run.keep_trace()
    assert (tmp_path / "trace-1" / "first").exists() and (tmp_path / "trace-2" / "second").exists()
    assert not run.trace.exists()
