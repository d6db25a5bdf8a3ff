"""The list of layouts is what is not refused; a wrong one shows, and hides no other."""

from dataclasses import replace

import pytest

from minipar import verify_layouts
from minipar.errors import UsageError
from minipar.refusals import check
from minipar.training import Trainer
from minipar.verify import verify
from minipar.verify_layouts import SMALL, layouts, rows


def test_every_pair_and_triple_that_is_not_refused_is_a_layout():
    found = layouts()
    assert found["dp+1f1b+tp"].ranks == 8
    assert {"zero1+gpipe", "overlap+tp", "gpipe+sequence+recompute", "accumulate+ps-sync"} <= set(
        found
    )
    assert not any("accumulate" in name and "1f1b" in name for name in found)
    assert {len(name.split("+")) for name in found} == {2, 3}
    assert set(layouts(2)) == {name for name in found if name.count("+") == 1}
    for config in found.values():
        check(config)


def test_what_comes_to_be_allowed_is_in_the_list_at_once(monkeypatch):
    def refuses_tp(config):
        if config.tp > 1:
            raise UsageError("not today")
        check(config)

    monkeypatch.setattr(verify_layouts, "check", refuses_tp)
    found = layouts()
    assert found and all(config.tp == 1 for config in found.values())


class Wrong(Trainer):
    """Forgets a weight with ZeRO, and falls over with a schedule."""

    def weights(self):
        found = super().weights()
        if self.config.zero:
            found["model/norm.bias"][0] += 1e-9
        return found

    def train_step(self):
        if self.config.schedule == "gpipe":
            raise ZeroDivisionError("in gpipe")
        return super().train_step()


def test_a_wrong_layout_is_a_row_and_hides_no_other(monkeypatch):
    chosen = {name: layouts(2)[name] for name in ("zero1+accumulate", "dp+gpipe", "dp+1f1b")}
    monkeypatch.setattr(verify_layouts, "Trainer", Wrong)
    found = {row["strategy"]: row for row in rows(chosen, "local")}
    wrong, fell, right = (found[name] for name in chosen)
    assert not wrong["ok"] and wrong["max_error"] == pytest.approx(1e-9)
    assert "weight model/norm.bias on rank" in wrong["where"]
    assert not fell["ok"] and fell["error"] == "ZeroDivisionError: in gpipe"
    assert right["ok"] and right["max_error"] < 1e-12


def test_layouts_are_rows_of_verify():
    (row,) = verify(["tp+accumulate"], backends=["local"])
    assert (row["strategy"], row["layout"], row["ranks"]) == ("tp+accumulate", "tp=2", 2)
    assert row["ok"]
    assert [r["ranks"] for r in verify(["dp+1f1b+tp", "dp+tp"], ["local"], [4])] == [4]
    with pytest.raises(UsageError, match=r"layouts of two or three, such as zero1\+1f1b\+tp"):
        verify(["dp+zero1"])


def test_servers_are_ranks_of_a_layout():
    chosen = {"accumulate+ps-sync": layouts()["accumulate+ps-sync"]}
    (row,) = rows(chosen, "local")
    assert row["ok"] and (row["layout"], row["ranks"]) == ("ps=2+1", 3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "process"])
def test_eight_ranks_as_2_2_2_are_one_rank_after_ten_steps(backend, monkeypatch):
    monkeypatch.setattr(verify_layouts, "SMALL", replace(SMALL, steps=10))
    (row,) = rows({"dp+1f1b+tp": replace(layouts()["dp+1f1b+tp"], steps=10)}, backend)
    assert row["ok"] and row["max_error"] < 1e-9, row
