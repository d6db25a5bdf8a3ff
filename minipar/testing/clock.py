"""A link with a clock of its own: what an algorithm costs on its longest chain, measured.

The clock follows the model that the formulas of `cost` are about: a message takes its cost, a rank
sends one message and receives one at a time, both at once if it likes. It runs three times in one,
for α, β and γ alone: as messages, as bytes sent, as bytes added. `comm/virtual.py` has the same
model with all three together, for whole runs.

    rank 0  |--- send ---|--- send ---|            two messages to two ranks: one after the other
    rank 1  |--- recv ---|-add-|                   its time is 1 message, n bytes sent, n added
    rank 2               |--- recv ---|-add-|      the longest chain: 2 messages, 2n sent, n added
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minipar.array import Array
from minipar.comm.group import Group


class ClockLink:
    """Over the sends and receives of a group; each message carries when it was sent."""

    def __init__(self, group: Group, combine: Callable[..., Array] = np.add) -> None:
        """combine: a ufunc, what `add` does."""
        self.rank, self.size = group.rank, group.size
        self.time = np.zeros(3)  # messages, bytes sent, bytes added
        self.received_until = np.zeros(3)  # when the last message was all there
        self._group, self._combine = group, combine

    def send(self, array: Array, dst: int) -> None:
        self._group.send(self.time, dst)
        self._group.send(array, dst)
        self.time = self.time + _cost(array)

    def recv(self, src: int) -> Array:
        sent_at, array = self._group.recv(src), self._group.recv(src)
        self.received_until = np.maximum(sent_at, self.received_until) + _cost(array)
        self.time = np.maximum(self.time, self.received_until)
        return array

    def sendrecv(self, array: Array, dst: int, src: int) -> Array:
        sending = [self._group.isend(x, dst) for x in (self.time, array)]
        sent = self.time + _cost(array)
        incoming = self.recv(src)
        for part in sending:
            part.wait()
        self.time = np.maximum(self.time, sent)
        return incoming

    def add(self, into: Array, array: Array) -> None:
        self._combine(into, array, out=into)
        self.time = self.time + np.array([0, 0, array.nbytes])


def _cost(array: Array) -> np.ndarray:
    return np.array([1, array.nbytes, 0])
