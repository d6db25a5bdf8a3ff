"""What the steps of a run cost: time, bytes by axis, waiting, memory. Each rank keeps its own.

    with ledger.step():                what is sent inside counts, evaluations do not
        ...
    ledger.summary(group)              the same on every rank: means over ranks, memory of each

Letters: α seconds per message, β per byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minipar.comm.group import Group
from minipar.comm.host_memory import peak_bytes
from minipar.device_memory import taken_bytes
from minipar.events import telling
from minipar.tally import Tally

AXES = ("dp", "pp", "tp", "ps", "world")
LARGE = 1 << 17  # numbers, of which an all-reduce shows β; a small one shows α
TRIES = 3


class Ledger:
    """Adds up over the steps of one rank."""

    def __init__(
        self, group: Group, axes: Mapping[int, str], other: str = "world", xp: Any = np
    ) -> None:
        """group: of all ranks.  axes, other: as for `Tally`.  xp: the module of its arrays."""
        self.group, self._tally, self._xp = group, Tally(axes, other), xp
        self.steps, self.step_ns, self.waited_ns = 0, 0, 0
        self.sent = dict.fromkeys(AXES, 0)
        self.inside_s = dict.fromkeys(AXES, 0.0)

    @contextmanager
    def step(self) -> Iterator[dict[str, Any]]:
        """Counts what happens inside; the dict gets `sent`, by axis, when it is over."""
        found: dict[str, Any] = {}
        begun = self.group.now_ns()
        with telling(self._tally):
            yield found
        self.step_ns += self.group.now_ns() - begun
        self.steps += 1
        taken = self._tally.taken()
        found["sent"] = {axis: t.nbytes for axis, t in taken.items() if t.nbytes}
        for axis, t in taken.items():
            self.sent[axis] += t.nbytes
            self.inside_s[axis] += t.seconds

    def wait(self, nanoseconds: int) -> None:
        """In a step, a stage of a pipeline had to wait for others that long."""
        self.waited_ns += nanoseconds

    def summary(self, group: Group | None) -> dict[str, Any]:
        """Of all steps so far.  Collective over group; None: of this rank alone.

        sent:   bytes out of a rank in a step, by axis, the mean over the ranks
        share:  of the time of a step, how much is inside calls of that axis (of pp: waiting)
        memory: the most that each rank has had, in bytes (of its GPU, if it computes there);
                ranks that are threads share it
        """
        steps, seconds = max(1, self.steps), max(1, self.step_ns) / 1e9
        self.inside_s["pp"] = max(self.inside_s["pp"], self.waited_ns / 1e9)
        on_gpu = taken_bytes(self._xp)
        memory = peak_bytes() if on_gpu is None else on_gpu
        if self.group.backend == "local":
            memory //= self.group.size
        mine = [seconds / steps, self.waited_ns / 1e9 / seconds, memory]
        mine += [self.sent[axis] / steps for axis in AXES]
        mine += [self.inside_s[axis] / seconds for axis in AXES]
        row = np.array(mine, np.float64)
        rows = row[None] if group is None else group.all_gather(row)
        mean = rows.mean(axis=0)
        sent, share = mean[3 : 3 + len(AXES)], mean[3 + len(AXES) :]
        return {
            "step_seconds": float(mean[0]),
            "waiting": float(mean[1]),
            "memory": [int(m) for m in rows[:, 2]],
            "sent": {a: float(n) for a, n in zip(AXES, sent) if n},
            "share": {a: float(x) for a, x in zip(AXES, share) if x},
        }


def links(group: Group) -> dict[str, float]:
    """α and β as this group's all-reduces show them, by the formula of the ring.  Collective.

    A few calls before the run; 0 for one rank, and where time is virtual.
    """
    p = group.size
    if p == 1:
        return {"alpha": 0.0, "beta": 0.0}
    small, large = (_fastest(group, np.ones(n, np.float32)) for n in (1, LARGE))
    messages, nbytes = 2 * (p - 1), 2 * (p - 1) / p * 4 * LARGE
    both = np.array([small / messages, max(0.0, large - small) / nbytes])
    alpha, beta = group.all_reduce(both, "max")
    return {"alpha": float(alpha), "beta": float(beta)}


def _fastest(group: Group, x: np.ndarray) -> float:
    times = []
    for _ in range(TRIES):
        group.barrier()
        begun = group.now_ns()
        group.all_reduce(x)
        times.append(group.now_ns() - begun)
    return min(times) / 1e9
