"""Expected beside measured, on a trace and a cost card whose numbers are known."""

import json

import numpy as np
import pytest

from minipar.alive import KINDS
from minipar.errors import UsageError
from minipar.spans import Span
from minipar.trace.expected_figure import draw_expected, memory_of, step_of
from minipar.trace.trace_file import Trace
from tests.trace.test_totals import RANK, call

MB = 2**20
RANKS = [
    RANK._replace(
        rank=n,
        spans=[
            Span("forward", "", 10, 20, step=0),
            Span("optimizer", "", 25, 30, step=0),
            Span("forward", "", 40, 55 + n, step=1),
            Span("evaluate", "", 60, 90, step=1),
        ],
        messages=[
            call(12, 12, "all_reduce", 8, 1 - n, MB),
            call(45, 45, "all_reduce", 8, 1 - n, 3 * MB),
            call(70, 70, "all_reduce", 8, 1 - n, 99 * MB),  # of the evaluation
        ],
        held=[(5, MB, 0, 0, 0, 0), (15, MB, 0, 0, 0, (1 + n) * MB)],
        groups={8: ("pp", (0, 1))},
    )
    for n in range(2)
]


@pytest.fixture
def trace(tmp_path):
    rows = [
        {"what": "time", "expected": 2e-8, "measured": 1.0},
        {"what": "sent pp", "expected": 2.5 * MB, "measured": 0},
    ]
    need = dict.fromkeys(KINDS, MB)
    costs = {"card": rows, "forecast": [{"name": f"stage {s}", **need} for s in (0, 1)]}
    (tmp_path / "costs.json").write_text(json.dumps(costs))
    return Trace("process", False, RANKS, 0, tmp_path / "trace")


def test_steps_are_measured_without_what_lies_between_them(trace):
    seconds, sent = step_of(trace, 0, 100)
    assert seconds == pytest.approx((20 + 15 + 20 + 16) / 4 / 1e9)
    assert sent == {"pp": 2 * MB}
    assert step_of(trace, 35, 100)[1] == {"pp": 3 * MB}
    with pytest.raises(UsageError, match="no step of the training lies whole"):
        step_of(trace, 12, 38)


def test_memory_is_that_of_the_ranks_of_a_stage(trace):
    needs = [{"name": f"stage {s}", **dict.fromkeys(KINDS, 7)} for s in (0, 1)]
    found = memory_of(trace, needs, 0, 100)
    assert [name for name, *_ in found] == ["stage 0", "stage 1"]
    assert [np.sum(seen) // MB for *_, seen in found] == [2, 3]
    assert all(forecast.tolist() == [7] * 5 for _, forecast, _ in found)


def test_the_figure_has_both_of_everything(trace):
    sent, time, memory = draw_expected(trace, 0, 100).axes
    assert [bar.get_height() for bar in sent.patches] == [2.5, 2]
    assert [bar.get_height() for bar in time.patches] == pytest.approx([2e-5, 17.75e-6])
    assert len(memory.patches) == 2 * 2 * len(KINDS)


def test_without_a_card_it_says_where_there_is_one(tmp_path):
    with pytest.raises(UsageError, match=r"costs\.json.* when a minipar train is over"):
        draw_expected(Trace("process", False, RANKS, 0, tmp_path / "trace"), 0, 100)
    with pytest.raises(UsageError, match=r"costs\.json"):
        draw_expected(Trace("process", False, RANKS, 0), 0, 100)
