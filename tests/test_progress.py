"""The metrics of a run, line by line."""

import json
from dataclasses import replace

import pytest

from minipar.config import Config
from minipar.progress import Report
from minipar.recipes import find


def full_disk():
    raise OSError(28, "No space left on device")


def test_metrics_for_which_there_is_no_room_come_later_or_end_the_run(tmp_path):
    path, config = tmp_path / "metrics.jsonl", Config(on_save_error="continue")
    with open(path, "w") as log:
        for c in (config, replace(config, on_save_error="stop")):
            report = Report(c, find("gpt").task, log, 0)
            report.step({"step": 1, "loss": 5.0})
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(report, "_log", Full(log))
                if c is config:
                    report.step({"step": 2, "loss": 4.0})
                    continue
                with pytest.raises(OSError, match="No space left"):
                    report.step({"step": 2, "loss": 4.0})
    found = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert found == [1, 2, 1, 2]


class Full:
    """A file on a full disk: it takes what is written, and cannot let go of it."""

    def __init__(self, file):
        self.write, self.flush = file.write, full_disk
