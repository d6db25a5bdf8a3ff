"""`minipar train` as a user meets it: one command, its folder, its report, its refusals."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minipar import training_job
from minipar.errors import UsageError
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.ranks import RanksFailed
from tests.jobs import started

TINY = [
    *("--layers=1", "--d=16", "--heads=2", "--block=16", "--batch=8", "--steps=30"),
    *("--eval-batches=2", "--eval-every=10", "--save-every=10"),
]


def command(*options):
    return [sys.executable, "-m", "minipar", "train", *options]


def train(folder, *options):
    return subprocess.run(
        command(*options), cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("backend", ["process", "local"])
def test_everything_that_a_run_leaves(tmp_path, backend):
    done = train(tmp_path, "gpt", "--dp", "2", "--json", "--backend", backend, *TINY)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    summary = json.loads(line)
    assert (summary["model"], summary["ranks"], summary["steps"]) == ("gpt", 2, 30)
    assert summary["backend"] == backend
    assert 0 <= summary["max_difference_to_one_rank"] < 1e-4
    assert summary["tokens_per_s"] > 0 and summary["seconds"] > 0
    run = tmp_path / summary["run_dir"]
    metrics = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics if "loss" in m] == list(range(1, 31))
    evaluations = [(m["step"], m["val_loss"]) for m in metrics if "val_loss" in m]
    assert [step for step, _ in evaluations] == [10, 20, 30]
    assert evaluations[-1][1] == summary["val_loss"]
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "checkpoints/step-000030/manifest.json").exists()
    assert json.loads((run / "config.json").read_text())["dp"] == 2


@pytest.mark.slow
def test_the_report_for_people(tmp_path):
    done = train(tmp_path, "mlp", "--dp", "1", *TINY)
    assert done.returncode == 0, done.stderr
    assert "the same as one rank: after 20 steps no weight differs by more than" in done.stdout
    assert "validation loss" in done.stdout and "runs/mlp-1" in done.stdout
    assert "step    30/30" in done.stderr and "[rank" not in done.stderr
    assert done.stderr.startswith("minipar: mlp does not look at --heads\n")


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_going_on_gives_the_same_losses(tmp_path):
    whole = train(tmp_path, "gpt", "--dp", "2", *TINY, "--steps", "300", "--json")
    options = ["gpt", "--dp", "2", *TINY, "--steps", "300", "--out", "stopped here"]
    with started(command(*options), cwd=tmp_path) as job:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("stopped here/checkpoints/step-*/manifest.json")):
            assert time.monotonic() < until and job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=15)
    assert job.returncode == 130
    last = err.splitlines()[-1]
    assert "the last checkpoint is that of step" in last
    words = shlex.split(last.rpartition("Go on with: minipar train ")[2])
    resumed = train(tmp_path, *words, "--json")
    assert resumed.returncode == 0, resumed.stderr
    both = [json.loads(done.stdout) for done in (whole, resumed)]
    assert both[0]["val_loss"] == both[1]["val_loss"]
    assert both[0]["train_loss"] == both[1]["train_loss"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["gpt", "--dp", "3"], "a batch of 16 cannot be divided among 3 ranks: use --batch 15 or"),
        (["gtp"], "there is no model 'gtp'; there are gpt, mlp"),
        ([], "say what to train: minipar train gpt"),
        (["gpt", "--data", "nowhere.txt"], "nowhere.txt does not exist"),
        (["gpt", "--data", "binary"], "binary is not text"),
        (["gpt", "--data", "short.txt"], "pass a longer text or a smaller block"),
        (["gpt", "--data", "few.txt"], "training data has 9 examples, and a batch needs 16"),
        (["vit", "--data", "full"], "full holds no images that are understood; it has file"),
        (["vit", "--heads", "3"], "--d 64 cannot be divided among 3 heads"),
        (["nine.py:Net"], "there is no file nine.py"),
        (["own.py:Net"], "own.py:Net: Net is not there"),
        (["gpt", "--zero", "2", "--compress", "int8"], "--zero and --compress cannot be combined"),
        (["own.py:Tensor"], "Tensor is no subclass of minipar.nn.Module"),
        (["gpt", "--data", "."], "would lie inside --data ."),
        (["gpt", "--backend", "cloud"], "there is no backend 'cloud'"),
        (["gpt", "--out", "full"], "full is not empty"),
        (["gpt", "--heads", "3"], "--d 128 cannot be divided among 3 heads"),
        (["--resume", "nowhere"], "there is no run folder nowhere"),
        (["--resume", "full"], "full/config.json is not the config.json of a run"),
        (["gpt", "--lr", "nan"], "--lr must be a number above 0"),
        (["gpt", "--lr", "1e-6"], "--min-lr 3e-05 is above --lr 1e-06"),
        (["gpt", "--timeout", "-1"], "--timeout must be a number above 0"),
        (["--resume", "full", "--out", "x"], "leave out --out"),
    ],
)
def test_wrong_use_is_one_sentence_and_leaves_nothing(
    tmp_path, options, says, command_line, monkeypatch
):
    (tmp_path / "binary").write_bytes(b"\0\1\2" * 1000)
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "few.txt").write_text("a" * 650)  # the last tenth is for validation
    (tmp_path / "own.py").write_text("from minipar import Tensor\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    monkeypatch.chdir(tmp_path)
    done = command_line("train", *options)
    assert done.returncode in (1, 2)
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not Path(tmp_path, "runs").exists()


def execute(job):
    """As the command line does; the exit code."""
    try:
        result = training_job.carry_out(job)
    except RanksFailed as failed:
        return failed.exit_code
    print(result)
    return 0 if result.ok else 1


SMALL = {"layers": 1, "d": 16, "heads": 2, "block": 16, "batch": 8, "steps": 20}
PIECEMEAL = """
from minipar.nn import Linear, Module, Piece

