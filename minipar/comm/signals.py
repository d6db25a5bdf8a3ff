"""Signals of a launcher, held back while it starts or ends ranks, or turned into Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """In the block SIGTERM and SIGHUP do what Ctrl-C does, so that ranks and what they have started
    are seen to their end; afterwards they end this process, as they would have.
    """
    noted: list[int] = []

    def interrupt(number: int, _: object) -> None:
        noted.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if len(noted) == 1:
            signal.raise_signal(signal.SIGINT)

    main = threading.current_thread() is threading.main_thread()
    taken = [n for n in ENDING if main and signal.getsignal(n) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        if noted:
            os.kill(os.getpid(), noted[0])


@contextmanager
def sigint_held_back() -> Iterator[list[int]]:
    """Ctrl-C does not interrupt the block, only adds to this list; children started in it never
    get one (a blocked signal stays blocked in them, and then `worker` ignores it).
    """
    noted: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda n, _: noted.append(n)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield noted
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
