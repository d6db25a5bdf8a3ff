"""Real processes: how they fail, how soon, and that nothing is left of them."""

import os
import re
import signal
import sys
import time

import numpy as np
import pytest

import minipar
from minipar.comm.frame import Call
from minipar.comm.process import ProcessTransport
from minipar.comm.segment import Segment, create_segment
from minipar.errors import CallMismatch, CommTimeout, Deadlock, PeerLost, RankFailed
from tests.comm import ranks
from tests.jobs import alive, eventually, launched, pids

FAILED_IN_S = 5 * 2.0  # promised: 2 s


def run(fn, p, *args, timeout_s=30.0):
    return minipar.run(fn, p, args=args, backend="process", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("raise", ValueError, "rank 1 has had enough"),
        ("kill", PeerLost, r"rank 1 was killed by signal 9 \(SIGKILL\); its last call was barrier"),
        ("_exit", PeerLost, "rank 1 ended with exit code 3 and without a word"),
        ("exit", PeerLost, r"rank 1 called sys.exit\(7\)"),
        ("return", PeerLost, "for a rank that has returned .*rank 1: barrier #0 .* at"),
        ("odd", RankFailed, "rank 1 raised OddError: odd"),
        ("shape", CallMismatch, r"float32\[3\]"),
        ("dtype", CallMismatch, r"float64\[2\]"),
        ("op", CallMismatch, r"mean float32\[2\]"),
        ("other", CallMismatch, r"barrier #1"),
        ("send", PeerLost, r"not asked for so far: rank 1's send #0"),
    ],
)
def test_a_failing_rank_ends_the_job_soon_and_is_named(how, error, says, capfd):
    begun = time.monotonic()
    with pytest.raises(error, match=says):
        run(ranks.fail, 3, how)
    assert time.monotonic() - begun < FAILED_IN_S
    lines = capfd.readouterr().err.splitlines()
    named = [re.match(r"\[rank (\d)\]", line) for line in lines]
    if how in ("raise", "kill", "_exit", "exit", "odd"):  # both others say why they stop
        assert sorted(match[1] for match in named) == ["0", "2"]
        assert all("rank 1" in line and "; rank" in line for line in lines)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("receive first", "rank 0 waits for rank 1, rank 1 waits for rank 2, rank 2 waits for ra"),
        ("send for all_reduce", "rank 0 waits for rank 2, rank 1 waits for rank 0, rank 2 waits"),
        ("any", "rank 0 waits for any rank, rank 1 waits for any rank, rank 2 waits for any rank"),
        ("some have finished", "rank 0 has finished, rank 1 waits for rank 2, rank 2 waits for r"),
    ],
)
def test_a_deadlock_is_seen_and_told_soon(how, says, capfd):
    begun = time.monotonic()
    with pytest.raises(Deadlock, match=f"no rank can go on: {says}") as caught:
        run(ranks.deadlock, 3, how)
    assert time.monotonic() - begun < FAILED_IN_S
    text = str(caught.value).partition("the last calls")[0]
    assert text.count("ranks.py:") == 3
    assert capfd.readouterr().err == ""  # all ranks would say the same


@pytest.mark.slow
def test_a_rank_that_computes_is_no_deadlock():
    assert run(ranks.late, 2, 2.5) == [None, None]


@pytest.mark.parametrize("backend", ["local", "process"])
@pytest.mark.parametrize("how", ["each is root", "last call left out"])
def test_a_collective_that_some_left_out_is_found_when_all_have_returned(how, backend):
    with pytest.raises(
        CallMismatch,
        match=r"(never took part in rank .'s|, expected from . .*) broadcast|from . int64",
    ):
        minipar.run(ranks.left_out, 3, args=(how,), backend=backend)


@pytest.mark.slow
def test_what_was_sent_arrives_however_late_its_receiver_is():
    assert run(ranks.slow_receiver, 2, 3.0) == [None, list(range(12))]


def test_asking_for_ever_whether_something_is_done_is_no_hang():
    for backend, error in (("local", Deadlock), ("process", PeerLost)):
        with pytest.raises(error, match="rank 1"):
            minipar.run(ranks.asks_for_ever, 2, backend=backend)


@pytest.mark.slow
def test_a_long_message_and_a_stopped_rank_do_not_hold_up_the_end():
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"x{1000}"):
        run(ranks.long_message, 3)
    assert time.monotonic() - begun < FAILED_IN_S


def test_arguments_that_no_socket_takes_at_once():
    """The launcher once sent what fitted, and waited for an answer to the rest: a silent hang."""
    x = np.arange(3_000_000.0)
    assert run(ranks.total, 2, x) == [x.sum()] * 2


