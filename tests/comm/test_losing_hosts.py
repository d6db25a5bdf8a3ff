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


def run(name, counts, *arguments, restarts=0):
    """What the ranks returned, in order, and what each launcher said on stderr."""
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
        for job in jobs:
            out, err = job.communicate(timeout=60)
            assert job.returncode == 0, err
            said.append(err)
            results += json.loads(out.rpartition("RESULTS")[2])
    return results, said


@pytest.mark.parametrize("how", ["kill", "raise", "stop"])
def test_only_calls_that_involve_the_lost_rank_say_so_on_every_host(how):
    (zero, one, two), said = run("in_every_way", (1, 2), how)
    assert zero.pop(0) == [5]  # what it had sent over the network
    assert ("ValueError" if how == "raise" else "PeerLost") in one
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


@pytest.mark.parametrize("n", [3, 1 << 20])
@pytest.mark.parametrize("counts", [(1, 2), (2, 1)])
def test_workers_of_all_hosts_talk_to_the_next_server(n, counts):
    (zero, *workers), _ = run("server_dies", counts, n, restarts=1)
    assert zero == 1
    for says in workers:
        assert [x for x in says if x != "lost"][-1] == 11
        assert says.count("lost") == 1


@pytest.mark.parametrize("counts", [(2, 2), (1, 2, 1)])
def test_two_that_are_lost_at_once_meet_again(counts):
    (zero, one, two, three), _ = run("two_at_once", counts, "kill", restarts=2)
    assert zero == two == [1, 3] and (one, three) == (3, 1)


def test_many_lives():
    results, _ = run("many_lives", (1, 1), 8, restarts=8)
    assert results == [8, 8]
