"""Reading: any box of any array, only the files that it needs, all verified before any is used."""

import numpy as np
import pytest

from minipar.errors import CheckpointError
from minipar.parallel.boxes import Box
from minipar.parallel.checkpoint import Checkpoint, files, writer
from minipar.parallel.checkpoint.writer import Part
from minipar.parallel.held import Held

X = np.arange(35, dtype=np.float32).reshape(5, 7)
CUTS = [Box((0, 0), (2, 3)), Box((0, 3), (2, 7)), Box((2, 0), (5, 6)), Box((2, 6), (5, 7))]


@pytest.fixture
def folder(tmp_path):
    """X in four files, and two more arrays."""
    place = tmp_path / "c"
    writer.begin(place)
    parts = [Part("model/x", X.shape, box, X[box.inside(Box((0, 0), (5, 7)))]) for box in CUTS]
    parts += [Part("model/n", (), Box((), ()), np.asarray(5))]
    parts += [Part("model/none", (0, 2), Box((0, 0), (0, 2)), np.zeros((0, 2)))]
    writer.write(place, 0, parts)
    writer.commit(place, 1, {"step": 3})
    return place


def test_whole_arrays_are_put_together(folder):
    source = Checkpoint(folder)
    assert source.meta == {"step": 3}
    assert source.array("model/x").tobytes() == X.tobytes()
    assert source.array("model/n") == 5 and source.array("model/none").shape == (0, 2)
    with pytest.raises(CheckpointError, match="has no model/y"):
        source.array("model/y")


@pytest.mark.parametrize("first", [0, 3, 8, 20])
@pytest.mark.parametrize("last", [20, 21, 35])
def test_any_flat_range_is_read(folder, first, last):
    mine = np.zeros(last - first, np.float32)
    Checkpoint(folder).load([Held("model/x", mine, (5, 7), first)])
    assert mine.tolist() == list(range(first, last))


def test_each_file_is_hashed_once_and_only_if_it_is_needed(folder, monkeypatch):
    seen, mapped = [], files.mapped

    def watched(place, shard, dtype, *, verify):
        seen.extend([shard.file] * verify)
        return mapped(place, shard, dtype, verify=verify)

    monkeypatch.setattr(files, "mapped", watched)
    source, view = Checkpoint(folder), np.zeros((1, 7), np.float32)
    for _ in range(2):
        source.fill([("model/x", Box((1, 0), (2, 7)), view)])
    assert view.tolist() == X[1:2].tolist()
    assert seen == ["model/x.0-0.npy", "model/x.0-3.npy"]
    damage(folder / "model/x.2-0.npy")  # nobody has asked for it
    source.fill([("model/x", Box((1, 0), (2, 7)), view)])
    with pytest.raises(CheckpointError, match=r"x\.2-0\.npy is damaged"):
        source.array("model/x")


def damage(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_nothing_is_changed_before_all_is_verified(folder):
    """The damaged file is the last one that is needed."""
    damage(folder / "model/x.2-6.npy")
    x, n = np.zeros((5, 7), np.float32), np.asarray(0)
    with pytest.raises(CheckpointError, match=r"x\.2-6\.npy is damaged"):
        Checkpoint(folder).load([Held("model/n", n, ()), Held("model/x", x, (5, 7))])
    assert n == 0 and not x.any()


@pytest.mark.parametrize("other", [np.zeros((5, 7)), np.zeros((7, 5), np.float32)])
def test_another_dtype_or_shape_is_another_model(folder, other):
    with pytest.raises(CheckpointError, match=r"model/x is float32\[5, 7\] there, and float"):
        Checkpoint(folder).load([Held("model/x", other, other.shape)])


def test_problems_are_damage_and_files_that_do_not_belong_there(folder):
    assert list(Checkpoint(folder).problems()) == []
    damage(folder / "model/n.npy")
    (folder / "model/x.0-3.npy").unlink()
    (folder / "model/other.npy").write_bytes(b"x")
    found = "\n".join(Checkpoint(folder).problems())
    assert found.count("\n") == 2
    for said in ("n.npy is damaged", "x.0-3.npy cannot be read", "other.npy is not in the manif"):
        assert said in found


def test_many_files_do_not_use_up_what_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: None)
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = 300
    writer.begin(tmp_path / "c")
    parts = [Part("x", (n,), Box((i,), (i + 1,)), np.full(1, i)) for i in range(n)]
    writer.write(tmp_path / "c", 0, parts)
    writer.commit(tmp_path / "c", 1, {})
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        assert Checkpoint(tmp_path / "c").array("x").tolist() == list(range(n))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
