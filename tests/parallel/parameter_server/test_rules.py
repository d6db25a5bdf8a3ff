"""The three rules are two numbers over the clocks."""

import math

import pytest

from minipar.errors import UsageError
from minipar.parallel.parameter_server.rules import ASYNC, SYNC, rule_named, ssp

CLOCKS = {0: 5, 1: 7, 2: 9}


@pytest.mark.parametrize(
    ("rule", "clock", "may"),
    [
        *((SYNC, 5, True), (SYNC, 6, False)),
        *((ssp(2), 7, True), (ssp(2), 8, False)),
        *((ASYNC, 5, True), (ASYNC, 10**9, True)),
    ],
)
def test_a_pull_waits_for_the_slowest(rule, clock, may):
    assert rule.may_pull(clock, CLOCKS) == may


def test_nobody_waits_for_those_who_are_gone():
    assert SYNC.may_pull(8, {1: 8, 2: 9})
    assert SYNC.may_pull(8, {})


def test_without_slack_ssp_is_sync():
    assert ssp(0) == SYNC
    assert ssp(1) != SYNC


def test_by_name():
    assert [str(rule_named(name, 4)) for name in ("sync", "async", "ssp")] == [
        *("sync", "async", "ssp(4)")
    ]
    assert rule_named("async").bound == math.inf


def test_refused():
    with pytest.raises(UsageError, match="0 or more clocks ahead, not -1"):
        ssp(-1)
    with pytest.raises(UsageError, match="no rule 'bsp'; there are sync, async, ssp"):
        rule_named("bsp")
