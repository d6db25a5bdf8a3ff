import gc
import itertools
import threading
import weakref

import numpy as np
import pytest

from minipar.data.sampler import rows_of
from minipar.data.sources import Wait, counted, lines
from minipar.data.stream import Stream, dealt, stack
from minipar.errors import UsageError


def numbers(n=None):
    return counted(lambda: itertools.count() if n is None else range(n))


def test_examples_are_cut_into_batches_and_a_rest_is_dropped():
    with Stream(numbers(11), batch=4) as stream:
        assert [batch.tolist() for batch in stream] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert stream.position == 8


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_the_ranks_rows_are_disjoint_complete_and_in_order(p):
    streams = [Stream(numbers(40), 6, rows=rows_of(6, r, p)) for r in range(p)]
    batches = list(zip(*streams, strict=True))
    assert np.concatenate(list(itertools.chain(*batches))).tolist() == list(range(36))
    assert {stream.position for stream in streams} == {36}


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_one_rank_reads_and_deals_the_same_rows(p):
    mail = []

    def deal_from_reader(parts):
        assert len(parts) == p
        mail.append(parts)
        return parts[0]

    with Stream(numbers(40), 6) as stream:
        received = [[b.tolist() for b in dealt(stream, p, deal_from_reader)]]
    for r in range(1, p):
        letters = iter(mail)
        received.append(
            [
                b.tolist()
                for b in dealt(None, p, lambda parts, r=r, letters=letters: next(letters)[r])
            ]
        )
    batches = [np.concatenate(parts) for parts in zip(*received, strict=True)]
    assert np.concatenate(batches).tolist() == list(range(36)) and len(batches) == 6


def test_it_goes_on_from_a_saved_position_and_not_from_what_was_read_ahead():
    with Stream(numbers(), 5, ahead=4) as stream:
        before = [next(stream).tolist() for _ in range(3)]
        saved = stream.position
    assert saved == 15 and before[-1] == [10, 11, 12, 13, 14]
    with Stream(numbers(), 5, start=saved) as stream:
        assert next(stream).tolist() == [15, 16, 17, 18, 19]


def test_a_growing_file_goes_on_where_it_was_left(tmp_path):
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(7)))
    with Stream(lines(path), 3, collate=lambda some: [int(line) for line in some]) as stream:
        assert list(stream) == [[0, 1, 2], [3, 4, 5]]
        saved = stream.position
    with path.open("a") as file:
        file.write("7\n8\n")
    with Stream(lines(path), 3, collate=list, start=saved) as stream:
        assert list(stream) == [["6", "7", "8"]]


def test_lines_that_are_written_while_it_is_read_arrive(tmp_path):
    path = tmp_path / "numbers.txt"
    path.touch()
    with Stream(lines(path, follow=True, poll_s=0.001), 2, list) as stream, path.open("a") as file:
        for n in range(0, 10, 2):
            file.write(f"{n}\n{n + 1}\n")
            file.flush()
            assert next(stream) == [str(n), str(n + 1)]


class Example:
    """Counts those of its kind that are alive."""

    def __init__(self, alive):
        alive.add(self)


@pytest.mark.parametrize(("batch", "ahead"), [(1, 1), (8, 2), (4, 5)])
def test_memory_stays_bounded(batch, ahead):
    """`ahead` batches wait, one is put together, one is in the caller's hand; a few in between."""
    alive, most = weakref.WeakSet(), 0
    source = counted(lambda: (Example(alive) for _ in itertools.count()))
    with Stream(source, batch, collate=list, ahead=ahead) as stream:
        for _ in range(200):
            kept = next(stream)
            most = max(most, len(alive))
    assert len(kept) == batch and most <= (ahead + 2) * batch + 2
    del kept, stream
    gc.collect()
    assert not alive


def test_a_rank_keeps_only_its_rows():
    alive = weakref.WeakSet()
    source = counted(lambda: (Example(alive) for _ in itertools.count()))
    with Stream(source, 100, list, rows=range(3, 5), ahead=2) as stream:
        for _ in range(20):
            assert len(next(stream)) == 2 and len(alive) <= 2 * (2 + 2) + 2


def test_an_error_of_the_source_or_of_collate_arrives():
    def breaks():
        yield from range(5)
        raise OSError("the disk is gone")

    with Stream(counted(breaks), 2) as stream:
        assert [next(stream).tolist(), next(stream).tolist()] == [[0, 1], [2, 3]]
        with pytest.raises(OSError, match="the disk is gone"):
            next(stream)
    broken = Stream(numbers(), 2, collate=lambda some: 1 / 0)
    with broken as stream, pytest.raises(ZeroDivisionError):
        next(stream)


def test_close_leaves_no_thread():
    before = threading.active_count()
    for source in (numbers(), numbers(3), counted(lambda: (Wait(1000) for _ in itertools.count()))):
        stream = Stream(source, 2)
        assert stream.close() and threading.active_count() == before
        assert list(stream) == []


def test_examples_are_stacked_as_they_are_nested():
    (dense, ids), y = stack([((np.zeros(3), 1), 2), ((np.ones(3), 4), 5)])
    assert dense.tolist() == [[0] * 3, [1] * 3] and ids.tolist() == [1, 4] and y.tolist() == [2, 5]


@pytest.mark.parametrize(
    "bad", [{"batch": 0}, {"ahead": 0}, {"rows": range(3, 5)}, {"rows": range(0)}]
)
def test_what_cannot_be_gets_a_sentence(bad):
    with pytest.raises(UsageError, match="A stream needs"):
        Stream(numbers(), **{"batch": 4, **bad})


def test_the_rank_that_deals_must_read_all_rows():
    half = Stream(numbers(), 4, rows=range(2))
    with half as stream, pytest.raises(UsageError, match="must read all rows of a batch"):
        next(dealt(stream, 2, lambda parts: parts[0]))
    with Stream(numbers(), 4) as stream, pytest.raises(UsageError, match="use 3 or 6"):
        next(dealt(stream, 3, lambda parts: parts[0]))
