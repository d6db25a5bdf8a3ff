"""Trouble on purpose: who is slow, who dies, and what cannot be meant."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

import minipar
from minipar.comm.tracing import tracing
from minipar.config import Config
from minipar.drills import VIRTUAL_S, Drills, Killed, drills_of
from minipar.errors import UsageError
from minipar.trace.trace_file import load

CONFIG = Config(ps="async", workers=3)


def test_what_is_written_is_what_happens():
    config = replace(CONFIG, slow_worker="1:2.5x", kill_worker="2@step50")
    assert drills_of(config) == Drills(slow=1, factor=2.5, dying=2, step=50)
    assert drills_of(replace(CONFIG, slow_worker="0:5", kill_worker="2@7")).step == 7
    assert drills_of(CONFIG) == Drills()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"slow_worker": "5x"}, "--slow-worker '5x' makes no sense; write it like 1:5x"),
        ({"slow_worker": "1:0.5x"}, "nobody gets faster"),
        ({"slow_worker": "3:2x"}, "there is no worker 3 among 3"),
        ({"kill_worker": "first"}, "write it like 1@step50"),
        ({"kill_worker": "1@step0"}, "the steps are 1 to 1500"),
        ({"kill_worker": "1@1501"}, "the steps are 1 to 1500"),
        ({"kill_worker": "9@step1"}, "there is no worker 9 among 3"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(change, says):
    with pytest.raises(UsageError, match=says):
        drills_of(replace(CONFIG, **change))


def test_a_rank_dies_after_its_step_and_once():
    def work(group):
        for step in range(1, 4):
            Drills(dying=1, step=2).strike(group, step)
        return group.incarnation

    found = minipar.run(work, 2, on_lost="report")
    assert found[0] == 0 and isinstance(found[1], Killed)
    assert minipar.run(work, 2, on_lost="report", restarts=1) == [0, 1]


def test_under_mpi_it_raises_for_mpi_would_end_all():
    group = SimpleNamespace(backend="mpi", rank=1, incarnation=0)
    with pytest.raises(Killed, match="rank 1 was to die after step 2"):
        Drills(dying=1, step=2).strike(group, 2)


def test_a_slow_rank_sleeps_so_much_longer(monkeypatch):
    slept = []
    monkeypatch.setattr("minipar.drills.time.sleep", slept.append)
    for rank in range(2):
        group = SimpleNamespace(backend="process", rank=rank)
        Drills(slow=1, factor=5.0).slow_down(group, 0.25)
    assert slept == [1.0]


def test_on_threads_the_time_is_virtual(tmp_path):
    drills = Drills(slow=1, factor=5.0)

    def work(group):
        with tracing(group, tmp_path):
            drills.slow_down(group, 0.25)
            return group.now_ns()

    found = minipar.run(work, 2, cluster=drills.cluster())
    assert found == [VIRTUAL_S * 1e9, 5 * VIRTUAL_S * 1e9]
    seen = [(s.kind, s.begin, s.end) for rank in load(tmp_path).ranks for s in rank.spans]
    assert seen == [("backward", 0, end) for end in found]  # a trace shows it as computation
    assert Drills().cluster() is None
