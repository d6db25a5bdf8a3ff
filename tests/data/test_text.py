import numpy as np
import pytest

from minipar.data.text import TextWindows, load_text, stdlib_sources
from minipar.errors import UsageError


def test_the_standard_library_is_the_default():
    files = stdlib_sources()
    assert files == sorted(files) and any(p.name == "ast.py" for p in files)
    train, val = load_text()
    assert train.dtype == val.dtype == np.uint8
    assert len(train) + len(val) == sum(p.stat().st_size for p in files)
    assert val.tobytes().startswith(files[9].read_bytes())
    assert train.tobytes().startswith(files[0].read_bytes() + files[1].read_bytes())


def test_of_a_file_the_last_tenth_is_for_validation(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(65, 90)))
    train, val = load_text(tmp_path / "a.txt")
    assert train.tobytes() == bytes(range(65, 88)) and val.tobytes() == bytes(range(88, 90))


def test_of_many_files_every_tenth_is_for_validation(tmp_path):
    for n in range(20):
        folder = tmp_path / str(n // 10)
        folder.mkdir(exist_ok=True)
        (folder / f"{n:02}.txt").write_text(chr(65 + n) * 2)
    (tmp_path / "0" / "picture.png").write_bytes(b"\x89PNG\0\xff")  # passed over
    train, val = load_text(str(tmp_path))
    assert val.tobytes() == b"JJTT" and train.tobytes() == b"AABBCCDDEEFFGGHHIIKKLLMMNNOOPPQQRRSS"


def test_of_few_files_the_last_tenth_is(tmp_path):
    (tmp_path / "a").write_text("a" * 30)
    (tmp_path / "b").write_text("b" * 20)
    train, val = load_text(tmp_path)
    assert (train.tobytes(), val.tobytes()) == (b"a" * 30 + b"b" * 15, b"b" * 5)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "is empty"), (b"a\0b", "not text"), (b"\xff\xfe", "not text")],
)
def test_what_is_no_text_gets_a_sentence(tmp_path, content, message):
    path = tmp_path / "data"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_text(path)


def test_a_folder_without_text_gets_a_sentence(tmp_path):
    (tmp_path / "x").write_bytes(b"\0")
    with pytest.raises(UsageError, match="holds no text"):
        load_text(tmp_path)


def test_windows_do_not_overlap_and_y_is_one_byte_later():
    windows = TextWindows(np.arange(14, dtype=np.uint8), block=4)
    assert len(windows) == 3  # 13 targets, 4 at a time
    x, y = windows.batch(np.array([2, 0]))
    assert x.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]] and (y == x + 1).all()
    assert x.dtype == np.int64
    assert len(TextWindows(np.arange(13, dtype=np.uint8), 4)) == 3
    assert len(TextWindows(np.arange(12, dtype=np.uint8), 4)) == 2


def test_a_short_text_gets_a_sentence():
    with pytest.raises(UsageError, match="has 4 bytes, a window needs 5"):
        TextWindows(np.zeros(4, np.uint8), 4)
