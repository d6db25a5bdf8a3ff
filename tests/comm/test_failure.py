"""Failures: what they say, what they raise, where their traceback begins."""

import sys

import pytest

from minipar.comm import worker
from minipar.comm.failure import Failure, left_cleanly
from minipar.errors import PeerLost, RankFailed


def users_function(group):
    raise ValueError("why\nand more")


def failure_of_users_function():
    try:
        worker._call(None, list(sys.path), __name__, False, "users_function", b"\x80\x04).")
    except ValueError as error:
        launching = error.__traceback__.tb_next  # as in a rank: the first frames are minipar's
        return Failure.of(2, error.with_traceback(launching))


def test_a_traceback_begins_in_the_users_code():
    lines = failure_of_users_function().traceback.splitlines()
    assert __file__ in lines[1] and "worker.py" not in "".join(lines)


def test_it_raises_the_ranks_own_exception_with_its_traceback_as_the_cause():
    failure = failure_of_users_function()
    assert failure.summary == "rank 2 raised ValueError: why"
    with pytest.raises(ValueError, match="and more") as caught:
        failure.raise_it()
    assert "users_function" in str(caught.value.__cause__)


def test_an_exception_that_only_the_rank_can_read_is_described():
    elsewhere = b"cno_such_module\nNoSuchError\n."  # a pickle that names an unknown class
    with pytest.raises(RankFailed, match=r"rank 1 raised NoSuchError: why\nTraceback: line 3"):
        Failure(1, "rank 1 raised NoSuchError: why", "Traceback: line 3", elsewhere).raise_it()


def test_without_an_exception_it_is_described():
    with pytest.raises(PeerLost, match="gone"):
        Failure(1, "rank 1 is gone").raise_it()
    with pytest.raises(RankFailed, match="line 3"):
        Failure(1, "rank 1 raised", "Traceback: line 3").raise_it()


def test_minipars_own_errors_speak_for_themselves():
    assert Failure.of(0, PeerLost("rank 1 has left\nmore")).summary == "rank 1 has left"


@pytest.mark.parametrize(
    ("code", "clean", "status"), [(0, True, 0), (None, True, 0), (3, False, 3)]
)
def test_sys_exit(code, clean, status):
    assert left_cleanly(SystemExit(code)) == clean
    assert clean or Failure.of(1, SystemExit(code)).exit_code == status
    assert Failure.of(1, SystemExit("text")).exit_code == 1


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


def test_an_exception_that_cannot_say_its_text():
    failure = Failure.of(1, Mute())
    assert failure.summary.startswith("rank 1 raised Mute: (its text cannot be had")
    assert "Mute" in failure.traceback


def test_summaries_are_short():
    assert len(Failure.of(1, ValueError("x" * 10**6)).summary) < 400
    assert "x" * 10**6 in Failure.of(1, ValueError("x" * 10**6)).traceback


def test_exit_codes_that_a_process_cannot_have():
    assert Failure.of(1, SystemExit(256)).exit_code == 1
    assert Failure.of(1, SystemExit(-1)).exit_code == 255
