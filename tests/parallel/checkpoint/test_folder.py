"""Checkpoints under names: whole arrays in and out, the last one, and those that go."""

import json

import numpy as np
import pytest

from minipar.errors import CheckpointError
from minipar.parallel import checkpoint

ARRAYS = {
    "model/blocks.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model/half": np.array([1.5, -2], np.float16),
    "optimizer/step": np.asarray(7),
    "optimizer/blocks.0.weight/m": np.zeros((2, 3)),
}


def test_round_trip_is_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path / "c", ARRAYS, {"step": 7})
    arrays, meta = checkpoint.load(tmp_path / "c")
    assert meta == {"step": 7} and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()
        arrays[name][...] = 1  # they are the caller's


def test_what_the_format_before_has_written_is_read(tmp_path):
    import hashlib

    (tmp_path / "model").mkdir()
    np.save(tmp_path / "model/x.npy", np.arange(3.0))
    digest = hashlib.sha256((tmp_path / "model/x.npy").read_bytes()).hexdigest()
    piece = {"file": "model/x.npy", "start": [0], "stop": [3], "sha256": digest}
    entry = {"shape": [3], "dtype": "float64", "slices": [piece]}
    old = {"format": "minipar checkpoint 1", "meta": {"step": 2}, "arrays": {"model/x": entry}}
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    arrays, meta = checkpoint.load(tmp_path)
    assert arrays["model/x"].tolist() == [0, 1, 2] and meta == {"step": 2}


def test_what_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint.save_step(tmp_path, 10, {"x": np.full(2, 10)}, {})

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.saver.writer.files.os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"step-000020 cannot be written.*No space left"):
        checkpoint.save_step(tmp_path, 20, {"x": np.full(2, 20)}, {})
    assert checkpoint.load(checkpoint.latest(tmp_path))[0]["x"].tolist() == [10, 10]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_the_last_one_is_found_and_as_many_are_kept_as_were_asked_for(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in (5, 100, 2000000):
        last = checkpoint.save_step(tmp_path, step, {"x": np.full(1, step)}, {})
        assert checkpoint.latest(tmp_path) == last
    assert [p.name for p in tmp_path.iterdir()] == ["step-2000000"]
    checkpoint.save_step(tmp_path, 2000001, {"x": np.zeros(1)}, {}, keep=2)
    checkpoint.save_step(tmp_path, 2000002, {"x": np.zeros(1)}, {}, keep=2)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-2000001", "step-2000002"]


def test_a_run_that_went_back_forgets_what_it_will_do_again(tmp_path):
    for step in (10, 20, 15):
        checkpoint.save_step(tmp_path, step, {"x": np.zeros(1)}, {}, keep=3)
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [10, 15]


def test_between_the_two_renames_the_old_one_counts(tmp_path):
    path = checkpoint.save_step(tmp_path, 5, {"x": np.full(1, 5)}, {})
    path.rename(tmp_path / "step-000005.old")
    assert checkpoint.step_of(checkpoint.latest(tmp_path)) == 5
    for way in (path, checkpoint.latest(tmp_path), checkpoint.find(path)):
        assert checkpoint.load(way)[0]["x"] == 5
    checkpoint.save_step(tmp_path, 5, {"x": np.full(1, 6)}, {})
    assert checkpoint.load(path)[0]["x"] == 6
    assert [p.name for p in tmp_path.iterdir()] == ["step-000005"]


def test_a_checkpoint_is_found_by_its_own_name_or_that_of_its_run(tmp_path):
    path = checkpoint.save_step(tmp_path / "run/checkpoints", 5, {"x": np.zeros(1)}, {})
    for name in ("run", "run/checkpoints", "run/checkpoints/step-000005"):
        assert checkpoint.find(tmp_path / name) == path
    with pytest.raises(CheckpointError, match="neither a checkpoint nor the folder of a run"):
        checkpoint.find(tmp_path)


def test_other_names_are_no_checkpoints_of_a_run(tmp_path):
    for name in ("step-5.part", "step-", "step-x", "steps", "step-7.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    assert checkpoint.latest(tmp_path) is None