class Whole(Module):
    def __init__(self, init):
        self.first, self.last = Linear(init / "first", 1, 1), Linear(init / "last", 1, 1)

class Forgetful(Whole):
    def pieces(self):
        return [Piece(lambda x, draw: x, self.first), Piece(lambda x, draw: x)]
"""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tp": 3}, "attention.qkv: 2 heads cannot be shared out evenly among 3 ranks"),
        ({"tp": 2, "sequence_parallel": True, "block": 15}, "--tp 2: sequence parallel: x is .*15"),
        ({"tp": 3, "model": "mlp", "heads": 3}, "layers.0: 32 outputs cannot be shared out"),
        ({"tp": 2, "sequence_parallel": True, "model": "mlp"}, "none can be alone"),
        ({"pp": 4}, "3 pieces cannot be cut into 4 parts"),
        ({"pp": 2, "schedule": "interleaved"}, "3 pieces cannot be cut into 4 parts"),
        ({"pp": 2, "model": "Whole"}, "Whole cannot be cut into stages: give it a method pieces"),
        ({"pp": 2, "model": "Forgetful"}, "of the pieces, last.weight is in none"),
        ({"ps": "async", "kill_worker": "2@step5"}, "there is no worker 2 among 2"),
        ({"schedule": "gpipe"}, "--schedule does nothing here: it goes with --pp"),
        ({"workers": 2}, "--workers does nothing here: it goes with --ps"),
        ({"ps": "sync", "staleness": 2}, "--staleness does nothing here: it goes with --ps ssp"),
    ],
)
def test_what_ranks_would_stumble_over_is_said_before_they_start(tmp_path, given, says):
    (tmp_path / "own.py").write_text(PIECEMEAL)
    if given.get("model", "gpt")[0].isupper():
        given = given | {"model": f"{tmp_path}/own.py:{given['model']}"}
    with pytest.raises(UsageError, match=says):
        training_job.prepare(SMALL | given, out=str(tmp_path / "run"), resume=None)
    assert not (tmp_path / "run").exists()


def test_what_a_run_had_can_be_left_out_when_it_goes_on(tmp_path):
    run = str(tmp_path / "run")
    given = SMALL | {"tp": 2, "sequence_parallel": True, "backend": "local", "steps": 2}
    assert execute(training_job.prepare(given, run, None)) == 0
    with pytest.raises(UsageError, match="needs --no-sequence-parallel"):
        training_job.prepare({"tp": 1}, out=None, resume=run)
    job = training_job.prepare({"tp": 1, "sequence_parallel": False}, out=None, resume=run)
    assert not job.config.sequence_parallel


def test_a_run_that_began_with_another_algorithm_has_no_first_steps_to_compare(tmp_path, capsys):
    run = str(tmp_path / "run")
    given = SMALL | {"ps": "async", "backend": "local", "steps": 22}
    assert execute(training_job.prepare(given, run, None)) == 0
    job = training_job.prepare({"ps": "none", "steps": 30}, out=None, resume=run)
    capsys.readouterr()
    assert execute(job) == 0
    assert "not compared with one rank: it began in a way" in capsys.readouterr().out


def test_a_rank_that_was_lost_leaves_word_how_to_go_on(tmp_path, capsys):
    run = str(tmp_path / "run")
    given = SMALL | {"dp": 2, "backend": "local", "save_every": 5, "kill_worker": "1@step9"}
    assert execute(training_job.prepare(given, run, None)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"that of step 5. Go on with: minipar train --resume {run}")


def test_without_its_first_worker_which_saves_a_run_of_servers_ends(tmp_path, capsys):
    given = SMALL | {"ps": "async", "backend": "local", "kill_worker": "0@step2"}
    job = training_job.prepare(given, str(tmp_path / "run"), None)
    assert execute(job) == 1
    assert "worker 0 was lost" in capsys.readouterr().err
    assert not list(job.run.servers.glob("server-*.json"))  # which a server leaves that was through


def test_workers_in_step_write_one_checkpoint_together(tmp_path):
    given = SMALL | {"ps": "sync", "backend": "local", "steps": 2}
    job = training_job.prepare(given, str(tmp_path / "run"), None)
    assert execute(job) == 0
    manifest = json.loads((job.run.latest_checkpoint() / "manifest.json").read_text())
    shards = [shard for entry in manifest["arrays"].values() for shard in entry["shards"]]
    assert {shard["rank"] for shard in shards} == {0, 1}  # and not each of them all of it


def test_the_first_worker_evaluates_and_saves_at_the_end_if_others_got_there_before(tmp_path):
    given = SMALL | {"ps": "async", "backend": "local", "steps": 4, "save_every": 1}
    job = training_job.prepare(given, str(tmp_path / "run"), None)
    assert execute(job) == 0
    assert any("val_loss" in line for line in job.run.metrics())
    assert int(job.run.latest_checkpoint().name.removeprefix("step-")) >= 4


def test_a_resumed_run_has_no_drills_but_those_that_are_asked_for(tmp_path):
    run = str(tmp_path / "run")
    drills = {"kill_worker": "1@step9", "slow_worker": "0:2x"}
    given = SMALL | {"dp": 2, "backend": "local", "save_every": 5} | drills
    job = training_job.prepare(given, out=run, resume=None)
    assert execute(job) == 1
    config = training_job.prepare({}, out=None, resume=run).config
    assert (config.kill_worker, config.slow_worker) == ("", "")
    again = training_job.prepare({"kill_worker": "0@step7"}, out=None, resume=run)
    assert again.config.kill_worker == "0@step7"


@pytest.mark.slow
def test_a_resume_changes_nothing_that_a_checkpoint_has_fixed(tmp_path):
    assert train(tmp_path, "gpt", *TINY).returncode == 0
    run = tmp_path / "runs/gpt-1"
    before = (run / "config.json").read_text()
    for options in (["--d", "32"], ["mlp"], ["--dtype", "float64"]):
        done = train(tmp_path, *options, "--resume", str(run))
        assert done.returncode == 2 and "cannot change on --resume" in done.stderr
        assert (run / "config.json").read_text() == before


def test_a_run_that_began_as_local_sgd_is_not_compared_when_it_goes_on_otherwise(tmp_path, capsys):
    given = {"layers": 1, "d": 16, "heads": 2, "block": 16, "batch": 8, "steps": 4}
    given |= {"dp": 2, "backend": "local", "eval_batches": 1, "local_steps": 2}
    run = str(tmp_path / "run")
    execute(training_job.prepare(given, out=run, resume=None))
    assert "another algorithm" in capsys.readouterr().out
    again = training_job.prepare({"local_steps": 1, "steps": 6}, out=None, resume=run)
    assert execute(again) == 0
    assert "it began in a way that is not compared" in capsys.readouterr().out


@pytest.mark.slow
def test_after_a_resume_the_first_steps_are_compared_with_their_own_options(tmp_path):
    assert train(tmp_path, "gpt", "--dp", "2", "--warmup", "50", *TINY).returncode == 0
    resumed = ["--resume", "runs/gpt-1", "--steps", "40", "--lr", "1e-2", "--dp", "1", "--json"]
    done = train(tmp_path, *resumed)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["ranks"], summary["steps"]) == (1, 40)
    assert 0 < summary["max_difference_to_one_rank"] < 1e-4  # of the two ranks that it began on


def summed(parallel, rows):
    for x in parallel.model.parameters():
        parallel.group.all_reduce(x.grad, out=x.grad)


def forgotten(parallel, rows):
    """No synchronisation at all."""


def late(parallel, rows):
    """One weight is left out."""
    for x in parallel.model.parameters()[1:]:
        parallel.group.all_reduce(x.grad, op="mean", out=x.grad)


@pytest.mark.parametrize("mistake", [None, summed, forgotten, late])
def test_the_comparison_with_one_rank_sees_mistakes(tmp_path, monkeypatch, capsys, mistake):
    if mistake is not None:
        monkeypatch.setattr(BucketedDataParallel, "sync_gradients", mistake)
    given = SMALL | {"dp": 2, "backend": "local", "eval_batches": 1}
    job = training_job.prepare(given, out=str(tmp_path / "run"), resume=None)
    assert execute(job) == (mistake is not None)
    assert ("NOT the same as one rank" in capsys.readouterr().out) == (mistake is not None)


@pytest.mark.slow
def test_the_main_job_reaches_its_loss(tmp_path):
    """The README's first command: under 2 minutes on 2 free cores, under 1.8 nats per byte."""
    begun = time.monotonic()
    done = subprocess.run(
        command("gpt", "--dp", "2", "--json"), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["val_loss"] < 1.8
    assert summary["max_difference_to_one_rank"] < 1e-4
    assert time.monotonic() - begun < 5 * 120


@pytest.mark.parametrize("place", ["out", "resume"])
def test_a_folder_that_is_none_is_refused(place):
    with pytest.raises(UsageError, match=f"--{place} is a folder, not 3"):
        training_job.train("gpt", **{place: 3})


def test_a_run_that_goes_on_with_other_ranks_says_which_ones_are_compared(tmp_path):
    given = {"layers": 1, "d": 16, "heads": 2, "block": 16, "batch": 8, "steps": 2}
    given |= {"dp": 2, "backend": "local", "eval_batches": 1}
    run = str(tmp_path / "run")
    training_job.train("gpt", out=run, **given)
    again = training_job.train(resume=run, dp=1, steps=3)
    assert "2 ranks          the same as one rank" in again.same
    assert again.same.endswith("(the run began on 2 ranks, which are compared here)")
