import io
import pickle
import tarfile

import numpy as np
import pytest

from minipar.data.cifar import load_cifar
from minipar.errors import UsageError


def records(labels, coarse=False):
    """One record a label; image k is k in red, 100 + k in green, a ramp in blue."""
    data = b""
    for k, label in enumerate(labels):
        ramp = np.arange(1024, dtype=np.uint16).astype(np.uint8).tobytes()
        data += bytes([77, label] if coarse else [label])
        data += bytes([k]) * 1024 + bytes([100 + k]) * 1024 + ramp
    return data


CIFAR10 = {f"data_batch_{n}.bin": records([n, n + 1]) for n in range(1, 6)}
CIFAR10["test_batch.bin"] = records([0, 9, 4])
CIFAR100 = {"train.bin": records([99, 0], True), "test.bin": records([5], True)}


def place(tmp_path, files, tar):
    """The files in a folder, or in a .tar.gz."""
    if not tar:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        return tmp_path
    path = tmp_path / "cifar-binary.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-batches-bin/{name}")
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("tar", [False, True])
def test_cifar10_is_read(tmp_path, tar):
    x, y, val_x, val_y, classes = load_cifar(place(tmp_path, CIFAR10, tar))
    assert x.shape == (10, 32, 32, 3) and x.dtype == np.uint8
    assert y.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6] and y.dtype == np.int64
    assert (val_x.shape, val_y.tolist(), classes) == ((3, 32, 32, 3), [0, 9, 4], 10)
    assert (val_x[2, ..., 0] == 2).all() and (val_x[2, ..., 1] == 102).all()
    assert val_x[2, 1, :3, 2].tolist() == [32, 33, 34]  # rows of 32, one after the other


@pytest.mark.parametrize("tar", [False, True])
def test_cifar100_has_fine_labels(tmp_path, tar):
    x, y, val_x, val_y, classes = load_cifar(place(tmp_path, CIFAR100, tar))
    assert (y.tolist(), val_y.tolist(), classes) == ([99, 0], [5], 100)
    assert (x[1, ..., 1] == 101).all() and len(val_x) == 1


class Trap:
    def __reduce__(self):
        return exec, ("raise AssertionError('it was unpickled')",)


@pytest.mark.parametrize("tar", [False, True])
def test_pickle_is_refused_unread(tmp_path, tar):
    files = dict.fromkeys(("data_batch_1", "test_batch", "batches.meta"), pickle.dumps(Trap()))
    with pytest.raises(UsageError, match=r"Python version .* take the binary version"):
        load_cifar(place(tmp_path, files, tar))


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data_batch_3.bin": b""}, r"data_batch_3.bin has 0 bytes; .* records of 3073"),
        ({"data_batch_3.bin": records([1])[:-1]}, "data_batch_3.bin has 3072 bytes"),
        ({"test_batch.bin": records([1, 10])}, "test_batch.bin: record 1 has the label 10"),
    ],
)
def test_a_damaged_file_gets_a_sentence_with_its_name(tmp_path, files, message, tar):
    with pytest.raises(UsageError, match=message):
        load_cifar(place(tmp_path, {**CIFAR10, **files}, tar))


def test_missing_files_are_named(tmp_path):
    files = {name: CIFAR10[name] for name in ("data_batch_1.bin", "data_batch_4.bin")}
    with pytest.raises(
        UsageError, match=r"no data_batch_2.bin, data_batch_3.bin, data_batch_5.bin, t"
    ):
        load_cifar(place(tmp_path, files, False))


def test_another_archive_gets_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="holds no CIFAR"):
        load_cifar(place(tmp_path, {"a.txt": b"a"}, True))


@pytest.mark.parametrize("cut", [0, 100, -60])
def test_an_archive_that_was_cut_off_gets_a_sentence(tmp_path, cut):
    path = place(tmp_path, CIFAR100, True)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UsageError, match=r"cifar-binary.tar.gz"):
        load_cifar(path)
