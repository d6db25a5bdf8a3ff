"""The files of a trace: one for each rank, and how they become one picture of the run.

    rank-3.npz    facts      JSON: version, rank, ranks, backend, begin, end, offset_ns, groups
                  words      JSON: the texts that the tables name by number
                  spans      [n, 8] int64: kind name begin end micro step depth second
                  calls, messages, receipts   [m, 10] int64: the fields of events.Event
                  apart      [m] bool: which calls the second thread made
                  memory     [k, 2] int64: when, bytes
                  marks      [l, 5] int64: kind at whom value lag
                  held       [k, 6] int64: when, bytes of each kind (alive.KINDS)

It is a zip file of plain arrays with checksums; nothing in it is ever evaluated. It holds names of
modules and of source files with lines, and nothing else of the program or its environment.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minipar.alive import KINDS
from minipar.errors import TraceError
from minipar.events import Event
from minipar.spans import Mark, Span, Tape

VERSION = 2
TABLES = ("spans", "calls", "messages", "receipts")
SPAN_WORDS, EVENT_WORDS, MARK_WORDS = (0, 1), (2, 5, 6), (0,)  # columns that are texts
DAMAGE = (
    *(EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, OSError, ValueError, KeyError),
    *(IndexError, TypeError, AttributeError, MemoryError),
)  # what reading a file raises that is not what was written


class RankTrace(NamedTuple):
    """What one rank did; times in ns since the first rank began, by rank 0's clock."""

    rank: int
    begin: int
    end: int
    spans: list[Span]  # in the order in which they ended
    calls: list[Event]  # collectives, as wholes
    apart: list[bool]  # of each, whether the rank's second thread made it
    messages: list[Event]  # that it sent
    receipts: list[Event]  # that it got, noted by itself
    memory: list[tuple[int, int]]
    groups: dict[int, tuple[str, tuple[int, ...]]]  # by number: its axis, and its world ranks
    marks: Sequence[Mark] = ()  # of parameter servers: clocks and versions
    wire: Sequence[Event] = ()  # in virtual time: when each message went out, and came in
    held: Sequence[tuple[int, ...]] = ()  # when, and bytes of each kind (alive.KINDS)
    in_vain: str = ""  # whom its last wait was for, if that ended in an error
    lost: bool = False  # at its end, because the declared cluster says so


class Trace(NamedTuple):
    """A whole run."""

    backend: str
    virtual: bool  # whether time is that of a declared cluster
    ranks: list[RankTrace]
    doubt_ns: int  # how far the clocks of two ranks may be apart
    folder: Path | None = None  # where it was read from

    @property
    def end(self) -> int:
        return max(rank.end for rank in self.ranks)

    @property
    def silent(self) -> list[int]:
        """The ranks that have left nothing."""
        return [rank.rank for rank in self.ranks if not rank.end]

    def axis(self, event: Event) -> str:
        """Along which axis of the mesh a call or a message went: dp, pp, tp; world, or other."""
        known = self.ranks[event.rank].groups.get(event.group)
        return known[0] if known else "other" if event.group else "world"


def file_of(folder: str | Path, rank: int) -> Path:
    return Path(folder) / f"rank-{rank}.npz"


