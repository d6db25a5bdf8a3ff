"""Collectives by recursive halving and doubling: as few bytes as the ring, as few rounds as a tree.

    halving, q = 4       round 1: r <-> r^2      round 2: r <-> r^1     doubling goes back:
    rank 0  [0 1 2 3]  ->  keeps [0 1]        ->  keeps [0]             ->  [0 1]  ->  [0 1 2 3]
    rank 1  [0 1 2 3]      keeps [0 1]            keeps [1]                 [0 1]      [0 1 2 3]
    rank 2  [0 1 2 3]      keeps [2 3]            keeps [2]                 [2 3]      [0 1 2 3]
    rank 3  [0 1 2 3]      keeps [2 3]            keeps [3]                 [2 3]      [0 1 2 3]

Each rank hands its partner the half that the partner keeps, and adds what it gets to its own half;
so the messages are n/2, n/4, ..., and after log2 q rounds rank r has the total of piece r.

The rounds need a power of two. Of p ranks, q = the largest power of two go on; each of the other
p-q ranks, the odd ones of the first 2(p-q), folds its array into the rank before it, stands by, and
is handed the result at the end.

Letters: p ranks, q the ranks that go on, r own rank, n bytes of the whole array (of all pieces),
[p>q] is 1 if p is no power of two, else 0; α, β, γ as in `collectives`. Piece c of buf is
buf[cuts[c]:cuts[c + 1]]. All work in place; all raise as `collectives.ring_reduce_scatter`.

Paper: Rabenseifner 2004; Thakur, Rabenseifner & Gropp 2005, as are the ranks that stand by.
"""

from __future__ import annotations

from collections.abc import Sequence

from minipar.array import Array
from minipar.comm.tree import tree_gather, tree_scatter
from minipar.comm.wiring import Link, Renumbered, even_cuts


def halving(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Add up piece r of all ranks on rank r; the number of ranks is a power of two.

    buf:    the same length and dtype on every rank.
    After:  piece r is the total; the others are scratch.
    Cost:   log2 p · α + (p-1)/p · n·(β + γ)
    """
    r, first, last = link.rank, 0, link.size  # the pieces first .. last-1 are still summed here
    while last - first > 1:
        middle = (first + last) // 2
        lower, upper = buf[cuts[first] : cuts[middle]], buf[cuts[middle] : cuts[last]]
        partner = r ^ (middle - first)
        if r < middle:
            keep, give, last = lower, upper, middle
        else:
            keep, give, first = upper, lower, middle
        link.add(keep, link.sendrecv(give, dst=partner, src=partner))


def doubling(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to every rank; the number of ranks is a power of two.

    buf:    the same length and dtype on every rank; on rank r only piece r is read.
    After:  buf is complete, the same bits everywhere.
    Cost:   log2 p · α + (p-1)/p · n·β
    """
    r, width = link.rank, 1
    while width < link.size:  # the ranks r - r % width and the width-1 after it hold the same
        partner = r ^ width
        mine, theirs = r - r % width, partner - partner % width
        held = buf[cuts[mine] : cuts[mine + width]]
        incoming = link.sendrecv(held, dst=partner, src=partner)
        buf[cuts[theirs] : cuts[theirs + width]] = incoming
        width *= 2


def halving_doubling_all_reduce(link: Link, buf: Array) -> None:
    """Replace buf by the total over all ranks, the same bits on each.

    buf:    a flat array, the same length and dtype on every rank.
    Cost:   2·log2 q · α + 2(q-1)/q · n·β + (q-1)/q · n·γ
            + [p>q]·(3α + 2n·β + n/2·γ)
    """
    fold_in(link, buf)
    if inner := going_on(link):
        cuts = even_cuts(len(buf), inner.size)
        halving(inner, buf, cuts)
        doubling(inner, buf, cuts)
    fold_out(link, buf)


def halving_doubling_reduce(link: Link, buf: Array) -> None:
    """Add up the bufs of all ranks on rank 0.

    buf:    a flat array, the same length and dtype on every rank.
    After:  buf is the total on rank 0, scratch elsewhere.
    Cost:   2·log2 q · α + 2(q-1)/q · n·β + (q-1)/q · n·γ + [p>q]·(2α + n·β + n/2·γ)
    """
    fold_in(link, buf)
    if inner := going_on(link):
        cuts = even_cuts(len(buf), inner.size)
        halving(inner, buf, cuts)
        tree_gather(inner, buf, cuts)


def halving_doubling_broadcast(link: Link, buf: Array) -> None:
    """Bring the buf of rank 0 to every rank: in pieces to some, then the pieces to all.

    buf:    a flat array, the same length and dtype on every rank; only rank 0's is read.
    Cost:   2·log2 q · α + 2(q-1)/q · n·β + [p>q]·(α + n·β)
    """
    if inner := going_on(link):
        cuts = even_cuts(len(buf), inner.size)
        piece = tree_scatter(inner, buf, cuts)
        if inner.rank:
            buf[cuts[inner.rank] : cuts[inner.rank + 1]] = piece
        doubling(inner, buf, cuts)
    fold_out(link, buf)


def halving_doubling_reduce_scatter(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Add up piece r of all ranks on rank r. A rank that goes on for two sums two pieces.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]], all pieces filled on every rank.
    After:  piece r is the total; the others are scratch.
    Cost:   log2 q · α + (q-1+m)/p · n·(β + γ) + [p>q]·(3α + (1+1/p)·n·β + n/2·γ),
            m as in `cost`
    """
    r = link.rank
    fold_in(link, buf)
    if inner := going_on(link):
        halving(inner, buf, _joined(link, cuts))
    if stands_by(link, r):
        buf[cuts[r] : cuts[r + 1]] = link.recv(r - 1)
    elif stands_by(link, r + 1):
        link.send(buf[cuts[r + 1] : cuts[r + 2]], r + 1)


def halving_doubling_all_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to every rank.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]]; on rank r only piece r is read.
    After:  buf is complete, the same bits everywhere.
    Cost:   log2 q · α + (q-1+m)/p · n·β + [p>q]·(2α + (1+1/p)·n·β), m as in `cost`
    """
    r = link.rank
    if stands_by(link, r):
        link.send(buf[cuts[r] : cuts[r + 1]], r - 1)
    elif stands_by(link, r + 1):
        buf[cuts[r + 1] : cuts[r + 2]] = link.recv(r + 1)
    if inner := going_on(link):
        doubling(inner, buf, _joined(link, cuts))
    fold_out(link, buf)


