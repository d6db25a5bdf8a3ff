"""A group of ranks and its calls: what a training script talks to.

A `Group` numbers each call, writes down where it was made, and hands it as a link to one of the
algorithms of `algorithms`. What is not index arithmetic happens here: shapes, roots, `out=`.

Every rank of the group must make the same collective calls in the same order, with arrays of the
same shape and dtype, and the same `algorithm=` (None: `choose` decides, alike on all ranks). Ranks
are counted within the group. In the costs, n is the bytes of the whole array; they are those of the
algorithm for large arrays, `cost` has the others. All calls raise UsageError, CallMismatch,
PeerLost, CommTimeout, Deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minipar.array import Array, array_module, describe
from minipar.comm.algorithms import Algorithm, pick
from minipar.comm.history import History
from minipar.comm.link import Calls, Receiving, as_array, world_suffix
from minipar.comm.reduction import Reduction
from minipar.comm.subgroups import Serials, entry, group_number, members
from minipar.comm.transport import ANY, Pending, Transport
from minipar.comm.wiring import Link, even_cuts, seen_from
from minipar.errors import CallMismatch, UsageError


class Group:
    """Some ranks of the world that communicate with each other."""

    def __init__(
        self,
        transport: Transport,
        ranks: Sequence[int] | None = None,
        ident: int = 0,
        serials: Serials | None = None,
        history: History | None = None,
    ) -> None:
        """ranks: world ranks in group order (None: all).  ident, serials: see `subgroups`."""
        self._transport = transport
        self._serials = Serials() if serials is None else serials
        self.world_ranks = tuple(range(transport.size) if ranks is None else ranks)
        self.rank = self.world_ranks.index(transport.rank)
        self.size = len(self.world_ranks)
        self.history = History() if history is None else history  # shared by this rank's groups
        self._calls = Calls(transport, self.world_ranks, ident, self.history)

    @property
    def backend(self) -> str:
        """What carries the messages: "local" or "process"."""
        return self._transport.backend

    def __repr__(self) -> str:
        world = world_suffix(self.world_ranks, self.rank)
        return f"Group(rank {self.rank} of {self.size}{world})"

    # -- between two ranks --------------------------------------------------------------------

    def send(self, array: Array, dst: int) -> None:
        """Send array to rank dst; afterwards it may be changed.  Cost: α + n·β.

        Up to 256 KB return at once; more may wait until dst receives.
        """
        self.isend(array, dst).wait()

    def isend(self, array: Array, dst: int) -> Pending:
        """Begin to send; array must stay as it is until `wait()` of the result returns."""
        self._check_peer("send", dst)
        return self._calls.send(dst).isend(array, dst)

    def recv(self, src: int, out: Array | None = None) -> Any:
        """The next array that rank src sends to this rank; with src=ANY the pair (src, array).

        out: an array of the same shape and dtype to receive into (it is the result, too).
        """
        return self.irecv(src, out).wait()

    def irecv(self, src: int, out: Array | None = None) -> Receiving:
        """Ask for the next array from src; `wait()` of the result returns what `recv` would."""
        self._check_peer("recv", src, also=ANY)
        return Receiving(self._calls.recv(src), src, out)

    def sendrecv(self, array: Array, dst: int, src: int, out: Array | None = None) -> Array:
        """Send to dst and receive from src at the same time; never blocks against itself."""
        sending = self.isend(array, dst)
        incoming = self.recv(src, out)
        sending.wait()
        return incoming

    def poll(self, src: int = ANY) -> bool:
        """Whether an array from src (any rank, if not given) is there for `recv` to take."""
        self._check_peer("poll", src, also=ANY)
        return self._calls.poll(src)

    # -- one has it, or gets it ---------------------------------------------------------------

    def broadcast(self, x: Array, root: int = 0, algorithm: str | None = None) -> Array:
        """A copy of the root's x on every rank; all pass an array of the same shape and dtype.

        Cost: (ceil(log2 p) + p-1)·α + 2(p-1)/p · n·β, in chunks round the ring.
        """
        x = as_array("broadcast", x)
        run, link = self._begin(
            "broadcast", f"from {root} {describe(x)}", x.nbytes, algorithm, root
        )
        flat = x.reshape(-1).copy() if self.rank == root else _like(x, (x.size,))
        run(link, flat)
        return flat.reshape(x.shape)

    def reduce(
        self, x: Array, root: int = 0, op: str = "sum", algorithm: str | None = None
    ) -> Array | None:
        """The sum (or mean, prod, min, max) of x over all ranks on the root, None elsewhere.

        Cost: (p-1 + ceil(log2 p))·α + 2(p-1)/p · n·β + (p-1)/p · n·γ, the ring and a tree.
        """
        x = as_array("reduce", x)
        reduction = Reduction("reduce", op, x)
        flat = reduction.flat(x)
        signature = f"{op} to {root} {describe(x)}"
        run, link = self._begin(
            "reduce", signature, flat.nbytes, algorithm, root, reduction.combine
        )
        run(link, flat)
        return reduction.result(flat, self.size) if self.rank == root else None

    def gather(self, x: Array, root: int = 0, algorithm: str | None = None) -> Array | None:
        """The x of every rank, stacked in rank order, on the root: [p, *x.shape]; None elsewhere.

        Cost: ceil(log2 p)·α + (p-1)/p · n·β, a tree; n is the bytes of the stack.
        """
        x = as_array("gather", x)
        signature = f"to {root} {describe(x)}"
        run, link = self._begin("gather", signature, self.size * x.nbytes, algorithm, root)
        rows = _like(x, (self.size, *x.shape))
        rows[link.rank] = x
        run(link, rows.reshape(self.size, -1), range(self.size + 1))
        if self.rank != root:
            return None
        return array_module(rows).roll(rows, root, axis=0) if root else rows

    def scatter(self, x: Array | None = None, root: int = 0, algorithm: str | None = None) -> Array:
        """Row r of the root's x on rank r. The others pass nothing; shape and dtype come with it.

        x: [p, ...] on the root; on the others it is not read.
        Cost: ceil(log2 p)·α + (p-1)/p · n·β, a tree; n is the bytes of the root's x.
        """
        rows = self._one_row_per_rank("scatter", x) if self.rank == root else None
        if rows is not None and root:
            rows = array_module(rows).roll(rows, -root, axis=0)
        run, link = self._begin("scatter", f"from {root}", 0, algorithm, root)
        return run(link, rows, range(self.size + 1))[0].copy()

    # -- all have it, or get it ---------------------------------------------------------------

    def barrier(self, algorithm: str | None = None) -> None:
        """Return once every rank has called this.  Cost: ceil(log2 p) · α."""
        run, link = self._begin("barrier", "", 0, algorithm)
        run(link)

    def all_reduce(
        self, x: Array, op: str = "sum", out: Array | None = None, algorithm: str | None = None
    ) -> Array:
        """The sum, mean, prod, min or max of x over all ranks, the same bits on each of them.

        x: any shape, the same shape and dtype on every rank.  out: written and returned if given
        (it may be x itself), else a new array.  What op means for which dtype: see `reduction`.
        Cost: 2(p-1)·α + 2(p-1)/p · n·β + (p-1)/p · n·γ, the ring.
        """
        x = as_array("all_reduce", x)
        reduction = Reduction("all_reduce", op, x)
        flat = reduction.flat(x, out)
        run, link = self._begin(
            "all_reduce", f"{op} {describe(x)}", flat.nbytes, algorithm, combine=reduction.combine
        )
        run(link, flat)
        return reduction.result(flat, self.size, out)

    def reduce_scatter(self, x: Array, op: str = "sum", algorithm: str | None = None) -> Array:
        """This rank's part of the sum (or mean, prod, min, max) of x over all ranks.

        x: [n, ...]; the parts are those of array_split along the first axis: rank r gets rows
        n·r/p to n·(r+1)/p, the first ranks one more where p does not divide n.
        Cost: (p-1)·α + (p-1)/p · n·(β + γ), the ring.
        """
        x = as_array("reduce_scatter", x)
        if not x.ndim:
            raise UsageError("reduce_scatter needs an array of at least one dimension")
        rows = even_cuts(len(x), self.size)
        part = x[rows[self.rank] : rows[self.rank + 1]]
        reduction = Reduction("reduce_scatter", op, part)
        flat = reduction.flat(x)
        run, link = self._begin(
            "reduce_scatter", f"{op} {describe(x)}", flat.nbytes, algorithm, 0, reduction.combine
        )
        cuts = [row * (flat.size // max(1, len(x))) for row in rows]
        run(link, flat, cuts)
        mine = flat[cuts[self.rank] : cuts[self.rank + 1]].copy()
        return reduction.result(mine, self.size)

    def all_gather(self, x: Array, algorithm: str | None = None) -> Array:
        """The x of every rank, stacked: [p, *x.shape], in rank order, on every rank.

        Cost: (p-1)·α + (p-1)/p · n·β, the ring; n is the bytes of the result.
        """
        x = as_array("all_gather", x)
        run, link = self._begin("all_gather", describe(x), self.size * x.nbytes, algorithm)
        rows = _like(x, (self.size, *x.shape))
        rows[self.rank] = x
        run(link, rows.reshape(self.size, -1), range(self.size + 1))
        return rows

    def all_to_all(self, x: Array, algorithm: str | None = None) -> Array:
        """Row j of the result is row r of rank j's x: each rank sends a row to each rank.

        x: [p, ...], the same shape and dtype on every rank.
        Cost: (p-1)·α + (p-1)/p · n·β, each row straight to its rank.
        """
        x = self._one_row_per_rank("all_to_all", x)
        run, link = self._begin("all_to_all", describe(x), x.nbytes, algorithm)
        received = _like(x, x.shape)
        run(link, x, received)
        return received

    # -- groups of fewer ranks ----------------------------------------------------------------

    def split(self, color: int | None, key: int | None = None) -> Group | None:
        """A group of the ranks that give the same color; None for those that give None.

        All ranks of this group call this. In the new group they are ordered by key (None: by their
        rank here), ties by rank. Messages of different groups do not mix.
        """
        return self._split("split", color, self.rank if key is None else key)

    def subgroup(self, ranks: Sequence[int]) -> Group | None:
        """A group of these ranks of this group, in this order; None on the others.

        All ranks of this group call this, with the same ranks.
        """
        ranks = list(ranks)
        for rank in ranks:
            self._check_peer("subgroup", rank)
        if len(set(ranks)) < len(ranks):
            raise UsageError(f"subgroup: a rank stands in {ranks} more than once")
        inside = self.rank in ranks
        place = ranks.index(self.rank) if inside else 0
        return self._split("subgroup", 0 if inside else None, place, f"of {ranks}")

    def close(self) -> CallMismatch | None:
        """Finish what was sent; the launcher calls this.

        Returns: the error that it is if all ranks return well now, with a call left out by this.
        """
        return self._transport.close()

    # -- bookkeeping --------------------------------------------------------------------------

    def _begin(
        self,
        op: str,
        signature: str,
        nbytes: int,
        algorithm: str | None,
        root: int = 0,
        combine: Callable[..., Array] = np.add,
    ) -> tuple[Algorithm, Link]:
        """The algorithm of a collective call, and its link as seen from the root."""
        self._check_peer(op, root)
        name, run = pick(op, algorithm, nbytes, self.size, self.backend)
        return run, seen_from(self._calls.collective(op, signature, name, combine), root)

    def _split(self, op: str, color: int | None, key: int, signature: str = "") -> Group | None:
        mine = entry(color, key, self._serials)
        name, run = pick("all_gather", None, 0, self.size, self.backend)
        table = np.empty((self.size, len(mine)), mine.dtype)
        table[self.rank] = mine
        run(self._calls.collective(op, signature, name), table, range(self.size + 1))
        ranks = [self.world_ranks[r] for r in members(table, self.rank)]
        number = group_number(table, min(ranks, default=0), self._transport.size, self._serials)
        if not ranks:
            return None
        return Group(self._transport, ranks, number, self._serials, self.history)

    def _one_row_per_rank(self, op: str, x: Any) -> Array:
        x = as_array(op, x)
        if x.ndim and len(x) == self.size:
            return x
        raise UsageError(
            f"rank {self.rank}/{self.size}, {op}: x is {describe(x)}, but it needs a row for each "
            f"rank: [{self.size}, ...]"
        )

    def _check_peer(self, op: str, peer: int, also: int = 0) -> None:
        if not 0 <= peer < self.size and peer != also:
            raise UsageError(
                f"rank {self.rank}/{self.size}, {op}: there is no rank {peer}; "
                f"this group has ranks 0 to {self.size - 1}"
            )


def _like(x: Array, shape: tuple[int, ...]) -> Array:
    """A new array for what comes, of x's dtype."""
    return array_module(x).empty(shape, x.dtype)
