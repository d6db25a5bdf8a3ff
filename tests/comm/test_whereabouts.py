"""What is told of the ranks of a job that has failed: held against what they wrote down."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minipar.comm.launch import function_work, run_processes, run_threads
from minipar.comm.transport import ANY
from minipar.comm.whereabouts import (
    FINISHED,
    LAST_CALLS,
    Whereabouts,
    circles,
    last_calls,
    named,
    packed,
    story,
    unpacked,
    who_waits,
)
from tests.comm import failing
from tests.comm.mpirun import ROOT, done, mpirun

SCRIPT = str(Path(failing.__file__).relative_to(ROOT))
EDGES = {
    "circle": {(0, 1), (1, 2), (2, 0)},
    "two": {(0, 1), (1, 0), (2, 1)},
    "finished": {(0, 1), (2, 0)},
    "raised": {(0, 1), (2, 0)},
    "killed": {(0, 1), (2, 0)},
    "left": {(0, 1), (2, 0)},
    "late": {(0, 1), (2, 0)},
}
CIRCLES = {"circle": "0 -> 1 -> 2 -> 0", "two": "0 -> 1 -> 0"}
FATES = {
    "finished": "has finished",
    "raised": "raised ValueError",
    "killed": r"was killed by signal 9 \(SIGKILL\)",
    "left": "ended with exit code 3 and without a word",
    "late": r"was not waiting|does not answer \(it computes, or hangs\)",
}
ON_LOCAL = ("circle", "two", "finished", "raised", "shapes")
WITHIN_S = 15  # beside its time-out of a second: for a machine that is busy


def edges(text):
    found = re.findall(r"^(?:\[rank \d\])? *rank (\d+) --> rank (\d+) ", text, re.MULTILINE)
    return {(int(a), int(b)) for a, b in found}


def calls(text):
    """Of each rank the (op, line) that are told."""
    told, now = {}, []
    for line in text.partition("the last calls, the latest at the end:\n")[2].splitlines():
        head = re.match(r" +ranks? ([\d, to]+?)  ", line)
        if head:
            now = ranks_of(head[1])
        call = re.search(rf" (\w+) #\d+.* at {SCRIPT}:(\d+)", line)
        if not line.startswith("  "):
            break
        for rank in now if call else ():
            told.setdefault(rank, []).append((call[1], int(call[2])))
    return told


def ranks_of(text):
    parts = [list(map(int, part.split(" to "))) for part in text.split(", ")]
    return [r for part in parts for r in range(part[0], part[-1] + 1)]


def check(kind, text, folder, calls_told=True):
    """Whether the text tells what kind of job that was."""
    if kind == "shapes":
        assert {(2, 0)} <= edges(text) <= {(2, 0), (0, 1), (1, 0)}
        assert re.search("rank [01]  .* raised CallMismatch; its last call: all_reduce", text)
    else:
        assert edges(text) == EDGES[kind], text
    assert re.findall("a circle: (.*)", text) == ([CIRCLES[kind]] if kind in CIRCLES else [])
    if kind in FATES:
        assert re.search(rf"rank 1  +({FATES[kind]}); its last call: ", text), text
    if not calls_told:
        return
    told = calls(text)
    for rank in range(3):
        lines = Path(folder, f"{rank}.txt").read_text().splitlines()
        wrote = [(op, int(line)) for op, line in map(str.split, lines)]
        if rank in told:  # mpi does not know those of a rank that does not answer
            assert told[rank] == wrote[-LAST_CALLS:] or told[rank] == wrote[-1:] != []
    assert {0, 2} <= told.keys()


@pytest.mark.parametrize("kind", ON_LOCAL)
def test_threads(kind, tmp_path):
    _, (_, error, notes) = run_threads(failing.work, 3, (kind, tmp_path))
    check(kind, "\n".join([str(error), *notes]), tmp_path, kind != "raised")


def test_who_has_got_what_it_waited_for_but_had_no_turn_yet_does_not_wait():
    def work(group):
        if group.rank == 1:
            group.poll()  # now rank 0 waits
            group.send(1.0, 0)
            raise ValueError("why")
        group.recv(1)

    _, (rank, _, notes) = run_threads(work, 2)
    assert rank == 1 and notes == ()


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k != "killed")) for k in failing.KINDS]
)
def test_processes(kind, tmp_path):
    begun = time.monotonic()
    job = run_processes(function_work(failing.work, (kind, tmp_path)), 3, timeout_s=1)
    assert time.monotonic() - begun < WITHIN_S
    text = "\n".join([job.failure.traceback, *job.failure.notes])
    check(kind, text, tmp_path, kind != "raised")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["circle", "killed", "late", "shapes"])
def test_two_hosts(kind, tmp_path):
    """Both launchers tell the same of all ranks. Without one memory, circles end by time-out."""
    words = [*(sys.executable, "-m", "minipar", "run", "--timeout", "1", "--nnodes", "2")]
    words += ["--rendezvous", f"127.0.0.1:{29500 + os.getpid() % 10_000}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MINIPAR_TOKEN": "a-token-of-this-test-only-0123"}
    jobs = [
        subprocess.Popen(
            [*words, "--node-rank", str(node), "-n", str(n), SCRIPT, kind, str(tmp_path)],
            cwd=ROOT,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node, n in ((0, 1), (1, 2))
    ]
    texts = [job.communicate(timeout=60)[1] for job in jobs]
    for job, text in zip(jobs, texts):
        assert job.returncode not in (0, None)
        check(kind, text, tmp_path, kind != "raised")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["circle", "finished", "late", "shapes"])
def test_mpi(kind, tmp_path):
    """Ranks that are killed are MPI's to tell."""
    words = ["-m", "minipar", "run", "--timeout", "1", SCRIPT, kind, str(tmp_path)]
    job = done(mpirun(3, *words), cwd=ROOT)
    assert job.returncode == 1
    check(kind, job.stderr, tmp_path, kind != "raised")


