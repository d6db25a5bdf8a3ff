import os
import threading

import pytest

from minipar.data.sources import LONGEST, Wait, counted, lines, pipe_lines
from minipar.errors import UsageError


def taken(items, n=None):
    """n examples and positions, or all; what says Wait is passed over."""
    found = []
    while n is None or len(found) < n:
        item = next(items, None)
        if item is None:
            break
        if not isinstance(item, Wait):
            found.append(item)
    return found


def test_counted_goes_on_after_a_position():
    source = counted(lambda: iter("abcd"))
    assert taken(source(None)) == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    assert taken(source(2)) == [("c", 3), ("d", 4)]
    assert taken(source(4)) == []
    with pytest.raises(UsageError, match="of 4 examples cannot go on after example 5"):
        taken(source(5))


def test_counted_passes_wait_on_uncounted():
    items = counted(lambda: [Wait(1), "a", Wait(2), "b"])(1)
    assert list(items) == [Wait(1), Wait(2), ("b", 2)]


@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_have_positions_in_bytes_from_which_they_go_on(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes("eins\r\n\nzwölf".encode() + end.encode())
    found = taken(lines(path)(None))
    assert [line for line, _ in found] == ["eins", "", "zwölf"]
    assert [at for _, at in found] == [6, 7, 13 + len(end)]
    for n, (_, at) in enumerate(found):
        assert taken(lines(path)(at)) == found[n + 1 :]


def test_a_file_that_grows_is_followed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb")
    items = lines(path, follow=True, poll_s=0.5)(None)
    assert next(items) == ("a", 2)
    assert next(items) == Wait(0.5) and next(items) == Wait(0.5)  # for the rest of b
    with path.open("a") as file:
        file.write("c\n")
        file.flush()
        assert taken(items, 1) == [("bc", 5)]
        file.write("d\n")
    assert taken(items, 1) == [("d", 7)]
    items.close()


def test_a_file_that_stays_as_it_is_ends_after_the_idle_limit(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    assert taken(lines(path, follow=True, idle_s=0.02)(None)) == [("a", 2)]


def test_a_file_that_has_become_shorter_gets_a_sentence(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n")
    with pytest.raises(UsageError, match="has 4 bytes, but 9 of them have been read before"):
        next(lines(path)(9))
    items = lines(path, follow=True)(None)
    assert len(taken(items, 2)) == 2
    path.write_text("a\n")
    with pytest.raises(UsageError, match="has 2 bytes, but 4 of them"):
        taken(items, 1)


def test_a_file_that_cannot_be_read_gets_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="nowhere cannot be read: No such file"):
        next(lines(tmp_path / "nowhere")(None))


def test_a_line_without_an_end_is_not_kept_in_memory(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(LONGEST + 1)
    with pytest.raises(UsageError, match="a line is longer than"):
        next(lines(path)(None))


def test_a_pipe_is_read_line_by_line_as_it_comes():
    out, into = os.pipe()
    with open(out, "rb"), open(into, "wb", buffering=0) as writer:
        items = pipe_lines(out, poll_s=0.001)(1)
        assert next(items) == Wait(0)
        writer.write(b"a\nb\nc")
        assert taken(items, 1) == [("b", 2)]
        writer.write(b"c\nd")
        assert taken(items, 1) == [("cc", 3)]
        writer.close()
        assert taken(items) == [("d", 4)]


def test_a_pipe_that_stays_silent_ends_after_the_idle_limit():
    out, into = os.pipe()
    with open(out, "rb"), open(into, "wb", buffering=0) as writer:
        writer.write(b"a\nb")
        assert taken(pipe_lines(out, idle_s=0.02, poll_s=0.001)(None)) == [("a", 1)]


def test_a_long_pipe_arrives_whole():
    out, into = os.pipe()

    def write():
        with open(into, "w") as writer:
            writer.writelines(f"{n}\n" for n in range(40_000))

    with open(out, "rb"):
        thread = threading.Thread(target=write)
        thread.start()
        found = taken(pipe_lines(out)(None))
        thread.join()
    assert [line for line, _ in found] == [str(n) for n in range(40_000)]
