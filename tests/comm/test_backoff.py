"""Waiting: what is called, what is said, and when it ends."""

import pytest

from minipar.comm import backoff
from minipar.errors import CommTimeout, PeerLost


def nothing():
    return False


def wait(ready, move=nothing, check=nothing, timeout_s=10.0):
    backoff.wait_until(ready, move, check, lambda s: f"waited {s:.0f} s for rank 1", timeout_s)


def test_a_wait_ends_when_it_is_ready_and_moves_until_then():
    moves = []
    wait(lambda: len(moves) == 50, move=lambda: not moves.append(1))
    assert len(moves) == 50


def test_a_wait_ends_with_what_check_raises():
    def check():
        raise PeerLost("rank 1 is gone")

    with pytest.raises(PeerLost, match="rank 1 is gone"):
        wait(nothing, check=check)


def test_a_wait_ends_after_its_timeout(capfd):
    with pytest.raises(CommTimeout, match=r"waited 0 s for rank 1\nThat is the limit"):
        wait(nothing, timeout_s=0.05)
    assert capfd.readouterr().err == ""


def test_a_long_wait_says_so_once(monkeypatch, capfd):
    monkeypatch.setattr(backoff, "SAY_SO_AFTER_S", 0.01)
    with pytest.raises(CommTimeout):
        wait(nothing, timeout_s=0.1)
    assert capfd.readouterr().err == "waited 0 s for rank 1\n"


def test_a_long_wait_for_whoever_comes_says_nothing(monkeypatch, capfd):
    monkeypatch.setattr(backoff, "SAY_SO_AFTER_S", 0.01)
    with pytest.raises(CommTimeout):
        backoff.wait_until(nothing, nothing, nothing, "waited {}".format, 0.1, silent=True)
    assert capfd.readouterr().err == ""


def test_pauses_become_longer_and_start_anew():
    pauses = backoff.Backoff()
    assert [pauses.pause() for _ in range(backoff.SPINS - 1)] == [0.0] * (backoff.SPINS - 1)
    assert pauses.pause() > 0
    pauses.spins = 0
    assert pauses.pause() == 0.0


def test_a_gentle_wait_sleeps_from_the_first_pause_on(monkeypatch):
    slept = []
    monkeypatch.setattr(backoff.time, "sleep", slept.append)
    pauses = backoff.Backoff(gentle=True)
    for _ in range(3):
        pauses.pause()
    assert len(slept) == 3 and min(slept) >= backoff.SHORTEST_SLEEP_S
