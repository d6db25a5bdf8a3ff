"""The card at the end of a run: expected beside measured."""

import pytest

from minipar import training_job
from minipar.config import Config
from minipar.cost_card import card, table
from minipar.expected import Expected, Sent
from minipar.forecast import Need

MB = 2**20
COSTS = Expected({"dp": Sent(3 * MB, 2)}, 0.25, path_s=0.5, work_s=0.5, cores=1)
NEED = Need("each rank", 2, MB, MB, 2 * MB, 5 * MB, MB, 0, 30 * MB)
RESULT = {
    "links": {"alpha": 0.1, "beta": 0.0},
    "step_seconds": 0.75,
    "waiting": 0.4,
    "memory": [39 * MB, 41 * MB],
    "sent": {"dp": 3.5 * MB, "world": 8.0},
    "share": {"dp": 0.125, "world": 0.01},
}


def test_the_card_line_by_line():
    rows = card(Config(dp=2, pp=2), COSTS, [NEED], RESULT)
    assert table(rows) == [
        "a step           expected    measured",
        "time             700.0 ms    750.0 ms",
        "sent dp            3.0 MB      3.5 MB    12% of the time",
        "sent world              -         8 B    1% of the time",
        "bubble              25.0%       40.0%",
        "memory            40.0 MB     41.0 MB",
    ]


def test_what_has_no_formula_is_a_dash():
    rows = card(Config(), COSTS, [NEED], {**RESULT, "links": None, "memory": [0]})
    assert [row["what"] for row in rows] == ["time", "sent dp", "sent world"]
    assert rows[0]["expected"] is None


def test_threads_are_one_process_whose_memory_they_share():
    other = NEED._replace(ranks=1, activations=8 * MB)
    (memory,) = card(Config(backend="local"), COSTS, [NEED, other], RESULT)[-1:]
    assert memory["expected"] == pytest.approx((30 + (2 * 10 + 13) / 3) * MB)


def test_every_run_ends_with_one(tmp_path):
    given = {"layers": 1, "d": 16, "heads": 2, "block": 16, "batch": 8, "steps": 3}
    given |= {"dp": 2, "tp": 2, "backend": "local", "eval_batches": 1}
    result = training_job.train("gpt", out=str(tmp_path / "run"), **given)
    rows = {row["what"]: row for row in result.summary["cost_card"]}
    assert list(rows)[:3] == ["time", "sent dp", "sent tp"]
    assert rows["sent tp"]["expected"] == pytest.approx(rows["sent tp"]["measured"], rel=0.01)
    assert all(line in str(result) for line in table(result.summary["cost_card"]))
    (last,) = [m for m in result.run.metrics() if "val_loss" in m]
    assert len(last["memory"]) == 4 and last["sent"].keys() == last["share"].keys()
    assert result.run.metrics()[0]["sent"]["tp"] > 0


def test_what_nccl_sends_is_not_counted_but_messages_between_stages_are():
    result = {**RESULT, "sent": {"dp": 10.0, "pp": 3.5 * MB}}
    rows = {row["what"]: row for row in card(Config(backend="nccl"), COSTS, [NEED], result)}
    assert rows["sent dp"]["measured"] is None and rows["sent pp"]["measured"] == 3.5 * MB
