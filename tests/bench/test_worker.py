import io
import json

from minipar.bench import worker
from minipar.bench.workloads import WORKLOADS, MiniparSteps


def test_each_line_asks_for_steps_and_gets_their_times(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n"))
    monkeypatch.setattr(MiniparSteps, "step", lambda self, n: 0.0)
    worker.main(["minipar", "gpt-128", "1"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(answer["step_ms"]) for answer in answers] == [1, 2]
    assert all(10 < answer["peak_mb"] < 100_000 for answer in answers)


def test_an_engine_has_steps():
    assert worker.engine("minipar", "mlp", 1).work is WORKLOADS["mlp"]
