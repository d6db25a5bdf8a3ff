"""The collectives that a student opens first: the ring, and two others in which all ranks do alike.

All are index arithmetic over nothing but `sendrecv` (and `send`, `recv`, `add`) between two ranks.
`naive`, `tree` and `halving_doubling`, beside this file, get to the same results in other ways.

Letters: p ranks in the group, r own rank, n bytes of the array; α seconds per message, β per byte
sent, γ per byte added. Each docstring states its cost; `cost/` has the formulas, and a test
counts the messages against them.

    the ring, p = 4       chunk c starts on its journey at rank c+1 and is complete on rank c:
    0 -> 1 -> 2 -> 3      every rank adds its own part to what comes by and passes it on, so that
    ^_______________|     all p links carry 1/p of the array at every step.
"""

from __future__ import annotations

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.tree import tree_gather, tree_scatter
from minipar.comm.wiring import Link, even_cuts, pieces


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


def ring_broadcast(link: Link, buf: Array) -> None:
    """Bring the buf of rank 0 to every rank: a chunk to each, along a tree, then once round.

    buf:    a flat array, the same length and dtype on every rank; only rank 0's is read.
    Cost:   (k + p-1)·α + 2(p-1)/p · n·β, k = ceil(log2 p)
    Raises: as ring_reduce_scatter.
    Paper:  Thakur, Rabenseifner & Gropp 2005 (there after van de Geijn).
    """
    cuts = even_cuts(len(buf), link.size)
    chunks = pieces(buf, cuts)
    mine = tree_scatter(link, buf, cuts)
    if link.rank:
        chunks[link.rank][...] = mine
    ring_all_gather(link, chunks)


def ring_reduce(link: Link, buf: Array) -> None:
    """Add up the bufs of all ranks on rank 0: once round, then the chunks along a tree.

    buf:    a flat array, the same length and dtype on every rank.
    After:  buf is the total on rank 0, scratch elsewhere.
    Cost:   (p-1 + k)·α + 2(p-1)/p · n·β + (p-1)/p · n·γ, k = ceil(log2 p)
    Raises: as ring_reduce_scatter.
    Paper:  Thakur, Rabenseifner & Gropp 2005, with the ring in place of halving.
    """
    cuts = even_cuts(len(buf), link.size)
    ring_reduce_scatter(link, pieces(buf, cuts))
    tree_gather(link, buf, cuts)


def pairwise_all_to_all(link: Link, rows: Array, received: Array) -> None:
    """Bring row j of rank i to row i of rank j, each straight to its receiver.

    rows:     [p, ...], the same shape and dtype on every rank.
    received: of the same shape; filled.
    Cost:     p-1 steps, (p-1)/p · n bytes out of each rank:  (p-1)·α + (p-1)/p · n·β
    Raises:   as ring_reduce_scatter.
    Paper:    Thakur, Rabenseifner & Gropp 2005: pairwise exchange.
    """
    p, r = link.size, link.rank
    received[r] = rows[r]
    for step in range(1, p):  # in each step every rank sends one message and receives one
        dst, src = (r + step) % p, (r - step) % p
        received[src] = link.sendrecv(rows[dst], dst, src)


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
