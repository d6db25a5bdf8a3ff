"""Trouble on purpose: a rank that is slower than the others, and one that dies.

    --slow-worker 1:5x        rank 1 takes five times as long for each forward and backward
    --kill-worker 1@step50    rank 1 is gone after its 50th step, as if by kill -9

With them one sees what a strategy does about a straggler, and about a lost rank. On `process` the
slow rank sleeps and the dying one kills itself. (Under `mpi` it raises: MPI would end all.) On
`local` the dying one raises, and time is virtual (comm/virtual.py): a forward and backward takes a
second, and of the slow rank more. So the same run always goes through the same events.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import NamedTuple

from minipar.comm.cluster import Cluster
from minipar.comm.group import Group
from minipar.config import Config
from minipar.errors import MiniparError, UsageError
from minipar.spans import span

VIRTUAL_S = 1.0  # of a forward and backward, where time is virtual


class Killed(MiniparError):
    """A rank has ended because a drill says so."""


class Drills(NamedTuple):
    """What happens to whom; nothing by default."""

    slow: int | None = None  # the rank
    factor: float = 1.0
    dying: int | None = None
    step: int = 0  # after which it dies

    def slow_down(self, group: Group, seconds: float) -> None:
        """After work that took so many seconds."""
        if group.backend == "local":
            if group.virtual:
                with span("backward", "forward and backward"):
                    group.spend(VIRTUAL_S)
        elif group.rank == self.slow:
            with span("backward", "slow on purpose"):
                time.sleep(seconds * (self.factor - 1))

    def cluster(self) -> Cluster | None:
        """On which the ranks of `local` run."""
        return None if self.slow is None else Cluster(slow={self.slow: self.factor})

    def strike(self, group: Group, step: int) -> None:
        """After a step of this rank."""
        if group.rank != self.dying or step != self.step or group.incarnation:
            return
        if group.backend in ("local", "mpi"):
            raise Killed(f"rank {group.rank} was to die after step {step}")
        os.kill(os.getpid(), signal.SIGKILL)


def drills_of(config: Config) -> Drills:
    """What the config asks for.  Raises: UsageError."""
    slow = _parsed("--slow-worker", config.slow_worker, r"(\d+):(\d+(?:\.\d+)?)x?", "1:5x")
    dying = _parsed("--kill-worker", config.kill_worker, r"(\d+)@(?:step)?(\d+)", "1@step50")
    drills = Drills()
    if slow:
        drills = drills._replace(slow=int(slow[0]), factor=float(slow[1]))
        if drills.factor < 1:
            raise UsageError(
                f"--slow-worker {config.slow_worker}: nobody gets faster; use 1 or more."
            )
    if dying:
        drills = drills._replace(dying=int(dying[0]), step=int(dying[1]))
        if not 1 <= drills.step <= config.steps:
            raise UsageError(
                f"--kill-worker {config.kill_worker}: the steps are 1 to {config.steps}."
            )
    for name, rank in (("--slow-worker", drills.slow), ("--kill-worker", drills.dying)):
        if rank is not None and rank >= config.workers_in_all:
            raise UsageError(f"{name}: there is no worker {rank} among {config.workers_in_all}.")
    return drills


def _parsed(option: str, text: str, form: str, example: str) -> tuple[str, ...] | None:
    if not text:
        return None
    found = re.fullmatch(form, text)
    if found is None:
        raise UsageError(f"{option} {text!r} makes no sense; write it like {example}.")
    return found.groups()
