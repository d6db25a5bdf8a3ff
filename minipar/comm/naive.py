"""Collectives the way that comes to mind: everything through rank 0, one rank after the other.

      1   2   3          Rank 0 does all the work, and its wire carries everything. These are here
       \\  |  /           to be read first, and for the others to be compared with.
          0

Letters: p ranks, r own rank, n bytes of the whole array (of all pieces); α, β, γ as in
`collectives`. The root is rank 0; `wiring.seen_from` serves other roots. All work in place; all
raise as `collectives.ring_reduce_scatter`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.wiring import Link


def naive_broadcast(link: Link, buf: Array) -> None:
    """Bring the buf of rank 0 to every rank.

    buf:    an array of the same shape and dtype on every rank; only rank 0's is read.
    Cost:   (p-1)·(α + n·β)
    """
    if link.rank:
        buf[...] = link.recv(0)
        return
    for other in range(1, link.size):
        link.send(buf, other)


def naive_reduce(link: Link, buf: Array) -> None:
    """Add up the bufs of all ranks on rank 0, in rank order.

    buf:    an array of the same shape and dtype on every rank.
    After:  buf is the total on rank 0, unchanged elsewhere.
    Cost:   (p-1)·(α + n·β + n·γ)
    """
    if link.rank:
        link.send(buf, 0)
        return
    for other in range(1, link.size):
        link.add(buf, link.recv(other))


def naive_all_reduce(link: Link, buf: Array) -> None:
    """Replace buf by the total over all ranks, the same bits on each.

    buf:    an array of the same shape and dtype on every rank.
    Cost:   2(p-1)·(α + n·β) + (p-1)·n·γ, a reduce and a broadcast
    """
    naive_reduce(link, buf)
    naive_broadcast(link, buf)


def naive_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to rank 0.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]]; on rank r only piece r is read.
    After:  buf is complete on rank 0, unchanged elsewhere.
    Cost:   (p-1)·α + (p-1)/p · n·β
    """
    r = link.rank
    if r:
        link.send(buf[cuts[r] : cuts[r + 1]], 0)
        return
    for other in range(1, link.size):
        buf[cuts[other] : cuts[other + 1]] = link.recv(other)


def naive_scatter(link: Link, buf: Array, cuts: Sequence[int]) -> Array:
    """Bring piece r of rank 0's buf to rank r.

    buf:    as in naive_gather on rank 0; elsewhere it is not read and may be None.
    Result: piece r.
    Cost:   (p-1)·α + (p-1)/p · n·β
    """
    if link.rank:
        return link.recv(0)
    for other in range(1, link.size):
        link.send(buf[cuts[other] : cuts[other + 1]], other)
    return buf[cuts[0] : cuts[1]]


def naive_all_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to every rank.

    buf:    as in naive_gather.
    After:  buf is complete, the same bits everywhere.
    Cost:   2(p-1)·α + (p-1)·(1/p + 1) · n·β, a gather and a broadcast
    """
    naive_gather(link, buf, cuts)
    naive_broadcast(link, buf)


def naive_reduce_scatter(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Add up piece r of all ranks on rank r.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]], all pieces filled on every rank.
    After:  piece r is the total; the others are scratch.
    Cost:   2(p-1)·α + (p-1)·(1 + 1/p) · n·β + (p-1)·n·γ, a reduce and a scatter
    """
    naive_reduce(link, buf)
    buf[cuts[link.rank] : cuts[link.rank + 1]] = naive_scatter(link, buf, cuts)


def naive_all_to_all(link: Link, rows: Array, received: Array) -> None:
    """Bring row j of rank i to row i of rank j: rank 0 sorts the post of everybody.

    rows:     [p, ...], the same shape and dtype on every rank.
    received: of the same shape; filled.
    Cost:     2(p-1)·(α + n·β)
    """
    if link.rank:
        link.send(rows, 0)
        received[...] = link.recv(0)
        return
    post = [rows, *(link.recv(other) for other in range(1, link.size))]
    for other in range(1, link.size):
        link.send(array_module(rows).stack([sender[other] for sender in post]), other)
    for row, sender in zip(received, post):
        row[...] = sender[0]


def naive_barrier(link: Link) -> None:
    """Return once every rank has called this: an all-reduce of nothing.  Cost: 2(p-1)·α"""
    naive_all_reduce(link, np.empty(0, np.uint8))