def test_a_forked_copy_of_a_rank_is_not_the_rank(tmp_path):
    """It once wrote into the rank's channels, and its end was taken for the rank's."""
    assert run(ranks.forks, 2, str(tmp_path)) == [[1.0, 2.0]] * 2
    for rank in range(2):
        says = (tmp_path / str(rank)).read_text()
        assert says.startswith(f"this process was forked by rank {rank}, and only the rank itself")


@pytest.mark.parametrize("how", ["exit code", "signal"])
def test_a_process_that_breaks_after_its_return_has_failed(how):
    says = {"exit code": "ended with exit code 5", "signal": r"signal 11 \(SIGSEGV\)"}
    with pytest.raises(PeerLost, match=says[how]):
        run(ranks.breaks_at_exit, 2, how)


def test_a_retry_after_a_timeout_gets_the_message():
    assert run(ranks.retries, 2, timeout_s=0.5) == [None, 7]


def test_the_cause_is_the_ranks_own_traceback():
    with pytest.raises(ValueError) as caught:
        run(ranks.fail, 2, "raise")
    assert "ranks.py" in str(caught.value.__cause__)
    assert 'raise ValueError("rank 1 has had enough")' in str(caught.value.__cause__)
    assert "worker.py" not in str(caught.value.__cause__)


def test_a_wait_ends_after_timeout_s_and_names_the_peer():
    with pytest.raises(CommTimeout, match=r"rank 0 has waited .* for rank 1 in barrier #0"):
        run(ranks.late, 2, 20.0, timeout_s=0.5)


def test_large_results_and_results_that_cannot_be_sent():
    n = 1 << 20
    for rank, x in enumerate(run(ranks.rank_and_big_result, 2, n)):
        assert x.shape == (n,) and (x == rank).all()
    with pytest.raises((TypeError, AttributeError, RankFailed), match=r"unpicklable|pickle"):
        run(ranks.unpicklable, 2)


# -- nothing is left --------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("fn", ["busy", pytest.param("waiting", marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_launcher_is_stopped(tmp_path, fn, number):
    with launched(fn, 3, tmp_path) as launcher:
        children = pids(tmp_path, 3)
        assert all(map(alive, children))
        launcher.send_signal(number)
        launcher.communicate(timeout=FAILED_IN_S)
    eventually(lambda: not any(map(alive, children)))
    assert launcher.returncode != 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_not_even_a_stopped_rank_outlives_its_launcher(tmp_path):
    with launched("busy", 2, tmp_path) as launcher:
        children = pids(tmp_path, 2)
        os.kill(children[1], signal.SIGSTOP)
        launcher.kill()
        launcher.communicate(timeout=FAILED_IN_S)
    eventually(lambda: not any(map(alive, children)))


def test_a_busy_rank_is_ended_when_another_is_killed(tmp_path):
    with launched("busy", 3, tmp_path) as launcher:
        children = pids(tmp_path, 3)
        os.kill(children[1], signal.SIGSEGV)
        _, err = launcher.communicate(timeout=FAILED_IN_S)
    assert "PeerLost: rank 1 was killed by signal 11 (SIGSEGV)" in err
    assert not any(map(alive, children))


def test_ranks_ignore_ctrl_c_of_the_terminal(tmp_path):
    """It goes to all processes at once; only the launcher acts on it."""
    with launched("busy", 2, tmp_path) as launcher:
        children = pids(tmp_path, 2)
        for pid in children:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.1)  # what must not happen has no event to wait for
        assert all(map(alive, children)) and launcher.poll() is None
        launcher.send_signal(signal.SIGINT)
        _, err = launcher.communicate(timeout=FAILED_IN_S)
    assert "KeyboardInterrupt" in err
    assert not any(map(alive, children))


@pytest.mark.slow
def test_many_jobs_leave_no_descriptor_or_segment():
    descriptors = len(os.listdir("/proc/self/fd"))
    for i in range(20):
        assert len(run(ranks.conformance, 2)) == 2
        with pytest.raises(ValueError):
            run(ranks.fail, 2, "raise")
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 1, i


@pytest.mark.slow
def test_a_long_mix_of_sizes_is_right():
    results = run(ranks.soak, 3, 400)
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_is_lent_is_numbered_as_it_is_queued():
    """The two threads of a rank both lend: with the numbers of the one and the places of the other
    in the queue, an array was once taken for fetched when another one was.
    """
    descriptor, held = create_segment(2), []
    segment = Segment(descriptor, 2)
    os.close(descriptor)
    rings = {1: (segment.ring(0, 1), segment.ring(1, 0))}
    transport = ProcessTransport(0, 2, segment.board(), rings)

    class Lender:
        def lend(self, array, dst, call):
            held.append(transport._channels.lock.locked())

    transport._channels.loans = Lender()
    transport.isend(np.zeros(100_000), 1, Call(0, 0, "send", "", "a.py:1"))
    assert held == [True]
