"""Collectives without messages: every rank reads straight from the memory of the others.

    stage of rank 0   [ 0a | 0b ]  \\        rank 0 reads all the a's, and shows their sum;
    stage of rank 1   [ 1a | 1b ]  /        rank 1 reads all the b's, and shows theirs

They are written over a circle of ranks. `exchange(pieces)` returns from each rank the piece that it
has for me, where it lies; `show(parts)` the own part of each rank. There is room for so many bytes
at once, so large arrays go in blocks that fit the cache. Between ranks without common memory, the
same is done with messages (`Messages`), which is what the costs are about; shared memory saves the
copies and most of α.

Numbers are added up in the same order as by the tree (`flat`) and by the ring (`direct`), so a run
on processes has the same bits as one on threads.

Letters: p ranks, r own rank, i another one, n bytes of the whole array (of all pieces); α, β, γ as
in `collectives`. The root is rank 0. All raise as `collectives.ring_reduce_scatter`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from minipar.array import Array
from minipar.comm.messages import Messages
from minipar.comm.results import put
from minipar.comm.wiring import Circle, Link, Window, circle_of, even_cuts, pieces

CACHE_BYTES = 1 << 20  # worked on at once where nothing is staged
COPIED_BYTES = 8 << 20  # from here on, private arrays of others are copied where they lie,
ADDED_BYTES = 64 << 20  # ... and added up where they lie; below, a stage in the cache is faster
LINE = 64  # bytes by which pieces may grow in a stage


def direct_all_reduce(link: Link, buf: Array) -> None:
    """Replace buf by the total over all ranks, the same bits on each: each adds up its part.

    buf:    a flat array, the same length and dtype on every rank.
    Cost:   2(p-1)·α + 2(p-1)/p · n·β + (p-1)/p · n·γ
    """
    circle, r = common(link), link.rank
    windows = circle.windows(buf, private=buf.nbytes >= ADDED_BYTES)
    if windows is not None:
        _add_in_place(link, buf, windows)
        circle.meet()
    else:
        for parts in blocks(pieces(buf, even_cuts(len(buf), link.size)), circle.room):
            add_like_the_ring(link, parts[r], circle.exchange(parts))
            _fill(parts, circle.show(parts), r)
        circle.release()


def _add_in_place(link: Link, buf: Array, windows: list[Window]) -> None:
    """All bufs can be reached: each rank writes the total of its part into every one of them."""
    cuts, r = even_cuts(len(buf), link.size), link.rank
    for start, stop in spans(cuts[r], cuts[r + 1], buf):
        part = buf[start:stop]
        add_like_the_ring(link, part, [window.read(start, stop) for window in windows])
        for window in windows[:r] + windows[r + 1 :]:
            window.write(start, part)
    mine = cuts[r + 1] - cuts[r]
    moved = [(n + mine) * buf.itemsize for n in lengths(cuts)]
    common(link).tell(moved, moved)


def flat_all_reduce(link: Link, buf: Array) -> None:
    """Replace buf by the total over all ranks, the same bits on each: everybody adds up all.

    buf:    a flat array, the same length and dtype on every rank.
    Cost:   (p-1)·(α + n·β + n·γ), one round in which all wait for all: for small arrays
    """
    circle, p = common(link), link.size
    if buf.nbytes <= circle.room:  # always, but for a call that names this algorithm
        add_like_a_tree(link, buf, circle.show([buf] * p))
    else:
        for (block,) in blocks([buf], circle.room):
            add_like_a_tree(link, block, circle.show([block] * p))
    circle.release()


def direct_reduce_scatter(
    link: Link, buf: Array, cuts: Sequence[int], out: Array | None = None
) -> None:
    """Add up piece r of all ranks on rank r.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]], all pieces filled on every rank.
    out:    where the total goes, as long as piece r; None: to piece r.
    After:  the total is there; the rest of buf is as it was.
    Cost:   (p-1)·α + (p-1)/p · n·(β + γ)
    """
    circle, r, parts = common(link), link.rank, pieces(buf, cuts)
    windows = _windows(circle, buf, ADDED_BYTES)
    if windows is not None:
        _add_part(link, buf, cuts, windows, parts[r] if out is None else out)
        circle.meet()
        return
    if out is not None:
        out[...] = parts[r]
        parts[r] = out
    for block in blocks(parts, circle.room):
        add_like_the_ring(link, block[r], circle.exchange(block))
    circle.release()


def _add_part(
    link: Link, buf: Array, cuts: Sequence[int], windows: list[Window], total: Array
) -> None:
    """All bufs can be reached: fill total with the sum of the own part."""
    first, last = cuts[link.rank], cuts[link.rank + 1]
    for start, stop in spans(first, last, buf):
        part = total[start - first : stop - first]
        put(part, buf[start:stop])
        add_like_the_ring(link, part, [window.read(start, stop) for window in windows])
    common(link).tell([n * buf.itemsize for n in lengths(cuts)], [total.nbytes] * link.size)


def direct_all_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    """Bring piece r of rank r to every rank.

    buf:    piece c is buf[cuts[c]:cuts[c + 1]]; on rank r only piece r is read.
    After:  buf is complete, the same bits everywhere.
    Cost:   (p-1)·α + (p-1)/p · n·β
    """
    circle, r, parts = common(link), link.rank, pieces(buf, cuts)
    windows = _windows(circle, buf, COPIED_BYTES)
    if windows is not None:
        for i, part in enumerate(parts):
            if i != r:
                windows[i].fetch(cuts[i], part)
        circle.tell([parts[r].nbytes] * link.size, [part.nbytes for part in parts])
        circle.meet()
        return
    for block in blocks(parts, circle.room):
        _fill(block, circle.show(block), r)
    circle.release()


def direct_broadcast(link: Link, buf: Array) -> None:
    """Bring the buf of rank 0 to every rank.

    buf:    a flat array, the same length and dtype on every rank; only rank 0's is read.
    Cost:   (p-1)·(α + n·β)
    """
    circle = common(link)
    windows = _windows(circle, buf, COPIED_BYTES)
    if windows is not None:
        _copy_together(link, buf, windows)
        circle.meet()
        return
    for (block,) in blocks([buf], circle.room):
        seen = circle.show_from(0, block)
        if link.rank:
            block[...] = seen
    circle.release()


def _copy_together(link: Link, buf: Array, windows: list[Window]) -> None:
    """All bufs can be reached: the root writes the first 1/p to the others, who read the rest."""
    cut, p = len(buf) // link.size, link.size
    if link.rank:
        windows[0].fetch(cut, buf[cut:])
        common(link).tell([0] * p, [buf.nbytes, *[0] * (p - 1)])
    else:
        for window in windows[1:]:
            window.write(0, buf[:cut])
        common(link).tell([buf.nbytes] * p, [0] * p)


def direct_all_to_all(link: Link, rows: Array, received: Array) -> None:
    """Bring row j of rank i to row i of rank j.

    rows:     [p, ...], the same shape and dtype on every rank.
    received: of the same shape; filled.
    Cost:     (p-1)·α + (p-1)/p · n·β
    """
    circle, p = common(link), link.size
    given, got = list(rows.reshape(p, -1)), list(received.reshape(p, -1))
    for parts, places in zip(blocks(given, circle.room), blocks(got, circle.room)):
        for place, part in zip(places, circle.exchange(parts)):
            place[...] = part
    circle.release()


def direct_barrier(link: Link) -> None:
    """Return once every rank has called this.  Cost: (p-1)·α"""
    common(link).meet()


# -- what they share --------------------------------------------------------------------------


def common(link: Link) -> Circle:
    """The circle of the link, or messages in its place."""
    circle = circle_of(link)
    return Messages(link) if circle is None else circle


def lengths(cuts: Sequence[int]) -> list[int]:
    """How many elements each piece has."""
    return [stop - start for start, stop in pairwise(cuts)]


def _windows(circle: Circle, array: Array, private: int) -> list[Window] | None:
    """The arrays of all ranks where they lie, if it pays to ask for them.

    private: from so many bytes on it pays, if they are private.
    """
    if array.nbytes < COPIED_BYTES:
        return None
    return circle.windows(array, private=array.nbytes >= private)


def spans(start: int, stop: int, array: Array) -> Iterable[tuple[int, int]]:
    """start to stop of the array in steps that fit the cache."""
    step = max(1, CACHE_BYTES // array.itemsize)
    return ((at, min(at + step, stop)) for at in range(start, stop, step))


def blocks(parts: Sequence[Array], room: int) -> Iterable[Sequence[Array]]:
    """The parts in step with each other, cut so that what is shown at once has room.

    At least one block, if only of empty arrays, so that every call is seen by the others.
    """
    longest = max(map(len, parts)) if len(parts) > 1 else len(parts[0])
    step = (room // max(1, len(parts) - 1) - LINE) // parts[0].itemsize
    if longest <= step:
        return (parts,)
    starts = range(0, longest, max(1, step))
    return ([part[start : start + step] for part in parts] for start in starts)


def add_like_the_ring(link: Link, mine: Array, seen: Sequence[Array]) -> None:
    """mine = ((seen[r+1] + seen[r+2]) + ...) + mine, where seen[r] is mine."""
    p, r = link.size, link.rank
    others = [seen[(r + i) % p] for i in range(1, p)]
    if len(others) > 1:
        others[0] = others[0].copy()
    for other in others[1:]:
        link.add(others[0], other)
    if others:
        link.add(mine, others[0])


def add_like_a_tree(link: Link, buf: Array, seen: Sequence[Array]) -> None:
    """buf = the sum of all that is seen: neighbours first, then neighbours among the sums."""
    buf[...] = seen[0]
    sums = [buf, *seen[1:]]
    if len(sums) > 2:
        sums[2::2] = [array.copy() for array in sums[2::2]]  # these will be added to
    while len(sums) > 2:
        for left, right in zip(sums[::2], sums[1::2]):
            link.add(left, right)
        sums = sums[::2]
    for last in sums[1:]:
        link.add(buf, last)


def _fill(parts: Sequence[Array], seen: Sequence[Array], r: int) -> None:
    for i, part in enumerate(parts):
        if i != r:
            part[...] = seen[i]
