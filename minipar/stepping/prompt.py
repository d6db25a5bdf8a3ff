"""The prompt of `minipar step`: what is typed, and what is answered."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from typing import IO

from minipar.errors import UsageError
from minipar.stepping.breaks import Break, parse
from minipar.stepping.stepper import Leave, NotHere, Session, Stepping
from minipar.stepping.view import chunks_text, value_text

HELP = """\
n [K]        go on to the next event (or K events on); an empty line does the same
r RANK       go on to the next event of that rank
c            go on to the next break, or to the end
b COND       set a break: rank 2, all_reduce   sends   ring.py:14   bytes > 1e6
b            list the breaks;  d N removes one
back [K]     go back by K events (p is short for it)
g N          go to event N, forward or back
print EXPR   an expression on every rank (! is short for it)
show         the array of the collective under way, in chunks, with who has contributed to each
show EXPR    an array of yours on every rank, in chunks
w            show the ranks again
l            the source around the line at hand
q            leave"""


class Prompt:
    """Asks in the rank that is held; `Session` calls it."""

    def __init__(self, lines: Iterator[str] | None, out: IO[str], width: int) -> None:
        """lines: commands that were written down; None: they are typed, at a terminal."""
        self._lines, self._out, self._width = lines, out, width
        self.session: Session  # set by whoever makes both
        self._breaks: list[Break] = []
        self._greeted = False

    def __call__(self, stepping: Stepping) -> None:
        """Show where the run is, and do what is asked until it is to go on.  Raises: Leave."""
        stepping.breaks = self._breaks
        if not self._greeted:
            self._greeted = True
            self._say("h lists what you can type.")
        self._show(stepping)
        while True:
            words = self._read()
            if words is None:
                raise Leave
            try:
                if self._do(stepping, *words):
                    return
            except UsageError as error:
                self._say(str(error))
            except Exception as error:  # of an expression, or an array that cannot be shown
                self._say(f"{type(error).__name__}: {error}")

    # -- what can be typed --------------------------------------------------------------------

    def _do(self, at: Stepping, command: str, rest: str) -> bool:
        """Carry out a command; whether the run goes on."""
        commands: dict[str, Callable[[Stepping, str], bool]] = {
            "": self._next,
            "n": self._next,
            "r": self._rank,
            "c": self._continue,
            "b": self._break,
            "d": self._delete,
            "back": self._back,
            "p": self._back,
            "g": self._go,
            "print": self._print,
            "!": self._print,
            "show": self._chunks,
            "w": self._again,
            "l": self._list,
            "h": self._help,
            "q": self._quit,
        }
        if command not in commands:
            raise UsageError(f"there is no {command!r}; h lists what you can type.")
        return commands[command](at, rest)

    def _next(self, at: Stepping, rest: str) -> bool:
        return self._until(at, at.count + _number(rest, 1))

    def _until(self, at: Stepping, number: int) -> bool:
        """Go on to that event."""
        if at.now is None and at.count:
            raise UsageError("the run is over; go back (back, g N), or leave (q).")
        at.stop_at, at.only_rank, at.to_break = number, None, False
        return True

    def _rank(self, at: Stepping, rest: str) -> bool:
        rank = _number(rest, -1)
        if not 0 <= rank < at.ranks:
            raise UsageError(f"r takes a rank, 0 to {at.ranks - 1}.")
        self._until(at, at.count + 1)
        at.only_rank = rank
        return True

    def _continue(self, at: Stepping, rest: str) -> bool:
        self._until(at, at.count + 1)
        at.to_break = True
        return True

    def _break(self, at: Stepping, rest: str) -> bool:
        if rest:
            self._breaks.append(parse(rest, at.ranks))
        for n, found in enumerate(self._breaks, 1):
            self._say(f"break {n}: {found.text}")
        if not self._breaks:
            self._say("there are no breaks")
        return False

    def _delete(self, at: Stepping, rest: str) -> bool:
        n = _number(rest, 0)
        if not 1 <= n <= len(self._breaks):
            raise UsageError("d takes the number of a break; b lists them.")
        del self._breaks[n - 1]
        return self._break(at, "")

    def _back(self, at: Stepping, rest: str) -> bool:
        here = at.count + (at.now is None and at.count > 0)  # the end comes after the last event
        return self._go(at, str(max(0, here - _number(rest, 1))))

    def _go(self, at: Stepping, rest: str) -> bool:
        number = _number(rest, -1)
        if number < 0:
            raise UsageError("g takes the number of an event.")
        if at.now is not None and number > at.count:
            return self._until(at, number)
        self.session.again = number
        return True

    def _print(self, at: Stepping, rest: str) -> bool:
        for rank, value in enumerate(at.evaluate(_expression(rest))):
            text = f"({value})" if isinstance(value, NotHere) else value_text(value)
            self._say(f"rank {rank}  {text}")
        return False

    def _chunks(self, at: Stepping, rest: str) -> bool:
        if not rest:
            arrays = at.buffers()
            if all(array is None for array in arrays):
                raise UsageError("no collective is under way; show EXPR shows an array of yours.")
            self._say(chunks_text(arrays, at.contributions()))
            return False
        values = at.evaluate(rest)
        if all(isinstance(value, NotHere) for value in values):
            raise UsageError(str(values[0]))
        self._say(chunks_text([None if isinstance(v, NotHere) else v for v in values]))
        return False

    def _again(self, at: Stepping, rest: str) -> bool:
        self._show(at)
        return False

    def _list(self, at: Stepping, rest: str) -> bool:
        frame = None if at.now is None else at.frame(at.now.rank)
        if frame is None:
            raise UsageError("no rank is held at a line.")
        path, line = frame.f_code.co_filename, frame.f_lineno
        for n in range(max(1, line - 5), min(len(linecache.getlines(path)), line + 5) + 1):
            text = linecache.getline(path, n).rstrip()
            self._say(f"{n:4d} {'>' if n == line else ' '} {text}")
        return False

    def _help(self, at: Stepping, rest: str) -> bool:
        self._say(HELP)
        return False

    def _quit(self, at: Stepping, rest: str) -> bool:
        raise Leave

    # -- in and out ---------------------------------------------------------------------------

    def _show(self, at: Stepping) -> None:
        if at.now is not None:
            self._say(f"\nevent {at.count}: {at.now}")
        elif not at.count and at.failure is None and not all(at._over):
            self._say("\nevent 0: rank 0 is about to begin")
        else:
            self._say(f"\nthe run is over after {at.count} events{at.how_it_failed()}")
        self._say(at.view(self._width))

    def _read(self) -> tuple[str, str] | None:
        """The next command and what follows it; None: there is none any more."""
        try:
            if self._lines is None:
                line = input("(step) ")
            else:
                line = next(self._lines)
                self._say(f"(step) {line}")
        except (EOFError, StopIteration):
            return None
        line = line.strip()
        if line.startswith("!"):
            return "!", line[1:].strip()
        command, _, rest = line.partition(" ")
        return command, rest.strip()

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _number(text: str, default: int) -> int:
    if not text:
        return default
    if not text.isdecimal():
        raise UsageError(f"{text!r} is no number from 0 on.")
    return int(text)


def _expression(text: str) -> str:
    if not text:
        raise UsageError("print and show take an expression, such as x or grad[:4].")
    return text
