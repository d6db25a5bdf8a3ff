import numpy as np
import pytest

from minipar.data.images import Images, load_images
from minipar.errors import UsageError
from tests.data.test_cifar import CIFAR100, place
from tests.data.test_idx import PARTS, write


def test_glyphs_are_the_default_and_normalised():
    train, val = load_images(train=200, validation=50)
    assert (len(train), len(val), train.shape, train.classes) == (200, 50, (28, 28, 1), 10)
    x, y = train.batch(np.arange(200))
    assert x.dtype == np.float32 and y.dtype == np.int64
    assert abs(x.mean()) < 1e-5 and abs(x.std() - 1) < 1e-5


def test_validation_is_normalised_by_the_training_set():
    mean, std = np.array([10.0, 20.0, 30.0]), np.array([1.0, 2.0, 4.0])
    pixels = np.arange(2 * 3, dtype=np.uint8).reshape(2, 1, 1, 3)
    x, y = Images(pixels, np.array([5, 6]), 7, mean, std).batch(np.array([1, 1, 0]))
    assert x[:, 0, 0].tolist() == [[-7, -8, -6.25]] * 2 + [[-10, -9.5, -7]]
    assert y.tolist() == [6, 6, 5]


def test_mnist_files_are_found_by_their_folder_or_by_one_of_them(tmp_path):
    write(tmp_path)
    for path in (tmp_path, tmp_path / "t10k-labels-idx1-ubyte", str(tmp_path)):
        train, val = load_images(path)
        assert (train.shape, len(val), train.classes) == ((2, 4, 1), 2, 4)
        pixels = PARTS["train-images-idx3-ubyte"]
        x, _ = val.batch(np.array([1]))
        expected = (PARTS["t10k-images-idx3-ubyte"][1] - pixels.mean()) / pixels.std()
        assert np.allclose(x[0, ..., 0], expected, atol=1e-6)


def test_cifar_is_found_in_a_folder_and_in_an_archive(tmp_path):
    place(tmp_path, CIFAR100, False)
    for path in (tmp_path, place(tmp_path, CIFAR100, True)):
        train, val = load_images(path)
        assert (train.shape, len(train), len(val), val.classes) == ((32, 32, 3), 2, 1, 100)
        x, _ = train.batch(np.arange(2))
        assert np.allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-5)
        assert np.allclose(x.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_a_channel_of_one_value_becomes_zero(tmp_path):
    write(tmp_path, train_images=np.full((3, 2, 4), 9))
    train, _ = load_images(tmp_path)
    assert not train.batch(np.arange(3))[0].any()


def test_what_is_not_there_gets_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="nowhere does not exist"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="it has nothing"):
        load_images(tmp_path)
    (tmp_path / "cat.jpg").write_bytes(b"\xff")
    for path in (tmp_path, tmp_path / "cat.jpg"):
        with pytest.raises(UsageError, match=r"it has cat.jpg. Expected are"):
            load_images(path)
    (tmp_path / "data_batch_1").write_bytes(b"\x80")
    with pytest.raises(UsageError, match="take the binary version"):
        load_images(tmp_path)


def test_a_file_that_is_no_images_is_the_one_that_is_named(tmp_path):
    (tmp_path / "text.txt").write_text("no image")
    with pytest.raises(UsageError, match=r"text.txt lies in a folder that holds no images"):
        load_images(tmp_path / "text.txt")
