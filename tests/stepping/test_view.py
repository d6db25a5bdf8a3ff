"""Text for people: values, columns and chunks, to the letter."""

import numpy as np

from minipar.stepping.view import Row, chunks_text, columns, value_text
from minipar.tensor import Tensor


def test_small_arrays_are_shown_whole_and_large_ones_at_their_ends():
    assert value_text(np.arange(4.0) / 3) == "float64[4] 0 0.333333 0.666667 1"
    assert value_text(np.arange(100).reshape(10, 10)) == "int64[10, 10] 0 1 2 ... 97 98 99"
    assert value_text(Tensor([1.5])) == "Tensor float32[1] 1.5"
    assert value_text("x" * 300) == "'" + "x" * 196 + "..."
    assert value_text(np.float32(2)) == repr(np.float32(2))


def row(rank, here=False):
    return Row(
        rank, here, f"a.py:{rank}", "x = group.all_reduce(gradients)", "sent 8 B to 1", "waits"
    )


def test_ranks_stand_side_by_side_as_far_as_there_is_room():
    text = columns([row(0, here=True), row(1), row(2)], 50)
    first, second = text.split("\n\n")
    assert first.splitlines() == [
        "rank 0 <                rank 1",
        "a.py:0                  a.py:1",
        "x = group.all_reduce... x = group.all_reduce...",
        "sent 8 B to 1           sent 8 B to 1",
        "waits                   waits",
    ]
    assert second.splitlines()[0] == "rank 2"
    assert "\n\n" not in columns([row(0), row(1), row(2)], 80)


def test_chunks_with_who_is_in_them():
    arrays = [np.arange(4.0), None]
    assert (
        chunks_text(arrays) == "        chunk 0  chunk 1\nrank 0  0 1      2 3\nrank 1  -        -"
    )
    parts = np.array([[1, 3], [2, 2]])
    assert chunks_text([np.arange(4.0), np.arange(40)], parts).splitlines()[1:] == [
        "rank 0  0.  0 1        01  2 3",
        "rank 1  .1  0 1 .. 19  .1  20 21 .. 39",
    ]
