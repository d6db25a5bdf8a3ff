"""The notices: what a rank writes is what others read, and no more than its last calls are kept."""

import pytest

from minipar.comm.board import KEPT_CALLS, NOTICE_BYTES, Board
from minipar.comm.frame import MAX_SIGNATURE, SITE_BYTES, Call


@pytest.fixture
def memory():
    return bytearray(3 * NOTICE_BYTES)


def boards(memory):
    """Two views of the same notices, as two processes have them."""
    return Board(memoryview(memory)), Board(memoryview(memory))


def test_the_last_calls_of_every_rank(memory):
    mine, other = boards(memory)
    calls = [Call(7, i, "all_reduce", f"sum float32[{i}]", f"a.py:{i}") for i in range(20)]
    for n, call in enumerate(calls, 1):
        mine.write(1, call)
        assert other.last(1) == calls[max(0, n - KEPT_CALLS) : n]
    assert other.read(1) == "all_reduce #19 of group 7 (sum float32[19]) at a.py:19"
    assert other.last(0) == other.last(2) == []
    assert other.read(0) == "none yet"


def test_what_a_rank_did_instead(memory):
    mine, other = boards(memory)
    call = Call(0, 3, "gather", "to 0 float32[1]", "a.py:1")
    assert other.did(1, call) == "the last call of rank 1: none yet"
    mine.write(1, call._replace(signature="to 1 float32[1]"))
    mine.write(1, Call(0, 3, "send", "", "b.py:2"))
    assert "rank 1's own call of that number: gather #3 (to 1" in other.did(1, call)
    assert other.did(1, call._replace(sequence=4)).endswith("send #3 at b.py:2")


def test_whom_a_rank_waits_for_or_has_waited_for_in_vain(memory):
    mine, other = boards(memory)
    assert other.awaited(1) is None
    mine.write(1, Call(0, 0, "recv", "from 2", "a.py:1"))
    mine.begin_wait(1, 2)
    assert other.awaited(1) == 2
    mine.end_wait(1)
    assert other.awaited(1) is None
    for whom in (2, 0, -1):
        mine.begin_wait(1, whom)
        mine.give_up(1, whom)
        mine.end_wait(1)
        assert other.awaited(1) == whom
    mine.write(1, Call(0, 1, "recv", "from 2", "a.py:2"))  # the script has caught the error
    assert other.awaited(1) is None


def test_the_same_call_again_differs_in_its_number(memory):
    """Only what has changed is written, so this is where a stale record would show."""
    mine, other = boards(memory)
    for i in range(3 * KEPT_CALLS):
        mine.write(0, Call(0, i, "barrier", "by direct", "a.py:1" if i % 3 else "b.py:2"))
    assert [call.sequence for call in other.last(0)] == list(range(16, 24))
    assert [call.site for call in other.last(0)][-3:] == ["b.py:2", "a.py:1", "a.py:1"]


def test_texts_that_are_too_long_are_cut(memory):
    mine, other = boards(memory)
    mine.write(2, Call(1, 2, "all_reduce", "s" * 200, "folder/" * 40 + "file.py:123"))
    (call,) = other.last(2)
    assert len(call.signature) <= MAX_SIGNATURE and len(call.site) == SITE_BYTES
    assert call.site.endswith("folder/file.py:123")


def test_waits_are_counted(memory):
    mine, other = boards(memory)
    for r in range(3):
        for _ in range(r):
            mine.begin_wait(r, (r + 1) % 3)
            assert other.waits(r) % 2 == 1
            mine.end_wait(r)
    assert [other.waits(r) for r in range(3)] == [0, 2, 4]
    assert [other.waits_for(r) for r in (1, 2)] == [2, 0]
    mine.second_turns(1)
    assert [other.second(r) for r in range(3)] == [0, 1, 0]
    mine.begin_wait(1, 1)  # for its own second thread, ...
    mine.second_turns(1, 0)  # ... which waits for rank 0
    assert other.waits_for(1) == 0 and other.second(1) == 2
