"""What a rank sends along each axis of the mesh, and how long its calls there take.

    tally = Tally(mesh)
    with telling(tally):
        ...
        tally.taken()       {"dp": Sent(nbytes, seconds), "tp": ...} since the last time

Every message is recorded with the number of its group (events.py), and each axis has a group of its
own. `world` is what all ranks say together (the loss that is shown, the norm of the gradient).

The seconds are those inside of collective calls: waiting for slower ranks is part of them. Between
the stages of a pipeline are no such calls: how they wait is what `StageRun.spans` has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from minipar.events import EVERYBODY


class Sent(NamedTuple):
    """Payload that left this rank, and the time that its calls took."""

    nbytes: int
    seconds: float


class Tally:
    """Adds up records by the axis that their group stands for.  A `Taker`."""

    calls = True

    def __init__(self, axes: Mapping[int, str], other: str = "world") -> None:
        """axes: of groups, by their number; all other groups count as `other`."""
        self._axes, self._other = axes, other
        self._sent: dict[str, int] = {}
        self._calls: list[list[Any]] = []

    def take(self, record: list[Any]) -> None:
        if record[1] == EVERYBODY:
            self._calls.append(record)
        else:
            axis = self._axes.get(record[7], self._other)
            self._sent[axis] = self._sent.get(axis, 0) + record[4]

    def taken(self) -> dict[str, Sent]:
        """By axis, since the last time; a call that is not over yet has no seconds."""
        seconds: dict[str, float] = {}
        for record in self._calls:
            axis = self._axes.get(record[7], self._other)
            seconds[axis] = seconds.get(axis, 0.0) + max(0, record[9] - record[8]) / 1e9
        found = {
            axis: Sent(self._sent.get(axis, 0), seconds.get(axis, 0.0))
            for axis in sorted(self._sent | seconds)
        }
        self._sent, self._calls = {}, []
        return found


def axes_of(mesh: Any) -> dict[int, str]:
    """The axis that each group of a mesh stands for, by number; an axis of one rank has none."""
    return {getattr(mesh, axis).number: axis for axis, n in mesh.sizes.items() if n > 1}
