"""Run folders: names, what is never overwritten, metrics that survive a crash."""

import json

import pytest

from minipar.config import Config
from minipar.errors import UsageError
from minipar.run_folder import RunFolder


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
