"""Where the ranks were when a job ended: who waited for whom, and what each of them did last.

    who waits for whom:
      rank 0 --> rank 1   recv #0 (from 1) at train.py:12
      rank 1 --> rank 2   recv #0 (from 2) at train.py:12
      rank 2 --> rank 1   recv #0 (from 1) at train.py:12
      a circle: 1 -> 2 -> 1

A rank waits for one other at most. So from each rank one way leads on, and ends at a rank that does
not wait, or in a circle. These are what explains the rest; of many ranks that wait for them, a few
are shown and the others counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from minipar.comm.transport import ANY

FINISHED = "has finished"
LAST_CALLS = 5  # of a rank, that are told
MOST_LINES = 8  # of ranks in the graph; the others are counted
MOST_TOLD = 6  # ranks, or kinds of ranks, whose last calls are told
MOST_GROUPS = 4  # of ranks that wait alike
MOST_CIRCLES = 3


class Whereabouts(NamedTuple):
    """Of one rank."""

    calls: tuple[str, ...] = ()  # its last ones, as `Call` writes them
    whom: int | None = None  # whom it waited for: a rank, or ANY; None: it did not wait
    fate: str = ""  # what has become of it, e.g. "has finished"
    within: str = ""  # the call in which it waited, if that is not the last one

    @property
    def call(self) -> str:
        return self.within or (self.calls[-1] if self.calls else "none yet")


def packed(rank: Whereabouts) -> str:
    """As a text that another rank can read; what has become of it is not in it."""
    return "\n".join(["" if rank.whom is None else str(rank.whom), *rank.calls])


def unpacked(text: str) -> Whereabouts:
    """What `packed` has made, or nothing that is known."""
    whom, *calls = text.split("\n")
    return Whereabouts(tuple(calls), int(whom) if whom.lstrip("-").isdecimal() else None)


def story(ranks: Sequence[Whereabouts], failed: int, kind: str, in_a_call: bool) -> tuple[str, ...]:
    """What is to be told after the error that ended the job, in paragraphs.

    failed: the rank that raised it.  kind: its class.  in_a_call: whether it came from a call.
    """
    graph = "" if kind == "Deadlock" else who_waits(ranks)  # which has the graph in its text
    calls = last_calls(ranks, [failed]) if in_a_call or kind == "Deadlock" else ""
    return tuple(filter(None, (graph, calls)))


def who_waits(ranks: Sequence[Whereabouts]) -> str:
    """The graph, a line for each rank; "" if nobody waits.  ranks: all, in order."""
    if all(rank.whom is None for rank in ranks):
        return ""
    shown = set(_by_weight(ranks)[: MOST_LINES if len(ranks) > MOST_LINES + 2 else None])
    edges = {r: _edge(r, ranks[r]) for r in sorted(shown)}
    wide = max(map(len, edges.values()))
    lines = [f"  {edge.ljust(wide)}   {_state(ranks[r])}" for r, edge in edges.items()]
    lines += _others(ranks, shown)
    found = circles(ranks)
    lines += [f"  a circle: {_way(circle)}" for circle in found[:MOST_CIRCLES]]
    if len(found) > MOST_CIRCLES:
        lines.append(f"  and {len(found) - MOST_CIRCLES} more circles")
    return "\n".join(["who waits for whom:", *lines])


def last_calls(ranks: Sequence[Whereabouts], first: Collection[int] = ()) -> str:
    """The last calls of the ranks that matter most.  first: ranks that matter anyway."""
    alike: dict[tuple[str, ...], list[int]] = {}
    weight = _by_weight(ranks)
    for r in sorted(range(len(ranks)), key=lambda r: (r not in first, weight.index(r))):
        alike.setdefault(ranks[r].calls[-LAST_CALLS:], []).append(r)
    told = list(alike.items())[:MOST_TOLD]
    names = [named(who) for _, who in told]
    wide, lines = max(map(len, names), default=0), ["the last calls, the latest at the end:"]
    for name, (calls, _) in zip(names, told):
        heads = [name, *[""] * len(calls)]
        lines += [f"  {h.ljust(wide)}   {call}" for h, call in zip(heads, calls or ("none yet",))]
    left = sum(len(who) for who in alike.values()) - sum(len(who) for _, who in told)
    return "\n".join([*lines, f"  (and {left} more ranks)"] if left else lines)


def circles(ranks: Sequence[Whereabouts]) -> list[list[int]]:
    """The ranks that wait for each other, each circle from its lowest rank on."""
    found, seen = [], set[int]()
    for start in range(len(ranks)):
        way, r = list[int](), start
        while r not in seen:
            seen.add(r)
            way.append(r)
            r = _next(ranks, r)
        circle = way[way.index(r) :] if r in way else []
        if len(circle) > 1 or (circle and ranks[r].whom == r):
            lowest = circle.index(min(circle))
            found.append(circle[lowest:] + circle[:lowest])
    return sorted(found)


def named(ranks: Iterable[int]) -> str:
    """rank 3, or ranks 0, 2, 5 to 9."""
    runs: list[list[int]] = []
    for r in sorted(ranks):
        if runs and r == runs[-1][-1] + 1:
            runs[-1].append(r)
        else:
            runs.append([r])
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"rank{'' if len(runs) == len(runs[0]) == 1 else 's'} {', '.join(texts)}"


def _next(ranks: Sequence[Whereabouts], r: int) -> int:
    """Whom that rank waits for; itself, if that is nobody, any rank, or none that there is."""
    whom = ranks[r].whom
    return r if whom is None or not 0 <= whom < len(ranks) else whom


def _by_weight(ranks: Sequence[Whereabouts]) -> list[int]:
    """All ranks: first those for whom others wait in the end, then those who wait for these, ..."""
    ends = {r for circle in circles(ranks) for r in circle}
    ends |= {r for r in range(len(ranks)) if _next(ranks, r) == r}
    awaited = {_next(ranks, r) for r in range(len(ranks)) if _next(ranks, r) != r}

    def distance(r: int) -> int:
        steps = 0
        while r not in ends:
            r, steps = _next(ranks, r), steps + 1
        return steps

    def aside(r: int) -> bool:
        """It neither waits, nor is waited for, nor has it failed."""
        return r not in awaited and ranks[r].whom is None and ranks[r].fate in ("", FINISHED)

    return sorted(range(len(ranks)), key=lambda r: (aside(r), distance(r), r))


def _edge(r: int, rank: Whereabouts) -> str:
    if rank.whom is None:
        return f"rank {r}"
    return f"rank {r} --> {'any rank' if rank.whom == ANY else f'rank {rank.whom}'}"


def _state(rank: Whereabouts) -> str:
    """What the rank does, or has come to."""
    if rank.whom is not None:
        return rank.call
    return f"{rank.fate or 'was not waiting'}; its last call: {rank.call}"


def _others(ranks: Sequence[Whereabouts], shown: Collection[int]) -> list[str]:
    """Lines for those who have none of their own."""
    alike: dict[tuple[bool, str], list[int]] = {}
    for r, rank in enumerate(ranks):
        if r not in shown:
            alike.setdefault((rank.whom is not None, _state(rank)), []).append(r)
    lines = [
        f"  {named(who)} {'wait likewise in ' if waits else ''}{state}"
        for (waits, state), who in list(alike.items())[:MOST_GROUPS]
    ]
    left = sum(len(who) for who in list(alike.values())[MOST_GROUPS:])
    return [*lines, f"  (and {left} more ranks)"] if left else lines


def _way(circle: Sequence[int]) -> str:
    texts = [str(r) for r in circle]
    if len(texts) > MOST_LINES:
        texts[3:-1] = ["..."]
    more = f" ({len(circle)} ranks)" if len(circle) > MOST_LINES else ""
    return " -> ".join([*texts, str(circle[0])]) + more
