"""Training: the same numbers on 1, 2 and 4 ranks, on both backends, resumed or not, twice."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar.config import Config
from minipar.errors import CheckpointError, Diverged
from minipar.parallel import checkpoint
from minipar.recipes import SAMPLE_BYTES
from minipar.run_folder import RunFolder
from minipar.training import FIRST_STEPS, Trainer, train_rank

TINY = Config(
    layers=2, d=16, heads=2, block=16, batch=8, steps=24, warmup=100, eval_every=0, save_every=0,
    eval_batches=3, dropout=0.1,
)  # fmt: skip


def steps(group, config, n=FIRST_STEPS):
    """Losses, gradient norms and weights of the first steps."""
    trainer = Trainer(group, config)
    metrics = [trainer.train_step() for _ in range(n)]
    losses = [[m["loss"], m["grad_norm"]] for m in metrics]
    return np.array(losses), trainer.weights(), trainer.evaluate()["val_loss"]


def difference(one, other):
    (losses, weights, val), (losses_2, weights_2, val_2) = one, other
    apart = [np.abs(weights[n] - weights_2[n]).max() for n in weights]
    return max(*apart, np.abs(losses - losses_2).max(), abs(val - val_2))


@pytest.mark.parametrize("model", [pytest.param("gpt", marks=pytest.mark.slow), "mlp"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-10), pytest.param("float32", 1e-4, marks=pytest.mark.slow)],
)
def test_any_number_of_ranks_goes_through_the_same_numbers(model, dtype, tolerance):
    config = replace(TINY, model=model, dtype=dtype)
    one = minipar.run(steps, 1, args=(config,))[0]
    for backend, p in (("local", 2), ("local", 4), ("process", 2), ("process", 4)):
        for found in minipar.run(steps, p, args=(replace(config, dp=p),), backend=backend):
            assert difference(one, found) < tolerance, (backend, p)


SLOWER = pytest.param("process", marks=pytest.mark.slow)


@pytest.mark.parametrize("backend", ["local", SLOWER])
def test_the_same_command_twice_gives_the_same_bits(backend):
    config = replace(TINY, dp=2)
    first, again = (minipar.run(steps, 2, args=(config,), backend=backend) for _ in range(2))
    assert difference(first[0], again[0]) == 0
    assert difference(first[0], first[1]) == 0  # and the replicas agree


def test_training_learns(tmp_path):
    config = replace(TINY, steps=60, warmup=10, dropout=0.0, lr=1e-2)
    result = minipar.run(train_rank, 1, args=(config, str(tmp_path), False))[0]
    assert np.log(256) - result["val_loss"] > 1.5
    assert len(result["sample"][0]) == config.block and len(result["sample"][1]) == SAMPLE_BYTES


def losses(run):
    return [(m["step"], m["loss"]) for m in run.metrics() if "loss" in m]


def run_in(path, config, resume=False):
    path.mkdir(exist_ok=True)
    minipar.run(train_rank, config.dp, args=(config, str(path), resume))
    return RunFolder(path)


def test_a_resumed_run_has_the_losses_of_one_that_never_stopped(tmp_path):
    config = replace(TINY, dp=2, save_every=10)
    whole = run_in(tmp_path / "whole", config)
    # A run that dies after step 17: its last checkpoint is that of step 10.
    part = tmp_path / "part"

    with pytest.MonkeyPatch.context() as patch:
        plain = Trainer.train_step

        def dies(trainer):
            if trainer.step == 17:
                raise RuntimeError("power cut")
            return plain(trainer)

        patch.setattr(Trainer, "train_step", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            run_in(part, config)
    assert losses(RunFolder(part))[-1][0] == 17
    resumed = run_in(part, config, resume=True)
    assert losses(resumed) == losses(whole)
    last = [r.latest_checkpoint() / "manifest.json" for r in (whole, resumed)]
    assert last[0].read_text() == last[1].read_text()  # with the hashes of all arrays


@pytest.mark.slow
def test_a_resumed_run_may_have_another_number_of_ranks(tmp_path):
    config = replace(TINY, dtype="float64", save_every=10)
    whole = run_in(tmp_path / "whole", config)
    part = run_in(tmp_path / "part", replace(config, steps=10))
    more = run_in(tmp_path / "part", replace(config, dp=4), resume=True)
    assert part.path == more.path
    assert np.allclose(losses(whole)[10:], losses(more)[10:], rtol=0, atol=1e-10)


def test_first_steps_that_began_in_another_way_are_not_kept_for_the_comparison(tmp_path):
    """Four steps of local SGD, and then data parallel: no run on one rank is like that."""
    begun = replace(TINY, dp=2, local_steps=2, steps=4)
    run = run_in(tmp_path, begun)
    assert run.first_steps.exists()  # of a run that is over before them; it is not compared
    shutil.rmtree(run.first_steps)
    gone_on = run_in(tmp_path, replace(TINY, dp=2, steps=FIRST_STEPS + 1), resume=True)
    assert not gone_on.first_steps.exists()


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_ends_the_run_or_costs_it_a_checkpoint(
    tmp_path, monkeypatch, capsys, background
):
    config = replace(TINY, dp=2, steps=12, save_every=4, save_in_background=background)
    whole = run_in(tmp_path / "whole", config)
    plain = checkpoint.writer.files.write

    def full(path, array):
        if "step-000008.part" in path.parts:
            raise OSError(28, "No space left on device")
        return plain(path, array)

    monkeypatch.setattr(checkpoint.writer.files, "write", full)
    with pytest.raises(CheckpointError, match=r"step-000008 cannot be written: .*No space left"):
        run_in(tmp_path / "stops", config)
    stopped = RunFolder(tmp_path / "stops")
    assert checkpoint.load(stopped.latest_checkpoint())[1]["step"] == 4
    capsys.readouterr()
    goes_on = run_in(tmp_path / "goes on", replace(config, on_save_error="continue"))
    assert capsys.readouterr().err.count("The run goes on.") == 1
    assert losses(goes_on) == losses(whole)
    found = [checkpoint.load(path)[1]["step"] for path in checkpoint.steps(goes_on.checkpoints)]
    assert found == [4, 12]


def test_a_checkpoint_says_where_the_run_stands(tmp_path):
    config = replace(TINY, steps=3, seed=5)
    meta = checkpoint.Checkpoint(run_in(tmp_path, config).latest_checkpoint()).meta
    assert (meta["step"], meta["seed"]) == (3, 5)
    assert meta["data"] == {"epoch": 0, "batch": 3, "rows": 8}
    assert meta["layout"] == {"dp": 1, "pp": 1, "tp": 1, "zero": 0}
    assert Config(**meta["config"]) == config


def test_resuming_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        run_in(tmp_path / "new", TINY, resume=True)


def test_a_loss_that_is_not_a_number_stops_with_advice():
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="try a smaller --lr"):
        minipar.run(steps, 2, args=(replace(TINY, dp=2, lr=1e30, warmup=0, clip=1e30),))
