"""Rows: right ones, wrong ones, and ones that cannot even run, which hide no others."""

import json
import math

import pytest

from minipar.errors import UsageError
from minipar.parallel.data import DataParallel
from minipar.verify import STRATEGIES, Held, _chosen, _worth_it, table, verify
from minipar.verify_layouts import layouts

FIELDS = {"strategy", "layout", "backend", "ranks", "max_error", "tolerance", "ok", "where",
          "error", "seconds"}  # fmt: skip


class Doubled(DataParallel):
    def sync_gradients(self, rows=1.0):
        super().sync_gradients(rows)
        for _, x in self.trained:
            x.grad *= 2


class NotANumber(DataParallel):
    def clip(self, max_norm):
        return math.nan


class RaisesOnRank1(DataParallel):
    def step(self):
        super().step()
        if self.group.rank == 1:
            raise ZeroDivisionError("in step")


def test_rows_say_what_was_found():
    rows = list(verify(["dp"], backends=["local"], ranks=[1, 2]))
    assert [(row["strategy"], row["layout"], row["ranks"]) for row in rows] == [
        ("dp", "dp=1", 1),
        ("dp", "dp=2", 2),
    ]
    for row in rows:
        assert set(row) == FIELDS
        assert row["ok"] is True and row["error"] is None
        assert 0 <= row["max_error"] < row["tolerance"] == 1e-10
        assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("backend", ["local", "process"])
def test_a_broken_strategy_is_a_row_that_is_not_ok_and_hides_no_other(backend, capfd):
    held = {"raises": Held(RaisesOnRank1), "right": Held(DataParallel)}
    raises, right = verify(held, backends=[backend], ranks=[2])
    assert (raises["ok"], raises["max_error"]) == (False, None)
    assert raises["error"] == "ZeroDivisionError: in step"
    assert right["ok"]
    capfd.readouterr()  # what processes say of it


def test_wrong_numbers_and_nan_are_not_ok():
    doubled, nan = verify({"doubled": Held(Doubled), "nan": Held(NotANumber)}, ["local"], [2])
    assert not doubled["ok"] and doubled["max_error"] > 1e-3
    assert not nan["ok"] and nan["max_error"] is None
    assert "norm of the gradient" in nan["where"]


def test_a_row_comes_as_soon_as_it_is_there_and_names_are_checked_at_once():
    rows = verify(["dp", "central"], backends=["local"])
    assert next(rows)["strategy"] == "dp"
    with pytest.raises(UsageError, match="there is no strategy 'dq'; there are dp"):
        verify(["dq"])


def test_quick_means_two_ranks():
    assert [row["ranks"] for row in verify(["dp"], backends=["local"], quick=True)] == [2]


def test_quick_layouts_are_pairs_on_threads_and_all_axes_together():
    chosen, together = _chosen(None, quick=True)
    assert chosen is STRATEGIES
    assert {n for n in together if n.count("+") > 1} == {"dp+1f1b+tp"}
    assert set(together) == {*layouts(2), "dp+1f1b+tp"}
    assert _worth_it(["local", "process"], True, None) == ["local"]
    assert _worth_it(["process"], True, None) == ["process"]
    assert _worth_it(["local", "process"], True, ["dp+tp"]) == ["local", "process"]


def test_the_table_is_for_people():
    rows = [
        *verify(["dp"], backends=["local"], ranks=[2]),
        *verify({"mine": Held(RaisesOnRank1), "two": Held(Doubled)}, ["local"], [2]),
    ]
    lines = list(table(rows))
    assert lines[0].split() == ["strategy", "layout", "backend", "ranks", "max", "error", "allowed"]
    assert lines[1].startswith("dp ") and lines[1].endswith("1e-10  ok")
    assert "WRONG  ZeroDivisionError: in step" in lines[2]
    assert "WRONG  " in lines[3] and " on rank " in lines[3]
    assert lines[4].startswith("1 of 3 are what they should be; the largest error is ")


@pytest.mark.slow
def test_everything_is_what_it_should_be():
    """Of what `minipar verify --quick` looks at; all of it takes five minutes."""
    wrong = [row for row in verify(quick=True) if not row["ok"]]
    assert not wrong, "\n".join(table(wrong))
    assert len(STRATEGIES) >= 10
