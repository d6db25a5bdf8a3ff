"""The collectives of a run, for the page of a replay: which chunks are where after which message.

A trace knows who got how many bytes from whom, but not what was in them. So each kind of call is
run again, small and watched (chunks.py): that gives for each rank a story, message by message. It
is told of a call in the trace only if its messages came from the same ranks in the same order;
else, as for the collectives of MPI, the page shows what there is before and after.

    rounds    through memory, a large array goes in blocks, each with all the messages of the story
    root      who plays the part of rank 0 (of a broadcast, ...): found by what the messages say

Letters: p ranks; a place is a rank's number in the story, 0 for the root.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from minipar.comm.link import IN_MEMORY
from minipar.errors import UsageError
from minipar.events import Event
from minipar.trace.chunks import MOST_RANKS, TOLD, Story, stories
from minipar.trace.trace_file import Trace

ROOTED = ("broadcast", "reduce", "gather", "scatter")
BY_ROWS = ("gather", "scatter")  # in which the root's row comes first
Key = tuple[int, str, int]  # of a call: group, operation, number


class _Call(NamedTuple):
    """One collective, as all its ranks saw it."""

    algorithm: str
    ranks: list[int]  # of the world, in the order of the group
    got: list[list[int]]  # for each of them, the ranks that its messages came from
    before: list[tuple[int, int]]  # what each has sent and got before the page begins


def collectives(trace: Trace, begin: int, end: int) -> dict[str, Any]:
    """calls: those under way between begin and end.  stories: that they refer to, by number.

    numbers: of the calls, by key; for the events of the page, and not for the page.
    """
    shown: list[dict[str, Any]] = []
    told: dict[tuple[str, str, int], int] = {}
    numbers: dict[Key, int] = {}
    table: list[list[dict[str, Any]]] = []
    for key, call in _calls(trace, begin, end).items():
        op, p = key[1], len(call.ranks)
        found = _told_of(op, call) if op in TOLD and 2 <= p <= MOST_RANKS else None
        if found is None:
            continue
        story, root, rounds = found
        name = (op, call.algorithm if rounds else "", p)
        if name not in told:
            told[name] = len(table)
            table.append([_plain(each) for each in story])
        numbers[key] = len(shown)
        places = [(root + i) % p for i in range(p)]
        shown.append(
            {
                "ranks": [call.ranks[i] for i in places],
                "names": places if op in BY_ROWS else list(range(p)),
                "before": [call.before[i] for i in places],
                "rounds": rounds,
                "story": told[name],
            }
        )
    return {"calls": shown, "stories": table, "numbers": numbers}


def _calls(trace: Trace, begin: int, end: int) -> dict[Key, _Call]:
    """The calls under way in that time, in the order in which they began."""
    callers: defaultdict[Key, list[Event]] = defaultdict(list)
    for rank in trace.ranks:
        for call in rank.calls:
            if call.begin < end and call.end >= begin:
                callers[_key(call)].append(call)
    sent: dict[Key, Counter[int]] = defaultdict(Counter)
    early: dict[Key, Counter[int]] = defaultdict(Counter)
    got: dict[Key, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for rank in trace.ranks:
        for message in rank.messages:
            sent[_key(message)][rank.rank] += message.begin < begin
        for message in rank.receipts:
            key = _key(message)
            if key in callers:
                got[key][rank.rank].append(message.rank)
                early[key][rank.rank] += message.begin < begin
    made = {}
    for key, calls in sorted(callers.items(), key=lambda item: min(c.begin for c in item[1])):
        ranks = _members(trace, calls)
        before = [(sent[key][r], early[key][r]) for r in ranks]
        made[key] = _Call(calls[0].algorithm, ranks, [got[key][r] for r in ranks], before)
    return made


def _key(event: Event) -> Key:
    return event.group, event.op, event.sequence


def _members(trace: Trace, calls: Sequence[Event]) -> list[int]:
    """Who is in the group of these calls; if the trace does not say it, those who called."""
    group = calls[0].group
    if not group:
        return [rank.rank for rank in trace.ranks]
    known = trace.ranks[calls[0].rank].groups.get(group)
    return list(known[1]) if known else sorted({call.rank for call in calls})


def _told_of(op: str, call: _Call) -> tuple[list[Story], int, int] | None:
    """The story that fits, who plays rank 0 in it, and in how many rounds it goes.

    0 rounds: only its beginning and its end are known.  None: not even these.
    """
    p = len(call.ranks)
    story = _story(op, call.algorithm, p)
    for root in range(p if op in ROOTED else 1):
        rounds = _rounds(story, call, root)
        if rounds:
            return story, root, rounds
    if op in ROOTED:
        return None
    whole = _story(op, "naive", p)
    return [Story([s.states[0], s.states[-1]], [], []) for s in whole], 0, 0


@lru_cache(maxsize=64)
def _story(op: str, algorithm: str, p: int) -> list[Story]:
    try:
        return stories(op, algorithm, p)
    except UsageError:  # it is of somebody's own making, or of MPI's
        return []


def _rounds(story: Sequence[Story], call: _Call, root: int) -> int:
    """How often the messages of the story have come, in its order; 0 if it was not like that."""
    p, rounds = len(call.ranks), 1
    for place, each in enumerate(story):
        came = call.got[(root + place) % p]
        expected = [call.ranks[(root + src) % p] for src, _ in each.got]
        times = max(1, -(-len(came) // len(expected))) if expected else 1
        rounds = max(rounds, times)
        if times > 1 and call.algorithm not in IN_MEMORY:
            return 0
        if came != (expected * times)[: len(came)] and (
            call.algorithm not in IN_MEMORY or Counter(came) != Counter(expected * times)
        ):
            return 0
    return rounds if story else 0


def _plain(story: Story) -> dict[str, Any]:
    return {
        "states": [state.tolist() for state in story.states],
        "sent": [chunks for _, chunks in story.sent],
        "got": [chunks for _, chunks in story.got],
    }
