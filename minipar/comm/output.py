"""What ranks print, put together so that a person can read it.

Whole lines only, each with its rank in front; a line that all ranks print is shown once. So a line
waits a moment for the same line of the others:

    rank 0 prints "step 1"   ->   [all 2] step 1          both within HOLD_S
    rank 1 prints "step 1"
    rank 1 prints "hello"    ->   [rank 1] hello          the others did not

A line that ends in a carriage return is progress: shown in place on a terminal, else left out.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

from minipar.errors import UsageError

HOLD_S = 0.4
MOST_HELD = 1000  # lines of a rank; beyond that they wait for nobody


class _Line(NamedTuple):
    text: str
    since: float


class Output:
    """The lines of one stream (stdout or stderr) of all ranks."""

    def __init__(
        self,
        stream: IO[str],
        ranks: int,
        *,
        plain: Iterable[int] = (),
        log_dir: str | None = None,
        here: range | None = None,
    ) -> None:
        """plain: ranks whose lines get no label and wait for nobody.  log_dir: a file for each.

        here: the ranks whose output comes here, if not all.
        """
        self._stream, self._ranks, self._plain = stream, ranks, frozenset(plain)
        self._partial, self._progress = [""] * ranks, [""] * ranks
        self._held: list[deque[_Line]] = [deque() for _ in range(ranks)]
        here = range(ranks) if here is None else here
        self._alive = set(here)
        self._progress_shown = 0  # width of the progress text now on the terminal
        self.error: OSError | None = None  # why nothing can be printed any more
        self._logs: dict[int, IO[str]] = {}
        if log_dir is not None:
            if Path(log_dir).exists() and not Path(log_dir).is_dir():
                raise UsageError(f"{log_dir} is a file, and --log-dir names a folder.")
            Path(log_dir).mkdir(parents=True, exist_ok=True)
            paths = {r: Path(log_dir, f"rank-{r}.log") for r in here}
            self._logs = {r: path.open("a") for r, path in paths.items()}

    def feed(self, rank: int, text: str) -> None:
        """Take in what a rank has printed: any piece of text, whole lines or not."""
        *lines, self._partial[rank] = (self._partial[rank] + text).split("\n")
        for line in lines:
            self._take(rank, line.removesuffix("\r").rpartition("\r")[2])
        shown, returned, rest = self._partial[rank].rpartition("\r")
        if returned:
            self._partial[rank], self._progress[rank] = rest, shown.rpartition("\r")[2]
            self._show_progress(rank, self._progress[rank])
        self.flush()

    def flush(self, everything: bool = False) -> float | None:
        """Print what is due; seconds until the next line will be, None if nothing is held."""
        while fronts := {r: held[0] for r, held in enumerate(self._held) if held}:
            first = min(fronts, key=lambda r: fronts[r].since)
            line = fronts[first]
            same = [r for r, front in fronts.items() if front.text == line.text]
            complete = first in self._plain or self._alive.issubset(same)
            due_in = line.since + HOLD_S - time.monotonic()
            complete = complete or len(self._held[first]) > MOST_HELD
            if due_in > 0 and not everything and not complete:
                return due_in
            for r in same:
                self._held[r].popleft()
            self._print(same, line.text)
        return None

    def end(self, rank: int) -> None:
        """That rank will print no more; an unfinished line of its is a line now."""
        if self._partial[rank]:
            self.feed(rank, "\n")
        self._alive.discard(rank)
        self.flush()

    def close(self) -> None:
        """Print everything that is still held, and close the log files."""
        self.flush(everything=True)
        self._clear_progress()
        for log in self._logs.values():
            with contextlib.suppress(OSError):  # `error` has it
                log.close()

    def _take(self, rank: int, line: str) -> None:
        line, self._progress[rank] = line or self._progress[rank], ""  # progress that has ended
        if rank in self._logs:
            self._write(line + "\n", self._logs[rank])
        self._held[rank].append(_Line(line, time.monotonic()))

    def _print(self, ranks: list[int], text: str) -> None:
        self._clear_progress()
        self._write(self._printable(self._label(ranks) + text) + "\n", self._stream)

    def _write(self, text: str, stream: IO[str]) -> None:
        """Write, unless that has failed before: then what ranks print is dropped.

        A full disk or a reader that has gone must not keep a launcher from ending its ranks.
        """
        if self.error is None:
            try:
                stream.write(text)
                stream.flush()
            except OSError as error:
                why = f"what the ranks print cannot be written: {error.strerror}"
                self.error = type(error)(f"{why}; the job was ended.")

    def _printable(self, text: str) -> str:
        """The text, with escapes for what the stream's encoding does not have."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _label(self, ranks: list[int]) -> str:
        if self._plain.issuperset(ranks):
            return ""
        if len(ranks) == self._ranks > 1:
            return f"[all {self._ranks}] "
        return f"[rank {','.join(map(str, ranks))}] "

    def _show_progress(self, rank: int, text: str) -> None:
        if self._stream.isatty():
            text = self._label([rank]) + text
            self._write("\r" + text.ljust(self._progress_shown), self._stream)
            self._progress_shown = len(text)

    def _clear_progress(self) -> None:
        if self._progress_shown:
            self._write("\r" + " " * self._progress_shown + "\r", self._stream)
            self._progress_shown = 0
