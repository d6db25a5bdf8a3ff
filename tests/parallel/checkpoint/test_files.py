"""Files: plain .npy that NumPy reads, and damage of every kind that is named."""

import hashlib
import os

import numpy as np
import pytest

from minipar.errors import CheckpointError
from minipar.parallel.boxes import whole
from minipar.parallel.checkpoint import files
from minipar.parallel.checkpoint.manifest import Shard

X = np.arange(24, dtype=np.float32).reshape(4, 6)
ARRAYS = [
    X,
    X.T,
    X[:, 1:3],
    np.asarray(7),
    np.zeros((0, 3), np.int8),
    np.array([True, False]),
    np.array([1.5, -2], np.float16),
    np.ones(100_001, np.complex64),  # several blocks
]


def written(folder, array=X, name="w.npy"):
    nbytes, digest = files.write(folder / name, array)
    return Shard(name, whole(array.shape), nbytes, digest)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_what_is_written_is_plain_and_comes_back_bit_by_bit(tmp_path, array):
    shard = written(tmp_path, array)
    raw = (tmp_path / "w.npy").read_bytes()
    assert (len(raw), hashlib.sha256(raw).hexdigest()) == (shard.nbytes, shard.sha256)
    plain = np.load(tmp_path / "w.npy", allow_pickle=False)
    back = files.mapped(tmp_path, shard, array.dtype.name, verify=True)
    for found in (plain, back):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
    assert not back.flags.writeable and not back.flags.owndata


def test_bfloat16_lies_there_as_its_bits(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    array = np.array([1.5, -3e38], bfloat16)
    shard = written(tmp_path, array)
    assert np.load(tmp_path / "w.npy").dtype == np.uint16
    back = files.mapped(tmp_path, shard, "bfloat16", verify=True)
    assert back.dtype == bfloat16 and back.tobytes() == array.tobytes()


def refused(folder, shard, said, dtype="float32"):
    with pytest.raises(CheckpointError, match=r"w\.npy") as error:
        files.mapped(folder, shard, dtype, verify=True)
    assert said in str(error.value)


def test_a_file_that_is_cut_off_longer_or_not_there(tmp_path):
    shard, path = written(tmp_path), tmp_path / "w.npy"
    raw = path.read_bytes()
    for other in (raw[:-1], raw[:100], b"", raw + b"\0"):
        path.write_bytes(other)
        refused(tmp_path, shard, f"has {len(other)} bytes, not {len(raw)}")
    path.unlink()
    refused(tmp_path, shard, "No such file")
    path.mkdir()
    refused(tmp_path, shard, "cannot be read")


def test_every_flipped_bit_is_seen(tmp_path):
    shard, path = written(tmp_path), tmp_path / "w.npy"
    raw = path.read_bytes()
    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
        refused(tmp_path, shard, "damaged, or of another checkpoint: its sha256")


def test_a_file_of_another_checkpoint_is_seen_by_its_hash(tmp_path):
    shard = written(tmp_path)
    files.write(tmp_path / "w.npy", X + 1)
    refused(tmp_path, shard, "of another checkpoint")


@pytest.mark.parametrize("other", [X.reshape(6, 4), X.astype(np.int32), X.reshape(2, 12)])
def test_a_hash_that_fits_does_not_make_another_array_of_it(tmp_path, other):
    """A hostile manifest has the hash of a file that holds something else."""
    shard = written(tmp_path, other)._replace(box=whole(X.shape))
    refused(tmp_path, shard, "is not what the manifest says")


def test_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os._exit, (3,)

    with open(tmp_path / "w.npy", "wb") as file:
        np.save(file, np.array([Bomb()]), allow_pickle=True)
    raw = (tmp_path / "w.npy").read_bytes()
    shard = Shard("w.npy", whole((1,)), len(raw), hashlib.sha256(raw).hexdigest())
    refused(tmp_path, shard, "it holds object[1], not float32[1]")


def test_links_and_pipes_lead_nowhere(tmp_path):
    (tmp_path / "c").mkdir()
    shard, path = written(tmp_path / "c"), tmp_path / "c/w.npy"
    os.rename(path, tmp_path / "outside.npy")
    path.symlink_to(tmp_path / "outside.npy")
    refused(tmp_path / "c", shard, "lies outside the checkpoint")
    path.unlink()
    os.mkfifo(path)
    refused(tmp_path / "c", shard, "it is not a file")  # and nobody waits for a writer


def test_text_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a", "one")

    def cut(*_):
        raise OSError("power cut")

    monkeypatch.setattr(files.os, "fsync", cut)
    with pytest.raises(OSError, match="power cut"):
        files.write_text(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
