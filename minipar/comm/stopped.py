"""A rank that is stopped (SIGSTOP): it neither goes on nor ends, and the others would wait for it.

Linux shows the state of a process in /proc: T is stopped by a signal; t is stopped by a debugger,
which is meant so. A short stop does no harm: only who is stopped at LOOKS looks on end is reported.
Looks are counted and not seconds, because the launcher may have been stopped, too (Ctrl-Z, a batch
system), and its ranks get their time to go on when it does. Without /proc `timeout_s` decides.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

EVERY_S = 0.1  # between two looks
LOOKS = 6  # half a second


class StoppedWatch:
    """Looks at the processes of a job."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()  # looks on end at which a rank was stopped
        self._next = 0.0

    def look(self, processes: Mapping[int, int]) -> int | None:
        """A rank that is stopped for good, or None; to be called repeatedly.

        processes: the process id of each rank that has not exited.
        """
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + EVERY_S
        for rank, pid in processes.items():
            self._seen[rank] = self._seen[rank] + 1 if state(pid) == "T" else 0
        return next((rank for rank in processes if self._seen[rank] >= LOOKS), None)


def state(pid: int) -> str:
    """The letter of the process's state, as ps shows it; "" if it cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    return stat.rpartition(b") ")[2][:1].decode()  # its name, in brackets, may be anything
