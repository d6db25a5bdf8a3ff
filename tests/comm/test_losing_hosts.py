"""Lost ranks on several hosts: what ranks of all hosts hear, and the next incarnation.

Two launchers of this machine, as if each had a host of its own: their ranks talk over TCP.
"""

import json
import sys
from contextlib import ExitStack

import pytest

from tests.comm.mpirun import ROOT
from tests.comm.several import environment, free_port
from tests.jobs import started

pytestmark = pytest.mark.slow


def run(name, counts, *arguments, restarts=0, codes=None):
    """What the ranks returned, in order, and what each launcher said on stderr.

    codes: with which the launchers end; those that do not end well say nothing of their ranks.
    """
    port, words = str(free_port()), [",".join(map(str, counts)), str(restarts), name]
    results, said = [], []
    with ExitStack() as stack:
        command = [sys.executable, "-m", "tests.comm.losing_hosts"]
        jobs = [
            stack.enter_context(
                started(
                    [*command, str(node), port, *words, json.dumps(arguments)],
                    cwd=ROOT,
                    env=environment(PYTHONPATH=str(ROOT)),
                )
            )
            for node in range(len(counts))
        ]
        for job, code in zip(jobs, codes or [0] * len(jobs)):
            out, err = job.communicate(timeout=60)
            assert job.returncode == code, err
            said.append(err)
            results += [] if code else json.loads(out.rpartition("RESULTS")[2])
    return results, said


def test_only_calls_that_involve_the_lost_rank_say_so_on_every_host():
    (zero, one, two), said = run("in_every_way", (1, 2), "kill")
    assert zero.pop(0) == [5]  # what it had sent over the network
    assert "PeerLost: rank 1 was killed by signal 9" in one
    for errors in (zero, two):
        r1, r2, send, to_other, reduce, barrier, any_, poll, other, total, incarnation = errors
        for error in (r1, r2, send, reduce, barrier, any_):
            assert error is None or error[:3] == [1, 0, False]
        assert r1 and r2 and reduce and barrier
        assert to_other is None and poll and other == [1.0] and incarnation == 0
        assert total == [4.0] * 4
    for err in said:
        assert err.count("the others go on") == 1


def test_a_half_sent_message_is_never_received():
    (zero, _, _), _ = run("half_sent", (1, 2), 32 << 20, False)
    assert zero[0] in (1, True) and zero[1] is True


def test_inside_a_collective():
    (zero, one, two), _ = run("inside_a_collective", (1, 2), "all_reduce", 2, "kill")
    assert zero == two == [1, 1, [4.0, 4.0]] and "PeerLost" in one


def test_any_hears_each_incarnation_to_its_end():
    lives = {"1": 1, "2": 2}
    (heard, *incarnations), _ = run("serve_by_name", (2, 1), lives, 4, restarts=3)
    assert incarnations == [1, 2]
    for rank, count in lives.items():
        expected = []
        for life in range(count):
            expected += [[life, i] for i in range(life + 2)] + [f"lost {life}"]
        assert heard[rank] == expected + [[count, i] for i in (0, 1, 2, 3, -1)]


def test_workers_of_all_hosts_talk_to_the_next_server():
    (zero, *workers), _ = run("server_dies", (2, 1), 1 << 20, restarts=1)
    assert zero == 1
    for says in workers:
        assert [x for x in says if x != "lost"][-1] == 11
        assert says.count("lost") == 1


def test_two_of_different_hosts_that_are_lost_at_once_meet_again():
    (zero, one, two, three), _ = run("two_at_once", (1, 2, 1), "kill", restarts=2)
    assert zero == two == [1, 3] and (one, three) == (3, 1)


def test_many_lives():
    results, _ = run("many_lives", (1, 1), 4, restarts=4)
    assert results == [4, 4]


def test_the_ranks_of_a_host_are_lost_with_its_launcher():
    (zero,), (said, _) = run("ends_its_launcher", (1, 2), codes=(0, -9))
    assert [error[:3] for error in zero] == [[1, 0, False], [2, 0, False]]
    assert "is lost with node 1 at 127.0.0.1: its launcher has ended" in zero[1][3]
    assert said.count("is lost with node 1") in (1, 2)  # alike, they may be shown as one line


def test_without_the_launcher_of_node_0_nobody_goes_on():
    _, (_, said) = run("ends_its_launcher", (2, 1), codes=(-9, 1))
    assert "node 0 at 127.0.0.1 (ranks 0 to 1) is lost" in said.splitlines()[-1]
