"""Trace a rank: put a tape on, and write what it holds to a file when the block ends.

    with tracing(group, "runs/gpt-1/trace"):      on every rank
        train()                                   -> rank-0.npz, rank-1.npz, ...

What fails inside is traced too, up to there. The clock of each rank is compared with rank 0's once,
at the beginning: of ten questions and answers, the quickest tells by how much it is ahead, to half
the time that this one took (Cristian 1989). Ranks in virtual time have one clock already.

Under MINIPAR_TRACE=FOLDER (`minipar run --trace FOLDER`) every rank that `launch` starts is traced
into that folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from minipar import ambient
from minipar.comm.pairs import Pairs
from minipar.comm.transport import ANY
from minipar.comm.virtual import Gone
from minipar.events import Recorder
from minipar.spans import Tape, Watcher
from minipar.trace.trace_file import file_of, save

VARIABLE = "MINIPAR_TRACE"
QUESTIONS = 10  # to each rank, about its clock


@contextmanager
def tracing(group: Pairs, folder: str | Path) -> Iterator[Tape]:
    """Trace what this rank does inside the block.  Collective over `group`, the world.

    folder: gets a file for each rank; made if it is missing.
    Cost:   some microseconds for each message, module call and vjp.
    """
    recorder = ambient.recorder.get()
    if recorder is not None and recorder.tape is not None:  # somebody outside does it already
        yield recorder.tape
        return
    file_of(folder, group.rank).unlink(missing_ok=True)  # of an earlier run
    offset, doubt = _unnoticed(group)
    token = ambient.recorder.set(recorder := Recorder()) if recorder is None else None
    resident = None if group.backend == "local" else bytes_resident
    clock = group.now_ns if group.virtual else time.perf_counter_ns  # the same, in fewer calls
    recorder.tape = tape = Tape(clock, resident)
    recorder.add_log(tape)
    mode = ambient.grad_enabled.get()
    watching = ambient.grad_enabled.set(Watcher(tape, mode) if mode else mode)
    begun, lost = group.now_ns(), False
    waits = group.waits()
    for owner, name in waits:
        setattr(owner, name, _timed(getattr(owner, name), tape, group.world_ranks[group.rank]))
    try:
        yield tape
    except Gone:
        lost, tape.in_vain = True, ""  # not for whom it waited
        raise
    finally:
        for owner, name in waits:
            delattr(owner, name)
        recorder.tape = None
        tape.alive.close()
        recorder.remove_log(tape)
        ambient.grad_enabled.reset(watching)
        if token is not None:
            ambient.recorder.reset(token)
        facts = {"backend": group.backend, "virtual": group.virtual, "rank": group.rank}
        facts |= {"ranks": group.size, "begin": begun, "end": group.now_ns()}
        facts |= {"offset_ns": offset, "doubt_ns": doubt}
        facts |= {"in_vain": tape.in_vain, "lost": lost}
        save(file_of(folder, group.rank), tape, facts)


def tracing_if_asked(group: Pairs) -> Any:
    """`tracing`, if the environment names a folder for it."""
    folder = os.environ.get(VARIABLE)
    return tracing(group, folder) if folder else nullcontext()


def _unnoticed(group: Pairs) -> tuple[int, int]:
    """`clock_offset`, counted apart and told to no recorder: calls have the numbers that they have
    without a trace, and no error tells of questions about clocks.
    """
    token = ambient.recorder.set(None)
    try:
        return clock_offset(group.counted_apart())
    finally:
        ambient.recorder.reset(token)


def clock_offset(group: Pairs) -> tuple[int, int]:
    """What to add to this rank's clock to have rank 0's, and how wrong that may be, in ns.

    Collective.  Cost: 20 small messages for each rank but the first, one rank after another.
    """
    if group.backend == "local":
        return 0, 0
    found = (0, 0)
    for rank in range(1, group.size):
        if group.rank == 0:
            found_there = min((_ask(group, rank) for _ in range(QUESTIONS)), key=lambda x: x[1])
            group.send(np.array(found_there), rank)
        elif group.rank == rank:
            for _ in range(QUESTIONS):
                group.recv(0)
                group.send(np.array(group.now_ns()), 0)
            offset, doubt = group.recv(0).tolist()
            found = offset, doubt
    return found


def _ask(group: Pairs, rank: int) -> tuple[int, int]:
    """By how much rank 0 is ahead of that rank, by one question, and how wrong that may be."""
    begin = group.now_ns()
    group.send(np.zeros(0), rank)
    theirs = int(group.recv(rank))
    end = group.now_ns()
    return (begin + end) // 2 - theirs, (end - begin) // 2


def bytes_resident() -> int:
    """Memory of this process that is really there; 0 where the system does not say."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)  # half the time of open()
    except OSError:
        return 0
    try:
        return int(os.read(file, 100).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(file)


def _timed(wait: Callable[..., Any], tape: Tape, own: int) -> Callable[..., Any]:
    """The same wait, which leaves a span."""

    def timed(*arguments: Any) -> Any:
        begin, ended = tape.clock(), False
        try:
            result = wait(*arguments)
            ended = True
            return result
        finally:
            whom = arguments[-2]
            name = {ANY: "any rank", own: "its second thread"}.get(whom, f"rank {whom}")
            tape.add("wait", name, begin, tape.clock())
            if whom != own or ended:
                tape.in_vain = "" if ended else name

    return timed
