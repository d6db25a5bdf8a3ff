"""What is drawn when a run has failed, and what is said where nothing can be."""

import subprocess
import sys

import numpy as np
import pytest

import minipar
from minipar import Cluster
from minipar.comm.tracing import tracing
from minipar.errors import CommError, PeerLost
from minipar.trace.last_moments import NAME, draw_last_moments, last_moments
from minipar.trace.trace_file import load
from tests.trace.test_trace_file import write


def test_the_end_of_the_trace_is_drawn_beside_it(tmp_path):
    write(tmp_path, 1, 3)
    assert last_moments(tmp_path) == f"the last moments are drawn in {tmp_path / NAME}"
    assert (tmp_path / NAME).stat().st_size > 5000


def test_without_a_trace_there_is_a_reason(tmp_path):
    said = last_moments(tmp_path)
    assert said.startswith("nothing is known of the last moments: there is no trace in")


def failed(work, folder):
    def traced(group):
        with tracing(group, folder):
            work(group)

    with pytest.raises(CommError):
        minipar.run(traced, 3)
    return load(folder)


def texts(trace):
    axes = draw_last_moments(trace).axes[0]
    return [t for t in axes.texts if "waits for" in t.get_text() or "left no" in t.get_text()]


def arrows(trace):
    """From whose band to whose each arrow goes."""
    axes = draw_last_moments(trace).axes[0]
    drawn = [a for a in axes.texts if getattr(a, "arrow_patch", None) is not None]
    return {(int(a.xyann[1]), int(a.xy[1])) for a in drawn}


def test_who_waited_in_vain_is_named_and_an_arrow_goes_there(tmp_path):
    def circle(group):
        group.barrier()
        group.recv((group.rank + 1) % 3)

    trace = failed(circle, tmp_path)
    assert [rank.in_vain for rank in trace.ranks] == ["rank 1", "rank 2", "rank 0"]
    assert [t.get_text() for t in texts(trace)] == [f"waits for rank {r}" for r in (1, 2, 0)]
    assert arrows(trace) == {(0, 1), (1, 2), (2, 0)}


def test_a_wait_that_ended_well_is_no_wait_in_vain(tmp_path):
    def leaves(group):
        group.barrier()
        if group.rank != 1:
            group.recv(1)

    trace = failed(leaves, tmp_path)
    assert [rank.in_vain for rank in trace.ranks] == ["rank 1", "", "rank 1"]
    assert arrows(trace) == {(0, 1), (2, 1)}
    (tmp_path / "rank-1.npz").unlink()
    trace = load(tmp_path)
    assert [t.get_text() for t in texts(trace)][1].startswith("left no trace")


def test_of_a_long_silence_only_the_beginning_is_drawn(tmp_path):
    trace = failed(lambda group: group.recv((group.rank + 1) % 3), tmp_path)
    second = 10**9
    ranks = [
        rank._replace(
            end=rank.end + 60 * second,
            spans=[s._replace(end=s.end + 60 * second) for s in rank.spans],
        )
        for rank in trace.ranks
    ]
    axes = draw_last_moments(trace._replace(ranks=ranks)).axes[0]
    assert "nothing happened for 60." in axes.get_title(loc="left")
    begun = max(s.begin for rank in trace.ranks for s in rank.spans if s.kind == "wait")
    assert axes.get_xlim()[1] == pytest.approx(min(begun / 1e6 + 50, 150))


def test_a_declared_loss_is_shown_where_it_was_and_every_time_alike(tmp_path):
    def work(group, folder):
        with tracing(group, folder):
            group.spend(0.002)
            group.barrier()
            group.recv((group.rank + 1) % 3)  # a circle, if nobody were lost

    traces = []
    for name in ("one", "two"):
        with pytest.raises(PeerLost):
            minipar.run(work, 3, args=(tmp_path / name,), cluster=Cluster(lost={1: 0.25}))
        traces.append(load(tmp_path / name))
    assert traces[0].ranks == traces[1].ranks
    ends = [(rank.end, rank.lost, rank.in_vain) for rank in traces[0].ranks]
    assert ends == [(250_000_000, r == 1, ["rank 1", "", "rank 0"][r]) for r in range(3)]
    said = [t.get_text().strip() for t in draw_last_moments(traces[0]).axes[0].texts]
    assert "lost at 250 ms" in said
    assert arrows(traces[0]) == {(0, 1), (2, 0)}


def test_what_a_lost_rank_had_not_sent_is_not_in_its_trace(tmp_path):
    def work(group, folder):
        with tracing(group, folder):
            sends = [group.isend(np.zeros(1000), 1 - group.rank) for _ in range(3)]
            for send in sends:
                send.wait()

    cluster = Cluster(1e-3, 0, lost={1: 0.0015})
    minipar.run(work, 2, args=(tmp_path,), cluster=cluster, on_lost="report")
    sent = [[(m.begin, m.end) for m in rank.messages] for rank in load(tmp_path).ranks]
    assert sent[1] == [(0, 1_000_000), (1_000_000, 1_500_000)]


@pytest.mark.slow
def test_a_script_that_fails_under_trace_says_where_they_are(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, signal, minipar\n"
        "group = minipar.init()\n"
        "group.barrier()\n"
        "if group.rank == 1:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "group.barrier()\n"
    )
    command = [sys.executable, "-m", "minipar", "run", "-n", "3", "--trace", "t", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("minipar: the last moments are drawn in")
    assert (tmp_path / "t" / NAME).exists()
