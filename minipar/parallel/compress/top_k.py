r"""Fewer numbers: only the k largest of the gradient travel, the rest waits.

    a = error + g            what is to be sent: the gradient, and what was left over
    send the k largest |a|   as positions and values
    error = a, and 0 at what was sent

Without the memory most of the gradient would never arrive; with it everything does, only later
("error feedback"), and training converges as fast as SGD in the long run.

Each rank picks its own k, so up to p·k numbers of the sum are not zero.
Cost: an all_gather each of positions (int32) and values: (p-1) · k · (4 + bytes of a number) out of
each rank. It grows with p, unlike an all-reduce: with k/n = 1 % a hundred ranks save nothing.
Paper: Stich, Cordonnier & Jaggi 2018, algorithm 1 (there with the learning rate inside the memory).

Letters: n numbers in the vector, k of them sent.
"""

from __future__ import annotations

import math

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.parallel.flat import pack, unpack


class TopK:
    """Sends the share `keep` of all numbers, those that are largest; at least one."""

    def __init__(self, keep: float = 0.01) -> None:
        if not 0 < keep <= 1:
            raise UsageError(f"top-k keeps a share of the numbers above 0 up to 1, not {keep}.")
        self.keep = keep
        self.error: Array | None = None

    def add_up(self, arrays: list[Array], group: Group) -> None:
        a = pack(arrays)
        if self.error is not None:
            a += self.error
        xp, k = array_module(a), math.ceil(self.keep * a.size)
        ids = xp.argpartition(abs(a), a.size - k)[a.size - k :].astype("int32")
        all_ids, all_values = group.all_gather(ids), group.all_gather(a[ids])
        a[ids] = 0
        self.error = a
        total = xp.zeros_like(a)
        for ids, values in zip(all_ids, all_values):  # those of one rank are all different
            total[ids] += values
        unpack(total, arrays)
