"""Checkpoints: what goes in comes out, damage is named, a crash leaves the one before."""

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


def test_files_are_plain_npy_and_the_manifest_has_global_shapes_and_slices(tmp_path):
    checkpoint.save(tmp_path / "c", ARRAYS, {})
    manifest = json.loads((tmp_path / "c/manifest.json").read_text())
    entry = manifest["arrays"]["model/blocks.0.weight"]
    assert (entry["shape"], entry["dtype"]) == ([2, 3], "float32")
    (piece,) = entry["slices"]
    assert (piece["start"], piece["stop"]) == ([0, 0], [2, 3])
    plain = np.load(tmp_path / "c" / piece["file"], allow_pickle=False)
    assert (plain == ARRAYS["model/blocks.0.weight"]).all()


def test_an_array_in_several_slices_is_put_together(tmp_path):
    """What a layout with sharded weights writes: two files for one array."""
    checkpoint.save(tmp_path / "c", {"top": np.ones((1, 3)), "rest": np.zeros((2, 3))}, {})
    path = tmp_path / "c/manifest.json"
    manifest = json.loads(path.read_text())
    top, rest = (manifest["arrays"].pop(name)["slices"][0] for name in ("top", "rest"))
    rest |= {"start": [1, 0], "stop": [3, 3]}
    manifest["arrays"]["w"] = {"shape": [3, 3], "dtype": "float64", "slices": [top, rest]}
    path.write_text(json.dumps(manifest))
    assert checkpoint.load(tmp_path / "c")[0]["w"].tolist() == [[1] * 3, [0] * 3, [0] * 3]


def test_damage_is_named(tmp_path):
    checkpoint.save(tmp_path / "c", ARRAYS, {})
    victim = tmp_path / "c/model/half.npy"
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"half\.npy is damaged"):
        checkpoint.load(tmp_path / "c")
    victim.unlink()
    with pytest.raises(CheckpointError, match="model/half cannot be read"):
        checkpoint.load(tmp_path / "c")


@pytest.mark.parametrize("text", ["", "{", '{"format": "another"}'])
def test_another_folder_is_not_a_checkpoint(tmp_path, text):
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        checkpoint.load(tmp_path)


def test_a_manifest_cannot_read_files_outside_its_folder(tmp_path):
    np.save(tmp_path / "secret.npy", np.zeros(2))
    checkpoint.save(tmp_path / "c", {"x": np.zeros(2)}, {})
    path = tmp_path / "c/manifest.json"
    path.write_text(path.read_text().replace('"x.npy"', '"../secret.npy"'))
    with pytest.raises(CheckpointError, match="outside"):
        checkpoint.load(tmp_path / "c")


def test_a_crash_while_writing_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint.save_step(tmp_path, 10, {"x": np.full(2, 10)}, {})

    def full_disk(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint.np, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save_step(tmp_path, 20, {"x": np.full(2, 20)}, {})
    assert checkpoint.load(checkpoint.latest(tmp_path))[0]["x"].tolist() == [10, 10]


def test_saving_over_a_checkpoint_never_leaves_none(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "c", {"x": np.full(1, 1)}, {})
    seen = []
    rename = checkpoint.os.rename

    def watched(src, dst):
        rename(src, dst)
        seen.append([checkpoint.load(path)[0]["x"][0] for path in sorted(tmp_path.iterdir())])

    monkeypatch.setattr(checkpoint.os, "rename", watched)
    checkpoint.save(tmp_path / "c", {"x": np.full(1, 2)}, {})
    assert seen == [[1, 2], [2, 1]]  # the old one is there until the new one has its name
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_only_the_latest_is_kept_and_found(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in (5, 100, 2000000):
        last = checkpoint.save_step(tmp_path, step, {"x": np.full(1, step)}, {})
        assert checkpoint.latest(tmp_path) == last
    assert [p.name for p in tmp_path.iterdir()] == ["step-2000000"]
