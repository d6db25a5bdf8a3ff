r"""Three rules over the clocks: when is a push applied, when may a pull be answered?

    clock of a worker: how many pushes it has made        slowest: the lowest clock of all

               a push is applied                  a pull for clock c is answered
    sync       with its round, as their mean      when slowest >= c
    async      at once                            at once
    ssp(s)     at once                            when slowest >= c - s

    async      ■■■■■■■■■■■■■■■■■              sync   ■■■■    │        ssp(2) ■■■■■■  │
               ■■■■■■                                ■■■■    │               ■■■■    │<- 2 ->│
               ■■■■■■■■■■■■■                         ■■■■    │               ■■■■■■  │

So they are two numbers: by how many clocks a worker may be ahead of the slowest, and whether the
pushes of a round are applied as one. With a bound of 0 nobody can see weights in the midst of a
round, so they may as well be: ssp(0) is sync.

Papers: Li et al. 2014, section 3.4 (sequential, eventual, bounded delay); Dean et al. 2012 (async);
Ho et al. 2013 (ssp): a worker at clock c sees all pushes of clocks up to c - s - 1, and its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from minipar.errors import UsageError


class Rule(NamedTuple):
    """bound: clocks ahead of the slowest.  rounds: whether a round's pushes are applied as one."""

    bound: float
    rounds: bool

    def may_pull(self, clock: int, clocks: Mapping[int, int]) -> bool:
        """Whether weights may be given out for this clock.  clocks: of all who are present."""
        return clock - min(clocks.values(), default=clock) <= self.bound

    def __str__(self) -> str:
        if self.rounds:
            return "sync"
        return "async" if self.bound == math.inf else f"ssp({int(self.bound)})"


SYNC = Rule(0, rounds=True)
ASYNC = Rule(math.inf, rounds=False)


def ssp(s: int) -> Rule:
    """At most s clocks ahead of the slowest."""
    if s < 0:
        raise UsageError(f"ssp: a worker may be 0 or more clocks ahead, not {s}.")
    return Rule(s, rounds=False) if s else SYNC


def rule_named(name: str, s: int = 0) -> Rule:
    """sync, async or ssp, as --ps names them.  s: the bound of ssp."""
    rules = {"sync": SYNC, "async": ASYNC, "ssp": ssp(s)}
    if name not in rules:
        raise UsageError(f"there is no rule {name!r}; there are {', '.join(rules)}.")
    return rules[name]
