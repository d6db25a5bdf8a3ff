"""`minipar checkpoint`: what it shows, and that converting changes no bit."""

import json
import sys
import types
from dataclasses import asdict, replace

import numpy as np
import pytest

import minipar
from minipar import checkpoint_job
from minipar.config import Config
from minipar.errors import CheckpointError, UsageError
from minipar.parallel import checkpoint
from minipar.run_folder import RunFolder
from minipar.training import Trainer

TINY = Config(layers=1, d=8, heads=2, block=8, batch=8, steps=2, warmup=1, dp=2, tp=2)


def save(group, config, folder):
    trainer = Trainer(group, config)
    trainer.train_step()
    trainer.save(RunFolder(folder))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    minipar.run(save, 4, args=(TINY, folder))
    return folder


def test_show_tells_what_there_is_and_who_wrote_it(run):
    found = checkpoint_job.described(str(run), verify=True)
    assert found["meta"]["layout"] == {"dp": 2, "pp": 1, "tp": 2, "zero": 0}
    assert found["meta"]["data"] == {"epoch": 0, "batch": 1, "rows": 8}
    assert (found["meta"]["step"], found["meta"]["seed"], found["problems"]) == (1, 0, [])
    text = checkpoint_job.in_words(json.loads(json.dumps(found)))
    assert "layout     dp 2, pp 1, tp 2, zero 0" in text and "every file is as it was" in text
    (line,) = (line for line in text.splitlines() if "model/blocks.0.mlp.up.weight" in line)
    assert line.split()[1:] == ["8", "x", "32", "float32", "1,024", "2"]
    assert {s["rank"] for a in found["arrays"] for s in a["shards"]} == {0, 1, 2, 3}
    assert found["bytes"] == sum(array.nbytes for array in checkpoint.load(run_of(run))[0].values())


def run_of(run):
    return checkpoint.find(run)


def test_show_says_only_what_it_knows(tmp_path):
    checkpoint.save(tmp_path / "c", {"x": np.zeros(2)}, {"layout": 5})
    text = checkpoint_job.in_words(checkpoint_job.described(str(tmp_path / "c"), verify=False))
    assert "layout     not said" in text and "as it was written" not in text


@pytest.mark.parametrize("layout", [None, {"pp": 2, "dp": 2, "zero": 1}, {"tp": 2}])
def test_converted_it_has_the_same_bits(run, tmp_path, layout):
    goal = checkpoint_job.convert(str(run), str(tmp_path / "other"), layout)
    (wanted, meta), (arrays, other) = checkpoint.load(run_of(run)), checkpoint.load(goal)
    assert arrays.keys() == wanted.keys()
    assert all(arrays[name].tobytes() == wanted[name].tobytes() for name in wanted)
    sizes = {"dp": 1, "pp": 1, "tp": 1, "zero": 0} | (layout or {})
    assert other == {**meta, "layout": sizes}
    ranks = {s.rank for e in checkpoint.Checkpoint(goal).arrays.values() for s in e.shards}
    assert len(ranks) == (sizes["dp"] * sizes["pp"] * sizes["tp"])


def test_nothing_that_is_there_is_overwritten(run, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for name in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UsageError, match="is there already"):
            checkpoint_job.convert(str(run), str(name))
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_layouts_that_cannot_be(run, tmp_path):
    goal = str(tmp_path / "other")
    with pytest.raises(UsageError, match="takes dp, pp, tp, zero"):
        checkpoint_job.convert(str(run), goal, {"sp": 2})
    with pytest.raises(UsageError, match="say it like dp=2,tp=2"):
        checkpoint_job.layout_of("dp:2")
    assert checkpoint_job.layout_of("dp=2, tp=4") == {"dp": 2, "tp": 4}
    checkpoint.save(tmp_path / "nameless", {"x": np.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="does not say which model it is of"):
        checkpoint_job.convert(str(tmp_path / "nameless"), goal, {"dp": 2})


def test_files_of_gpt2_go_through_gpt2_files(run, tmp_path, monkeypatch):
    """Only what is handed over: the files themselves are that module's."""
    kept = {}
    there = types.ModuleType("minipar.gpt2_files")
    there.save_gpt2 = lambda *args: kept.update(zip(("weights", "settings", "path"), args))
    there.load_gpt2 = lambda path: (kept["weights"], kept["settings"])
    monkeypatch.setitem(sys.modules, "minipar.gpt2_files", there)
    file = tmp_path / "gpt2.safetensors"
    checkpoint_job.convert(str(run), str(file))
    assert kept["path"] == file
    assert kept["settings"] == {"vocab": 256, "block": 8, "layers": 1, "d": 8, "heads": 2}
    checkpoint_job.convert(str(file), str(tmp_path / "back"))
    wanted, (arrays, meta) = checkpoint.load(run_of(run))[0], checkpoint.load(tmp_path / "back")
    assert all(arrays[name].tobytes() == wanted[name].tobytes() for name in arrays)
    assert len(arrays) == sum(name.startswith("model/") for name in wanted)
    assert Config(**meta["config"]) == replace(Config(), layers=1, d=8, heads=2, block=8)
    for layout in ({"tp": 2}, None):
        with pytest.raises(UsageError):
            checkpoint_job.convert(str(file), str(tmp_path / "x.safetensors"), layout)


def test_a_model_that_is_no_gpt_has_no_file_of_gpt2(tmp_path):
    meta = {"config": asdict(replace(TINY, model="mlp"))}
    checkpoint.save(tmp_path / "c", {"model/x": np.zeros(2)}, meta)
    with pytest.raises(UsageError, match="is of mlp"):
        checkpoint_job.convert(str(tmp_path / "c"), str(tmp_path / "x.safetensors"))


def test_code_that_came_with_a_checkpoint_is_not_run(tmp_path):
    """A hostile checkpoint names a model of its own, in a file beside it."""
    folder, ran = tmp_path / "evil", tmp_path / "ran"
    folder.mkdir()
    (folder / "model.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = asdict(replace(TINY, model=f"{folder / 'model.py'}:Evil"))
    checkpoint.save(folder / "checkpoints" / "step-000001", {"x": np.zeros(2)}, {"config": config})
    with pytest.raises(CheckpointError, match="came with it, to be run"):
        checkpoint_job.convert(str(folder), str(tmp_path / "out"), {"dp": 2})
    assert not ran.exists()


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ({"dp": -1}, "--layout dp=-1: dp is a number from 1 on."),
        ({"zero": -1}, "--layout zero=-1: zero is a number from 0 on."),
        ({"ep": 2}, "--layout takes dp, pp, tp, zero, as in dp=2,tp=2; not ep."),
    ],
)
def test_a_layout_that_cannot_be_is_one_sentence(layout, says):
    with pytest.raises(UsageError, match=says):
        checkpoint_job.laid_out(Config(), layout)
