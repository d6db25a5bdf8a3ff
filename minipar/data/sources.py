"""Where the examples of a stream come from, one by one and perhaps forever.

A source is a function of a position that gives examples from there on, each with the position after
it. What a position is the source decides; None is the beginning.

    source(None) -> ("a", 1) ("b", 2) Wait(0.05) Wait(0.05) ("c", 3) ...
    source(2)    -> ("c", 3) ...

Where there is nothing yet, a source does not wait. It says `Wait`, and its reader waits for it, or
has had enough: so a reader can be closed at any time. Left out: files that are replaced while they
are followed, as by a rotation of logs.
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minipar.errors import UsageError

LONGEST = 2**24  # bytes of a line: what has no end is not kept in memory


class Wait(NamedTuple):
    """Nothing has come yet; ask again after so many seconds."""

    seconds: float


Source = Callable[[Any], Iterator["tuple[Any, Any] | Wait"]]


def counted(examples: Callable[[], Iterable[Any]]) -> Source:
    """The source of what examples() iterates over, such as a generator function.

    A position is the number of examples before it. To go on from one, these are made anew and
    passed over. What `examples` gives may be `Wait` too.
    """

    def source(position: int | None) -> Iterator[tuple[Any, int] | Wait]:
        n, start = 0, position or 0
        for example in examples():
            if isinstance(example, Wait):
                yield example
                continue
            n += 1
            if n > start:
                yield example, n
        if n < start:
            raise UsageError(f"A stream of {n} examples cannot go on after example {start}.")

    return source


def lines(
    path: str | Path, follow: bool = False, idle_s: float | None = None, poll_s: float = 0.05
) -> Source:
    """The source of a file's lines, as str without their ends; a position is a number of bytes.

    follow: wait for more at the end (and for the rest of a line without an end), as `tail -f` does,
            looking every poll_s. A file that grows must not be read by several ranks if idle_s is
            given, for they need not agree on when it has ended.
    idle_s: the end has come once nothing has been added for so long. None: never.
    """

    def source(position: int | None) -> Iterator[tuple[str, int] | Wait]:
        at, rest, quiet = position or 0, b"", _Quiet(idle_s)
        with _opened(path) as file:
            _check_size(file.fileno(), at, path)
            file.seek(at)
            while not quiet.over():
                piece = file.readline(LONGEST)
                rest += piece
                if rest.endswith(b"\n") or (rest and not piece and not follow):
                    at += len(rest)
                    line, rest = _text(rest), b""
                    yield line, at
                elif len(rest) >= LONGEST:
                    raise UsageError(f"{path}, byte {at}: a line is longer than {LONGEST} bytes.")
                elif not piece and not follow:
                    return
                elif not piece:
                    _check_size(file.fileno(), at + len(rest), path)
                    quiet.begin()
                    yield Wait(poll_s)
                    continue
                quiet.end()

    return source


def pipe_lines(fd: int = 0, idle_s: float | None = None, poll_s: float = 0.05) -> Source:
    """The source of the lines that come through a pipe or socket: 0 is stdin.  One rank reads.

    A position is a number of lines. To go on from one, whatever writes must begin anew; so many
    lines are passed over.  idle_s, poll_s: as for `lines`.
    """

    def examples() -> Iterator[str | Wait]:
        rest, more, quiet = b"", True, _Quiet(idle_s)
        while more and not quiet.over():
            if not select.select([fd], [], [], poll_s)[0]:
                quiet.begin()
                yield Wait(0)  # `select` has waited
                continue
            quiet.end()
            data = os.read(fd, 2**16)
            more = bool(data)
            *whole, rest = (rest + data).split(b"\n")
            if len(rest) >= LONGEST:
                raise UsageError(f"A line of the pipe is longer than {LONGEST} bytes.")
            if rest and not more:
                whole.append(rest)
            yield from map(_text, whole)

    return counted(examples)


class _Quiet:
    """For how long nothing has come, beside a limit."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s, self._since = limit_s, math.inf

    def begin(self) -> None:
        """There is nothing; the time counts from the first of such calls."""
        self._since = min(self._since, time.monotonic())

    def end(self) -> None:
        self._since = math.inf

    def over(self) -> bool:
        return self._limit_s is not None and time.monotonic() - self._since >= self._limit_s


def _opened(path: str | Path) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _check_size(fd: int, least: int, path: str | Path) -> None:
    size = os.fstat(fd).st_size
    if size < least:
        raise UsageError(
            f"{path} has {size} bytes, but {least} of them have been read before; a stream goes on "
            "only in a file to which lines are added. Begin it anew, without a position."
        )


def _text(line: bytes) -> str:
    """Without its end; bytes that are no UTF-8 are kept in a form that can be turned back."""
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
