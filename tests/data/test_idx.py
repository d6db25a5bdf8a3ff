import gzip

import numpy as np
import pytest

from minipar.data.idx import load_idx, read_idx
from minipar.errors import UsageError


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


PARTS = {
    "train-images-idx3-ubyte": np.arange(24).reshape(3, 2, 4),
    "train-labels-idx1-ubyte": np.array([2, 0, 1]),
    "t10k-images-idx3-ubyte": np.arange(16).reshape(2, 2, 4),
    "t10k-labels-idx1-ubyte": np.array([3, 3]),
}


def write(folder, **changes):
    for name, array in PARTS.items():
        (folder / name).write_bytes(
            idx(changes.get(name.partition("-idx")[0].replace("-", "_"), array))
        )


def test_the_four_files_are_read(tmp_path):
    write(tmp_path)
    train_x, train_y, val_x, val_y, classes = load_idx(tmp_path)
    assert train_x.shape == (3, 2, 4, 1) and train_x.dtype == np.uint8
    assert (train_x[..., 0] == PARTS["train-images-idx3-ubyte"]).all()
    assert (train_y.tolist(), val_y.tolist(), classes) == ([2, 0, 1], [3, 3], 4)
    assert val_x.shape == (2, 2, 4, 1) and train_y.dtype == np.int64


def test_gz_and_a_dot_in_the_name_are_read(tmp_path):
    for n, (name, array) in enumerate(PARTS.items()):
        name = name.replace("-idx", ".idx") if n % 2 else name
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    assert load_idx(tmp_path)[1].tolist() == [2, 0, 1]


WHOLE = idx(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0\0", "begins with 00 00;"),
        (b"\x89PNG" + bytes(20), "begins with 89 50 4e 47; .* begins with 00 00 08 02"),
        (WHOLE[:3] + b"\x03" + WHOLE[4:], "begins with 00 00 08 03"),
        (WHOLE[:2] + b"\x0d" + WHOLE[3:], "begins with 00 00 0d 02"),
        (WHOLE[:7], "ends after 7 bytes"),
        (WHOLE[:-1], r"says \[2, 3\], which is 6 bytes; only 5 follow"),
        (WHOLE + b"\0", "which is 6 bytes; more follow"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8 + bytes(9), "no data set is of that size"),
        (idx(np.zeros((0, 3))), "no data set is of that size"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_a_damaged_file_gets_a_sentence_with_its_name(tmp_path, content, message, gz):
    path = tmp_path / ("data.gz" if gz else "data")
    path.write_bytes(gzip.compress(content) if gz else content)
    with pytest.raises(UsageError, match=f"{path.name}.*{message}"):
        read_idx(path, 2)


@pytest.mark.parametrize("cut", [5, 30, -4])
def test_a_gz_that_was_cut_off_gets_a_sentence(tmp_path, cut):
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (9, 9))))[:cut])
    with pytest.raises(UsageError, match=r"data.gz is damaged: "):
        read_idx(path, 2)


def test_what_is_no_gz_gets_a_sentence(tmp_path):
    (tmp_path / "data.gz").write_bytes(WHOLE)
    with pytest.raises(UsageError, match=r"data.gz is damaged: Not a gzipped file"):
        read_idx(tmp_path / "data.gz", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.array([1])}, "train-images has 3 images, train-labels has 1"),
        ({"t10k_images": np.zeros((2, 2, 5))}, r"\[2, 4\] in train-images and \[2, 5\] in t10k"),
    ],
)
def test_files_of_different_sets_get_a_sentence(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(UsageError, match=message):
        load_idx(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match="has no t10k-labels-idx"):
        load_idx(tmp_path)
