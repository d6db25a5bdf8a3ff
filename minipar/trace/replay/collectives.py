"""The chunks of each rank after each message of a collective, for the page of a replay."""

from __future__ import annotations

from typing import Any

from minipar.errors import UsageError
from minipar.trace.chunks import MOST_RANKS, states_by_message
from minipar.trace.trace_file import Trace


def states_of(trace: Trace, events: list[dict[str, Any]]) -> dict[str, Any]:
    """By operation, algorithm and ranks: the chunks of each rank after each message (chunks.py).

    Only of what can be shown, and only if the messages are those of that algorithm: a large array
    goes in several rounds.
    """
    sizes = {
        (rank.rank, group): len(members)
        for rank in trace.ranks
        for group, (_, members) in rank.groups.items()
    }
    wanted = {
        (e["op"], e["algorithm"], sizes.get((e["rank"], e["group"]), len(trace.ranks)))
        for e in events
        if e["does"] == "calls"
    }
    found = {}
    for op, algorithm, p in sorted(wanted):
        if not 2 <= p <= MOST_RANKS:
            continue
        try:
            states = states_by_message(op, algorithm, p)
        except UsageError:
            continue
        found[f"{op} {algorithm} {p}"] = [[s.tolist() for s in of_rank] for of_rank in states]
    return found
