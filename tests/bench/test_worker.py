import io
import json
import math

from minipar.bench import worker
from minipar.bench.workloads import WORKLOADS, MiniparSteps


def test_each_line_asks_for_steps_and_gets_their_times(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n"))
    monkeypatch.setattr(MiniparSteps, "step", lambda self, x, y: 0.0)
    worker.main(["minipar", "gpt-128", "1"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(answer["step_ms"]) for answer in answers] == [1, 2]
    assert all(10 < answer["base_mb"] <= answer["peak_mb"] < 100_000 for answer in answers)


def test_an_engine_has_batches_and_steps():
    steps = worker.engine("minipar")(WORKLOADS["mlp"], 1)
    assert steps.work is WORKLOADS["mlp"] and len(steps.batch(0)) == 2


def test_both_ways_to_ask_for_the_memory_agree():
    there, rusage = worker.peak_mb(), worker._peak_mb_of_rusage()
    assert math.isnan(rusage) or there <= rusage * 1.01
