"""Conditions at which a run is to stop: which of them hold, and which are none."""

import pytest

from minipar.errors import UsageError
from minipar.events import EVERYBODY, Event
from minipar.stepping.breaks import BEGINS, GETS, SENDS, Happening, parse


def event(src, dst, op, nbytes, algorithm=""):
    return Event(src, dst, op, 3, nbytes, "work/ring.py:14", algorithm)


BEGUN = Happening(1, 2, BEGINS, event(2, EVERYBODY, "all_reduce", 64, "ring"))
SENT = Happening(2, 2, SENDS, event(2, 3, "all_reduce", 16, "ring"))
GOT = Happening(3, 0, GETS, event(3, 0, "send", 2_000_000))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("rank 2", [True, True, False]),
        ("all_reduce", [True, True, False]),
        ("sends", [False, True, False]),
        ("rank 0, gets", [False, False, True]),
        ("bytes > 1e6", [False, False, True]),
        ("bytes=16", [False, True, False]),
        ("bytes <= 64, all_reduce", [True, True, False]),
        ("ring.py:14", [True, True, True]),
        ("ring.py:1", [False, False, False]),
        ("send", [False, False, True]),
    ],
)
def test_a_condition_holds_where_it_says(text, holds):
    assert [parse(text, 4).holds(h) for h in (BEGUN, SENT, GOT)] == holds


@pytest.mark.parametrize(
    "text", ["", "rank", "sendrecv", "bytes", "bytes > many", "rank 1,", "x.py"]
)
def test_what_is_no_condition_is_told_what_there_is(text):
    with pytest.raises(UsageError, match=r"is no condition; there are: rank 2, all_reduce"):
        parse(text, 4)


def test_what_happens_in_words():
    assert str(BEGUN) == "rank 2 begins all_reduce #3 of 64 B by ring"
    assert str(SENT) == "rank 2 sends 16 B to rank 3 in all_reduce #3 by ring"
    assert str(GOT) == "rank 0 gets 2000000 B from rank 3"
    assert [h.short for h in (BEGUN, SENT, GOT)] == [
        "began all_reduce #3",
        "sent 16 B to 3",
        "got 2000000 B from 3",
    ]
