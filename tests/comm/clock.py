"""A link with a clock of its own: what an algorithm costs on its longest chain, measured.

The clock follows the model that the formulas are about: a message takes its cost, a rank sends one
message and receives one at a time, both at once if it likes. It runs three times in one, for α, β
and γ alone: as messages, as bytes sent, as bytes added.
"""

import numpy as np


class ClockLink:
    """Over the send and recv of a group; each message carries when it was sent."""

    def __init__(self, group, combine=np.add):
        self.rank, self.size = group.rank, group.size
        self.time = np.zeros(3)  # messages, bytes sent, bytes added
        self._received_until = np.zeros(3)
        self._group, self._combine = group, combine

    def send(self, array, dst):
        self._post(array, dst)
        self.time = self.time + cost(array)

    def recv(self, src):
        sent_at, array = self._group.recv(src), self._group.recv(src)
        self._received_until = np.maximum(sent_at, self._received_until) + cost(array)
        self.time = np.maximum(self.time, self._received_until)
        return array

    def sendrecv(self, array, dst, src):
        self._post(array, dst)
        sent = self.time + cost(array)
        incoming = self.recv(src)
        self.time = np.maximum(self.time, sent)
        return incoming

    def add(self, into, array):
        self._combine(into, array, out=into)
        self.time = self.time + np.array([0, 0, array.nbytes])

    def _post(self, array, dst):
        self._group.send(self.time, dst)
        self._group.send(array, dst)


def cost(array):
    return np.array([1, array.nbytes, 0])