# -- many ranks -----------------------------------------------------------------------------------


def waiting(*whoms, op="recv #0 at a.py:1"):
    return [Whereabouts((op,), whom) for whom in whoms]


def test_circles():
    assert circles(waiting(1, 2, 1, 2, ANY, 4, 6)) == [[1, 2], [6]]
    assert circles([Whereabouts(("x",), 1), Whereabouts(("x",))]) == []
    assert circles(waiting(99, 0)) == [] and "rank 0 --> rank 99" in who_waits(waiting(99, 0))


def test_a_circle_of_very_many_is_not_a_line_for_each():
    text = who_waits(waiting(*((r + 1) % 64 for r in range(64))))
    assert "a circle: 0 -> 1 -> 2 -> ... -> 63 -> 0 (64 ranks)" in text
    assert "  ranks 8 to 63 wait likewise in recv #0 at a.py:1" in text
    assert len(text.splitlines()) == 1 + 8 + 1 + 1


def test_of_very_many_those_are_shown_for_whom_the_others_wait():
    """A tree, of which rank 40 was killed."""
    ranks = waiting(*((r - 1) // 2 if r else 40 for r in range(64)), op="barrier #3 at a.py:1")
    ranks[40] = Whereabouts(("recv #0 at b.py:2",), fate="was killed by signal 9 (SIGKILL)")
    ranks[9] = Whereabouts(("send #0 at b.py:2",), fate=FINISHED)
    ranks[19] = ranks[20] = ranks[9]
    text = who_waits(ranks)
    assert re.search(r"rank 40  +was killed by signal 9 \(SIGKILL\); its last call: recv", text)
    assert re.search(r"rank 0 --> rank 40 +barrier #3", text)
    assert re.search(r"ranks .* to 63 wait likewise in barrier #3", text)
    assert len(text.splitlines()) <= 12
    calls = last_calls(ranks, [40]).splitlines()
    assert calls[1].split() == ["rank", "40", "recv", "#0", "at", "b.py:2"] and len(calls) == 4


def test_many_pairs_and_ranks_that_do_different_things():
    text = who_waits(waiting(*(r ^ 1 for r in range(64))))
    assert text.count("a circle") == 3 and text.endswith("and 29 more circles")
    ranks = [Whereabouts((f"recv #0 at a.py:{r}",), 0) for r in range(64)]
    assert who_waits(ranks).count("\n") < 16 and "(and 52 more ranks)" in who_waits(ranks)
    assert last_calls(ranks).endswith("(and 58 more ranks)")


def test_if_nobody_waits_there_is_no_graph():
    ranks = [Whereabouts(("barrier #0 at a.py:1",), fate=FINISHED)] * 3
    assert who_waits(ranks) == "" and story(ranks, 0, "ValueError", in_a_call=False) == ()
    assert len(story(ranks, 0, "CallMismatch", in_a_call=True)) == 1


def test_a_rank_alone_that_waits_for_itself():
    assert "a circle: 0 -> 0" in who_waits(waiting(0))


def test_names():
    assert named([3]) == "rank 3"
    assert named([1, 0]) == "ranks 0, 1"
    assert named([9, 5, 6, 7, 0, 2]) == "ranks 0, 2, 5 to 7, 9"


@pytest.mark.parametrize("whom", [None, ANY, 0, 12])
def test_it_travels_as_a_text(whom):
    for calls in ((), ("barrier #0 at a.py:1", "recv #0 (from é) at b.py:2")):
        assert unpacked(packed(Whereabouts(calls, whom))) == Whereabouts(calls, whom)
    assert unpacked("") == Whereabouts() == unpacked("nonsense")
    assert unpacked("²\nx").whom is None