def save(path: Path, tape: Tape, facts: dict[str, Any]) -> None:
    """Write what a tape holds, whole or not at all.  facts: rank, ranks, backend, ..."""
    words: dict[str, int] = {}
    groups = {str(ident): [axis, list(ranks)] for ident, (axis, ranks) in tape.groups.items()}
    tables = {
        "spans": _numbers(tape.rows, 8, SPAN_WORDS, words),
        "calls": _numbers(tape.collectives, 10, EVENT_WORDS, words),
        "messages": _numbers(tape.messages, 10, EVENT_WORDS, words),
        "receipts": _numbers(tape.receipts, 10, EVENT_WORDS, words),
        "apart": np.array(tape.apart, bool),
        "memory": np.array(tape.memory, np.int64).reshape(-1, 2),
        "marks": _numbers(tape.marks, 5, MARK_WORDS, words),
        "held": np.array(tape.held, np.int64).reshape(-1, 1 + len(KINDS)),
    }
    texts = {"facts": {"version": VERSION, "groups": groups, **facts}, "words": list(words)}
    encoded = {name: np.frombuffer(json.dumps(x).encode(), np.uint8) for name, x in texts.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with open(unfinished, "wb") as file:
        np.savez_compressed(file, **encoded, **tables)  # type: ignore[arg-type]
    unfinished.replace(path)


def load(folder: str | Path) -> Trace:
    """All ranks of a run; one that was killed has left no file, and nothing is known of it.

    Raises: TraceError with one sentence about what is wrong.
    """
    there = sorted(Path(folder).glob("rank-*.npz"))
    if not there:
        raise TraceError(
            f"there is no trace in {folder}: no rank-0.npz, rank-1.npz, ... minipar train|run "
            "--trace writes them."
        )
    found = {rank.rank: (rank, facts) for rank, facts in map(_read, there)}
    facts = found[min(found)][1]
    found = {rank: each for rank, each in found.items() if rank < facts["ranks"]}
    for rank, (_, others) in found.items():
        if (others["ranks"], others["backend"]) != (facts["ranks"], facts["backend"]):
            raise TraceError(
                f"{file_of(folder, rank)} is of another run: of {others['ranks']} ranks on "
                f"{others['backend']}, and not of {facts['ranks']} on {facts['backend']}."
            )
    start = min(rank.begin for rank, _ in found.values())
    ranks = [
        _shifted(found[rank][0], start) if rank in found else nothing_of(rank)
        for rank in range(facts["ranks"])
    ]
    if facts["virtual"]:
        ranks = _with_wires(ranks)
    doubt = max(each["doubt_ns"] for _, each in found.values())
    return Trace(facts["backend"], facts["virtual"], ranks, doubt, Path(folder))


def nothing_of(rank: int) -> RankTrace:
    """What is known of a rank that has left no file."""
    return RankTrace(rank, 0, 0, [], [], [], [], [], [], {})


def _read(path: Path) -> tuple[RankTrace, dict[str, Any]]:
    """One file, its times by rank 0's clock."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts, words = (json.loads(arrays[name].tobytes()) for name in ("facts", "words"))
        if facts["version"] != VERSION:
            raise TraceError(
                f"{path} was written by another version of minipar (format {facts['version']}, "
                f"this one reads {VERSION}). Record the run again."
            )
        return _rank(arrays, facts, words), facts
    except DAMAGE as error:
        raise TraceError(f"{path} is no trace of minipar, or is damaged: {error}") from None


def _rank(arrays: dict[str, Any], facts: dict[str, Any], words: Sequence[str]) -> RankTrace:
    offset = facts["offset_ns"]
    begin, end = facts["begin"] + offset, facts["end"] + offset
    spans = [
        Span(*row)._replace(begin=row[2] + offset, end=row[3] + offset, second=bool(row[7]))
        for row in _texts(arrays["spans"], 8, SPAN_WORDS, words)
    ]
    calls, messages, receipts = (
        [
            Event(*row)._replace(begin=row[8] + offset, end=max(row[8], row[9]) + offset)
            for row in _texts(arrays[name], 10, EVENT_WORDS, words)
        ]
        for name in TABLES[1:]
    )
    if lost := bool(facts.get("lost")):  # what was to go out later never did
        messages = [m._replace(end=min(m.end, end)) for m in messages if m.begin < end]
    memory = [(when + offset, used) for when, used in arrays["memory"].tolist()]
    marks = [
        Mark(*row)._replace(at=row[1] + offset)
        for row in _texts(arrays["marks"], 5, MARK_WORDS, words)
    ]
    held = [
        (when + offset, *used) for when, *used in _texts(arrays["held"], 1 + len(KINDS), (), words)
    ]
    groups = {int(n): (str(axis), tuple(ranks)) for n, (axis, ranks) in facts["groups"].items()}
    return RankTrace(
        *(facts["rank"], begin, end, spans, calls, arrays["apart"].tolist()),
        *(messages, receipts, memory, groups, marks),
        held=held,
        in_vain=str(facts.get("in_vain", "")),
        lost=lost,
    )


def _shifted(rank: RankTrace, start: int) -> RankTrace:
    """With times since `start`."""

    def earlier(rows: list[Any]) -> list[Any]:
        return [row._replace(begin=row.begin - start, end=row.end - start) for row in rows]

    return rank._replace(
        begin=rank.begin - start,
        end=rank.end - start,
        spans=earlier(rank.spans),
        calls=earlier(rank.calls),
        messages=earlier(rank.messages),
        receipts=earlier(rank.receipts),
        memory=[(when - start, used) for when, used in rank.memory],
        marks=[mark._replace(at=mark.at - start) for mark in rank.marks],
        held=[(when - start, *used) for when, *used in rank.held],
    )


def _with_wires(ranks: list[RankTrace]) -> list[RankTrace]:
    """A message takes as long to come in as to go out, and has come when its receiver, if that
    waited for it, got it.
    """
    out: dict[tuple[Any, ...], list[int]] = {}
    for message in (m for rank in ranks for m in rank.messages):
        out.setdefault(_same(message), []).append(message.end - message.begin)
    lengths = {key: iter(found) for key, found in out.items()}

    def came(receipt: Event) -> Event:
        length = next(lengths.get(_same(receipt), iter(())), 0)
        return receipt._replace(begin=receipt.end - length)

    return [rank._replace(wire=[*rank.messages, *map(came, rank.receipts)]) for rank in ranks]


def _same(message: Event) -> tuple[Any, ...]:
    """What a message and its receipt have in common; several of a call keep their order."""
    return message.rank, message.peer, message.group, message.op, message.sequence


def _numbers(
    rows: Iterable[Sequence[Any]], width: int, texts: Sequence[int], words: dict[str, int]
) -> np.ndarray:
    """The rows as integers: a text is its number among the words, which grow."""
    table = [list(row) for row in rows]
    for row in table:
        for at in texts:
            row[at] = words.setdefault(row[at], len(words))
    return np.array(table, np.int64).reshape(-1, width)


def _texts(
    table: np.ndarray, width: int, texts: Sequence[int], words: Sequence[str]
) -> list[list[Any]]:
    """The other way round.  Raises: ValueError, IndexError."""
    if table.dtype != np.int64 or table.ndim != 2 or table.shape[1] != width:
        raise ValueError(f"a table is {table.dtype}{list(table.shape)}")
    rows = table.tolist()
    for row in rows:
        for at in texts:
            row[at] = words[row[at]]
    return rows