# -- numbers of ranks that are no power of two ------------------------------------------------


def stands_by(link: Link, r: int) -> bool:
    """Whether rank r is folded into rank r-1: the odd ones of the first 2(p-q)."""
    return r % 2 == 1 and r < 2 * (link.size - _power_of_two(link.size))


def going_on(link: Link) -> Link | None:
    """The link among the q ranks that go on; None on the others."""
    if stands_by(link, link.rank):
        return None
    return Renumbered(link, _order(link))


def fold_in(link: Link, buf: Array) -> None:
    """Add the bufs of the ranks that stand by to those of the ranks before them.

    The two share the work: each adds one half, then the second half is brought over.
    Cost:   2α + n·β + n/2·γ
    """
    r, middle = link.rank, len(buf) // 2
    lower, upper = buf[:middle], buf[middle:]
    if stands_by(link, r):
        link.add(upper, link.sendrecv(lower, dst=r - 1, src=r - 1))
        link.send(upper, r - 1)
    elif stands_by(link, r + 1):
        link.add(lower, link.sendrecv(upper, dst=r + 1, src=r + 1))
        upper[...] = link.recv(r + 1)


def fold_out(link: Link, buf: Array) -> None:
    """Bring the buf of the ranks before them to the ranks that stand by.  Cost: α + n·β"""
    r = link.rank
    if stands_by(link, r):
        buf[...] = link.recv(r - 1)
    elif stands_by(link, r + 1):
        link.send(buf, r + 1)


def _power_of_two(p: int) -> int:
    return 1 << (p.bit_length() - 1)


def _order(link: Link) -> list[int]:
    return [r for r in range(link.size) if not stands_by(link, r)]


def _joined(link: Link, cuts: Sequence[int]) -> list[int]:
    """The cuts between the ranks that go on: two pieces in one where a rank goes on for two."""
    return [*(cuts[r] for r in _order(link)), cuts[-1]]
