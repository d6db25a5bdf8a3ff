"""How a rank failed, in a form that travels from the rank to the launcher and to the user."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from dataclasses import dataclass
from typing import NoReturn

from minipar.errors import CommError, Deadlock, MiniparError, PeerLost, RankFailed, said

SUMMARY_LENGTH = 300  # characters; it goes to every rank
OWN_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


class RankTraceback(Exception):
    """The cause of a re-raised exception: the traceback in the rank's own process, as text."""

    def __str__(self) -> str:
        return "\n\n" + str(self.args[0])


@dataclass(frozen=True)
class Failure:
    """The first failing rank of a job, and all that is known about it."""

    rank: int
    summary: str  # one line, e.g. "rank 1 raised ValueError: ..."
    traceback: str = ""
    exception: bytes = b""  # pickled in the rank; empty if that cannot be
    exit_code: int = 1
    in_a_call: bool = True  # whether the calls of the ranks tell something about it
    notes: tuple[str, ...] = ()  # what the ranks together know about how it came to this
    kind: str = ""  # the exception's class

    @classmethod
    def of(cls, rank: int, error: BaseException, notes: tuple[str, ...] = ()) -> Failure:
        """From the exception that ended the rank."""
        if isinstance(error, SystemExit):
            code = (error.code & 0xFF or 1) if isinstance(error.code, int) else 1
            text = f"rank {rank} called sys.exit({error.code!r})"
            return cls(rank, text, exit_code=code, in_a_call=False, notes=notes, kind="SystemExit")
        text = _users_traceback(error)
        first = said(error).partition("\n")[0][:SUMMARY_LENGTH]
        kind = type(error).__name__
        summary = f"rank {rank} raised {kind}: {first}".removesuffix(": ")
        if isinstance(error, MiniparError) and first:  # these name their rank themselves
            summary = first
        in_a_call = isinstance(error, CommError) and not isinstance(error, Deadlock)
        raw = _pickled(error)
        return cls(rank, summary, text, raw, in_a_call=in_a_call, notes=notes, kind=kind)

    @property
    def why(self) -> str:
        """How the rank ended, in one line that begins with it."""
        named = self.summary.startswith((f"rank {self.rank} ", f"rank {self.rank}/"))
        return self.summary if named else f"rank {self.rank} raised {self.kind}: {self.summary}"

    @property
    def fate(self) -> str:
        """What has become of the rank, in a few words; "" if it is that it has waited in vain."""
        if self.kind in ("CommTimeout", "PeerLost", "Deadlock", "Interrupted"):
            return ""
        own = self.summary.removeprefix(f"rank {self.rank} ").partition(";")[0].rstrip(".")
        return f"raised {self.kind}" if self.kind not in ("", "SystemExit") else own

    def raise_it(self) -> NoReturn:
        """Raise the rank's own exception, or one that describes how the rank ended."""
        raise self.error()

    def error(self) -> BaseException:
        """The rank's own exception, or one that describes how the rank ended."""
        if self.exception:
            try:  # what a rank of ours pickled, and came over its inherited socket
                error = pickle.loads(self.exception)
            except Exception as why:  # its class can be read in the rank, but not here
                error, cause = RankFailed(self._said(self.summary, self.traceback)), why
            else:
                add_notes(error, self.notes)
                cause = RankTraceback(self.traceback)
            error.__cause__ = cause
            return error
        kind = RankFailed if self.traceback else PeerLost
        return kind(self._said(self.summary, self.traceback))

    def _said(self, *texts: str) -> str:
        return "\n".join(filter(None, [*texts, *self.notes]))

    def show(self, ranks: int) -> None:
        """Print the rank's traceback, what is known beside it and, as the last line, who failed.

        What an error says that did not come from a call stands near the end, after all else.
        """
        label = f"[rank {self.rank}] " if ranks > 1 else ""
        traceback = [label + line for line in self.traceback.splitlines()]
        notes = [f"minipar: {note}" for note in self.notes]
        of_a_call = self.in_a_call or self.kind == "Deadlock"
        for line in traceback + notes if of_a_call else notes + traceback:
            print(line, file=sys.stderr)
        print(f"minipar: {self.summary}", file=sys.stderr)


def add_notes(error: BaseException, notes: tuple[str, ...]) -> None:
    """Add lines to the text of an error of ours, or else (from Python 3.11 on) below its text."""
    if isinstance(error, CommError):
        error.args = ("\n".join([said(error), *notes]),)
    elif hasattr(error, "add_note"):
        for note in notes:
            error.add_note(note)


def left_cleanly(error: BaseException) -> bool:
    """Whether that is a sys.exit() which means success."""
    return isinstance(error, SystemExit) and error.code in (None, 0)


def _pickled(error: BaseException) -> bytes:
    """The exception as bytes that can be read back, or none."""
    try:
        raw = pickle.dumps(error.with_traceback(None))
        pickle.loads(raw)
    except Exception:  # whatever a foreign class may raise: the text has what can be carried over
        return b""
    return raw


def _users_traceback(error: BaseException) -> str:
    """The traceback as text, without the frames that launched the rank and, if the error was
    raised by a communication call on purpose, without those inside that call.
    """
    told = traceback.TracebackException.from_exception(error)
    frames = list(told.stack)
    while frames and _is_ours(frames[0]):
        del frames[0]
    while frames and isinstance(error, MiniparError) and _is_ours(frames[-1]):
        del frames[-1]
    if frames or isinstance(error, SyntaxError | MiniparError):
        told.stack = traceback.StackSummary.from_list(frames)
    return "".join(told.format()).rstrip()


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(OWN_FOLDER) or "runpy" in frame.filename
