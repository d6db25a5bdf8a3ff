"""What is printed at the end of a run."""

import json

from minipar.run_folder import RunFolder
from minipar.training_report import indented, report, who_was_lost

SUMMARY = {
    "train_loss": 2.5,
    "val_loss": 2.25,
    "best_loss": None,
    "item": "byte",
    "seconds": 12.0,
    "tokens_per_s": 18_200.0,
    "run_dir": "runs/gpt-1",
}
SERVER = {"applied": 4, "staleness": {"0": 1, "2": 3}, "lost_workers": [1], "lost_pushes": {"0": 5}}


def test_a_sample_cannot_disturb_a_terminal():
    assert indented(b"a\x1b[2J\x07\nb\xff") == "    | a·[2J·\n    | b\ufffd"


def test_servers_tell_how_old_pushes_were_and_what_was_lost():
    text = report({**SUMMARY, "servers": [SERVER]}, "same", "tokens", None)
    assert "4 applied, 1.50 updates old in the mean, 2 at most" in text
    assert "worker 1; the others went on" in text
    assert "5 pushes that a server had taken after its last snapshot" in text
    assert "pushes" not in report(SUMMARY, "same", "tokens", None)


def test_a_run_that_was_traced_says_how_to_see_it():
    how = "minipar timeline runs/gpt-1 --step 2"
    text = report({**SUMMARY, "timeline": how}, "same", "tokens", None)
    assert text.splitlines()[-2:] == ["run folder       runs/gpt-1", f"see its steps    {how}"]


def test_who_was_lost_stands_in_what_servers_have_left(tmp_path):
    run = RunFolder(tmp_path)
    assert who_was_lost(run) is None
    run.servers.mkdir()
    (run.servers / "server-0.json").write_text(json.dumps(SERVER))
    assert who_was_lost(run) == "worker 1 was lost on the way"
