"""Collectives along a binomial tree: few rounds, so the choice for small arrays.

    round 1   0-1   2-3   4-5   6-7        Rank r talks to r ± reach, reach = 1, 2, 4, ...
    round 2   0---2       4---6            reduce and gather go up, from leaves to rank 0;
    round 3   0-----------4                broadcast and scatter go down, the rounds reversed.

Letters: p ranks, r own rank, k = ceil(log2 p) rounds, n bytes of the whole array (of all pieces);
α, β, γ as in `collectives`. The root is rank 0; `wiring.seen_from` serves other roots. All work in
place; all raise as `collectives.ring_reduce_scatter`.

Paper: Thakur, Rabenseifner & Gropp 2005.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minipar.array import Array
from minipar.comm.wiring import Link


def tree_broadcast(link: Link, buf: Array) -> None:
    """Bring the buf of rank 0 to every rank.

    buf:    an array of the same shape and dtype on every rank; only rank 0's is read.
    After:  buf is that of rank 0.
    Cost:   k·(α + n·β)
    """
    p, r = link.size, link.rank
    reach = 1
    while reach < p:  # after this round the ranks below 2 · reach have it
        if r < reach and r + reach < p:
            link.send(buf, r + reach)
        elif reach <= r < 2 * reach:
            buf[...] = link.recv(r - reach)
        reach *= 2


def tree_reduce(link: Link, buf: Array) -> None:
    """Add up the bufs of all ranks on rank 0.

    buf:    an array of the same shape and dtype on every rank.
    After:  buf is the total on rank 0, scratch elsewhere.
    Cost:   k·(α + n·β + n·γ)
    """
    p, r = link.size, link.rank
    reach = 1
    while reach < p:
        if r % (2 * reach) == reach:
            link.send(buf, r - reach)
            return
        if r + reach < p:
            link.add(buf, link.recv(r + reach))
        reach *= 2


def tree_all_reduce(link: Link, buf: Array) -> None:
    """Replace buf by the total over all ranks, the same bits on each.

    buf:    an array of the same shape and dtype on every rank.
    Cost:   2k·(α + n·β) + k·n·γ, a reduce and a broadcast
    """
    tree_reduce(link, buf)
    tree_broadcast(link, buf)


def tree_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to rank 0. In round j a message carries the pieces of 2^j ranks.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]]; on rank r only piece r is read.
    After:  buf is complete on rank 0, partly filled elsewhere.
    Cost:   k·α + (p-1)/p · n·β
    """
    p, r = link.size, link.rank
    reach = 1
    while reach < p:
        if r % (2 * reach) == reach:
            link.send(buf[cuts[r] : cuts[min(r + reach, p)]], r - reach)
            return
        if r + reach < p:
            buf[cuts[r + reach] : cuts[min(r + 2 * reach, p)]] = link.recv(r + reach)
        reach *= 2


def tree_scatter(link: Link, buf: Array, cuts: Sequence[int]) -> Array:
    """Bring piece r of rank 0's buf to rank r: tree_gather backwards.

    buf:    as in tree_gather on rank 0; elsewhere it is not read and may be None.
    Result: piece r, a view of what came (of buf on rank 0).
    Cost:   k·α + (p-1)/p · n·β
    """
    p, r = link.size, link.rank
    held, reach = buf, 1 << (p - 1).bit_length()
    while reach > 1:  # ranks that are multiples of reach hold the pieces r .. r+reach-1
        reach //= 2
        if r % (2 * reach) == reach:
            held = link.recv(r - reach)
        elif r % (2 * reach) == 0 and r + reach < p:
            half = cuts[r + reach] - cuts[r]
            link.send(held[half:], r + reach)
            held = held[:half]
    return held


def tree_all_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to every rank.

    buf:    as in tree_gather.
    After:  buf is complete, the same bits everywhere.
    Cost:   2k·α + ((p-1)/p + k) · n·β, a gather and a broadcast
    """
    tree_gather(link, buf, cuts)
    tree_broadcast(link, buf)


def tree_reduce_scatter(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Add up piece r of all ranks on rank r.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]], all pieces filled on every rank.
    After:  piece r is the total; the others are scratch.
    Cost:   2k·α + (k + (p-1)/p) · n·β + k·n·γ, a reduce and a scatter
    """
    tree_reduce(link, buf)
    buf[cuts[link.rank] : cuts[link.rank + 1]] = tree_scatter(link, buf, cuts)


def tree_barrier(link: Link) -> None:
    """Return once every rank has called this: an all-reduce of nothing.  Cost: 2k·α"""
    tree_all_reduce(link, np.empty(0, np.uint8))
