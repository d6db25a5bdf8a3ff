"""How a rank waits: spin, then yield, then sleep, until what it waits for is there.

An answer often comes within microseconds, so a wait spins first; then it offers its core to others,
then it sleeps for at most a millisecond at a time. It never sleeps until somebody wakes it, so no
wake-up can be lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from minipar.errors import CommTimeout

SPINS = 20  # rounds of moving bytes before the core is offered to somebody else: some 10 µs
YIELD_S = 0.002  # how long a wait yields before it sleeps
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 20e-6, 0.001
SAY_SO_AFTER_S = 5.0


class Backoff:
    """Short waits stay short, long ones leave the core to others.

    A gentle one only sleeps: spinning (and yielding) keeps the interpreter's lock from the other
    thread of this rank.
    """

    def __init__(self, gentle: bool = False) -> None:
        self.spins = 0  # since something happened; whoever sees that sets it to 0
        self._gentle, self._most_spins = gentle, 1 if gentle else SPINS
        self._since = time.monotonic()
        self._yielding_since = 0.0

    def pause(self) -> float:
        """Wait a moment; how long this wait has lasted so far, in seconds."""
        self.spins += 1
        if self.spins < self._most_spins:
            return 0.0
        now = time.monotonic()
        if self.spins == self._most_spins:
            self._yielding_since = now
        idle = now - self._yielding_since
        if idle >= YIELD_S or self._gentle:
            time.sleep(min(max(idle / 20, SHORTEST_SLEEP_S), LONGEST_SLEEP_S))
        else:
            os.sched_yield()
        return now - self._since


def wait_until(
    ready: Callable[[], bool],
    move: Callable[[], bool],
    check: Callable[[], None],
    describe: Callable[[float], str],
    timeout_s: float,
    gentle: bool = False,
    silent: bool = False,
) -> None:
    """Return when ready() is true; say so on stderr, once, if that takes long.

    move:     moves what can be moved now; whether anything did.
    check:    raises if it is known that the wait is in vain.
    describe: who has waited so many seconds for whom, in words.
    gentle:   see `Backoff`.
    silent:   says nothing: it is no bad sign if nobody asks a server for a while.
    Raises:   CommTimeout after timeout_s; what `check` raises.
    """
    backoff, said_so = Backoff(gentle), False
    while not ready():
        if move():
            backoff.spins = 0
            continue
        check()
        waited = backoff.pause()
        if waited > SAY_SO_AFTER_S and not said_so and not silent:
            said_so = True
            print(describe(waited), file=sys.stderr, flush=True)
        if waited > timeout_s:
            raise CommTimeout(
                f"{describe(waited)}\nThat is the limit (timeout_s). Usual causes: a rank left out "
                "a call that the others made, or computes longer."
            )
