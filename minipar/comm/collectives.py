"""The collectives, over nothing but `sendrecv` (and `send`, `recv`) between two ranks.

Letters: p ranks in the group, r own rank, n bytes of the array; α seconds per message, β per byte
sent, γ per byte added. Each docstring states its cost; `cost.py` has the formulas, and a test
counts the messages against them.

    the ring, p = 4       chunk c starts on its journey at rank c+1 and is complete on rank c:
    0 -> 1 -> 2 -> 3      every rank adds its own part to what comes by and passes it on, so that
    ^_______________|     all p links carry 1/p of the array at every step.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from minipar.array import Array, array_module


class Link(Protocol):
    """What a collective sees of its call: the neighbours, and how to add."""

    rank: int
    size: int

    def send(self, array: Array, dst: int) -> None: ...

    def recv(self, src: int) -> Array: ...

    def sendrecv(self, array: Array, dst: int, src: int) -> Array: ...

    def add(self, into: Array, array: Array) -> None: ...


def ring_reduce_scatter(link: Link, chunks: list[Array]) -> None:
    """Add up chunk r of all ranks on rank r, in place.

    chunks: p arrays; chunk c has the same shape and dtype on every rank.
    After:  chunks[r] is the total; the other chunks are scratch.
    Cost:   p-1 steps, (p-1)/p · n bytes out of each rank:  (p-1)·α + (p-1)/p · n·(β + γ)
    Raises: CallMismatch, PeerLost, CommTimeout, Deadlock.
    Paper:  Patarasuk & Yuan 2009, section 3; cost model of Thakur, Rabenseifner & Gropp 2005.
    """
    p, r = link.size, link.rank
    for step in range(1, p):
        incoming = link.sendrecv(chunks[(r - step) % p], dst=(r + 1) % p, src=(r - 1) % p)
        link.add(chunks[(r - step - 1) % p], incoming)


def ring_all_gather(link: Link, chunks: list[Array]) -> None:
    """Bring chunk c of rank c to every rank, in place.

    chunks: p arrays; chunk c has the same shape and dtype on every rank, its value only on rank c.
    After:  all chunks are filled, the same bits everywhere.
    Cost:   p-1 steps, (p-1)/p · n bytes out of each rank:  (p-1)·α + (p-1)/p · n·β
    Raises: as ring_reduce_scatter.
    Paper:  Thakur, Rabenseifner & Gropp 2005, section 4.1.
    """
    p, r = link.size, link.rank
    for step in range(p - 1):
        incoming = link.sendrecv(chunks[(r - step) % p], dst=(r + 1) % p, src=(r - 1) % p)
        chunks[(r - step - 1) % p][...] = incoming


def ring_all_reduce(link: Link, buf: Array) -> None:
    """Replace buf by the sum over all ranks, the same bits on each.

    buf:    a flat array, the same length and dtype on every rank.
    Cost:   2(p-1) steps, 2(p-1)/p · n bytes out of each rank:
            2(p-1)·α + 2(p-1)/p · n·β + (p-1)/p · n·γ
    Raises: as ring_reduce_scatter.
    Paper:  Patarasuk & Yuan 2009, section 3: no algorithm can send fewer bytes per rank.
    """
    chunks = array_module(buf).array_split(buf, link.size)  # views of buf, not copies
    ring_reduce_scatter(link, chunks)
    ring_all_gather(link, chunks)


def tree_broadcast(link: Link, array: Array, root: int) -> Array:
    """Bring the root's array to every rank, along a binomial tree.

    array:  any shape; what the other ranks pass is not read.
    Result: the root's array.
    Cost:   ceil(log2 p) rounds on the longest path:  ceil(log2 p) · (α + n·β)
    Raises: as ring_reduce_scatter.
    Paper:  Thakur, Rabenseifner & Gropp 2005, section 4.2.
    """
    p, place = link.size, (link.rank - root) % link.size  # the root stands at place 0
    reach = 1
    while reach < p:  # after this round the places below 2 · reach have it
        if place < reach and place + reach < p:
            link.send(array, (link.rank + reach) % p)
        elif reach <= place < 2 * reach:
            array = link.recv((link.rank - reach) % p)
        reach *= 2
    return array


def dissemination_barrier(link: Link) -> None:
    """Return once every rank has called this.

    Round k tells the rank 2^k further on; after ceil(log2 p) rounds everybody has heard, directly
    or not, of everybody.
    Cost:   ceil(log2 p) · α
    Raises: as ring_reduce_scatter.
    Paper:  Hensgen, Finkel & Manber 1988.
    """
    p, r = link.size, link.rank
    nothing, reach = np.empty(0, np.uint8), 1
    while reach < p:
        link.sendrecv(nothing, dst=(r + reach) % p, src=(r - reach) % p)
        reach *= 2
