"""A group of ranks and its calls: what a training script talks to.

Each call looks at what it was given, begins (`Conductor`: it gets a number and an algorithm), and
hands its link to one of the algorithms of `algorithms`. What is not index arithmetic happens here:
shapes, roots, `out=`. With `async_op=True` a call returns a handle at once: `wait()` of it returns
what the call would have, `done()` asks. Until then, neither x nor out may be changed.

Every rank of the group must make the same collective calls in the same order, with arrays of the
same shape and dtype, and the same `algorithm=` (None: `choose` decides, alike on all ranks). Ranks
are counted within the group. In the costs, n is the bytes of the whole array; they are those of
messages with the algorithm for large arrays, `cost` has the others and those through memory. All
calls raise UsageError, CallMismatch, PeerLost, CommTimeout, Deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minipar.array import Array, array_module, describe
from minipar.comm.algorithms import LEAVES_BUF_ALONE, Choice
from minipar.comm.conductor import Conductor, Load
from minipar.comm.link import as_array
from minipar.comm.reduction import reduction_for
from minipar.comm.results import check_out, delivered, place_for, put
from minipar.comm.wiring import even_cuts
from minipar.errors import UsageError
from minipar.spans import name_group


class Group(Conductor):
    """Some ranks of the world that communicate with each other."""

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Array:
        """An array in memory that the transport reaches directly: `out=x` of such arrays is faster.

        All ranks call this in the same order. On processes of one host it lies in shared memory,
        elsewhere it is like numpy.empty.  Raises: SharedMemoryFull, UsageError.
        """
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        if min(shape, default=0) < 0:
            raise UsageError(f"group.empty: there is no array of shape {list(shape)}")
        return self._transport.empty(shape, np.dtype(dtype))

    # -- one has it, or gets it ---------------------------------------------------------------

    def broadcast(
        self,
        x: Array,
        root: int = 0,
        algorithm: Choice = None,
        *,
        out: Array | None = None,
        async_op: bool = False,
    ) -> Any:
        """A copy of the root's x on every rank; all pass an array of the same shape and dtype.

        out: written and returned if given (it may be x itself), else a new array.
        Cost: (ceil(log2 p) + p-1)·α + 2(p-1)/p · n·β, in chunks round the ring.
        """
        x = as_array("broadcast", x)
        buf = place_for("broadcast", x, x.shape, out)
        signature = f"from {root} {describe(x)}"
        run, call, link = self._begin("broadcast", signature, Load.of(x), algorithm, root)

        def work() -> Array:
            if self.rank == root:
                put(buf, x)
            run(link, buf.reshape(-1))
            return delivered(buf, out)

        return self._carry_out(call, x.nbytes, work, async_op)

    def reduce(
        self,
        x: Array,
        root: int = 0,
        op: str = "sum",
        algorithm: Choice = None,
        *,
        async_op: bool = False,
    ) -> Any:
        """The sum (or mean, prod, min, max) of x over all ranks on the root, None elsewhere.

        Cost: (p-1 + ceil(log2 p))·α + 2(p-1)/p · n·β + (p-1)/p · n·γ, the ring and a tree.
        """
        x = as_array("reduce", x)
        reduction = reduction_for("reduce", op, x)
        flat = reduction.flat(x)
        signature = f"to {root} {reduction.signature}"
        run, call, link = self._begin(
            "reduce", signature, Load.of(flat), algorithm, root, reduction.combine
        )
        out = reduction.room(x) if self.rank == root else None

        def work() -> Array | None:
            run(link, flat)
            return reduction.result(flat, self.size, out) if self.rank == root else None

        return self._carry_out(call, flat.nbytes, work, async_op)

    def gather(
        self, x: Array, root: int = 0, algorithm: Choice = None, *, async_op: bool = False
    ) -> Any:
        """The x of every rank, stacked in rank order, on the root: [p, *x.shape]; None elsewhere.

        Cost: ceil(log2 p)·α + (p-1)/p · n·β, a tree; n is the bytes of the stack.
        """
        x = as_array("gather", x)
        nbytes, signature = self.size * x.nbytes, f"to {root} {describe(x)}"
        run, call, link = self._begin("gather", signature, Load.of(x, nbytes), algorithm, root)
        rows = place_for("gather", x, (self.size, *x.shape))
        rows[link.rank] = x
        stack = array_module(x).empty_like(rows) if root and self.rank == root else rows

        def work() -> Array | None:
            run(link, rows.reshape(self.size, -1), range(self.size + 1))
            if self.rank != root:
                return None
            if root:  # its own row came first
                stack[root:], stack[:root] = rows[: self.size - root], rows[self.size - root :]
            return stack

        return self._carry_out(call, nbytes, work, async_op)

    def scatter(
        self,
        x: Array | None = None,
        root: int = 0,
        algorithm: Choice = None,
        *,
        async_op: bool = False,
    ) -> Any:
        """Row r of the root's x on rank r. The others pass nothing; shape and dtype come with it.

        x: [p, ...] on the root; on the others it is not read.
        Cost: ceil(log2 p)·α + (p-1)/p · n·β, a tree; n is the bytes of the root's x.
        """
        if x is None and self.rank == root:
            raise UsageError(f"rank {self.rank}/{self.size}, scatter: the root must pass x")
        rows = self._one_row_per_rank("scatter", x) if self.rank == root else None
        if rows is not None and root:
            rows = array_module(rows).roll(rows, -root, axis=0)
        load = Load(0) if rows is None else Load.of(rows, 0)
        run, call, link = self._begin("scatter", f"from {root}", load, algorithm, root)

        def work() -> Array:
            return run(link, rows, range(self.size + 1))[0].copy()

        return self._carry_out(call, 0 if rows is None else rows.nbytes, work, async_op)

    # -- all have it, or get it ---------------------------------------------------------------

    def barrier(self, algorithm: Choice = None, *, async_op: bool = False) -> Any:
        """Return once every rank has called this.  Cost: ceil(log2 p) · α."""
        run, call, link = self._begin("barrier", "", Load(0), algorithm)
        return self._carry_out(call, 0, lambda: run(link), async_op)

    def all_reduce(
        self,
        x: Array,
        op: str = "sum",
        out: Array | None = None,
        algorithm: Choice = None,
        *,
        async_op: bool = False,
    ) -> Any:
        """The sum, mean, prod, min or max of x over all ranks, the same bits on each of them.

        x: any shape, the same shape and dtype on every rank.  out: written and returned if given
        (it may be x itself), else a new array.  What op means for which dtype: see `reduction`.
        Cost: 2(p-1)·α + 2(p-1)/p · n·β + (p-1)/p · n·γ, the ring.
        """
        x = as_array("all_reduce", x)
        reduction = reduction_for("all_reduce", op, x)
        if out is not x:
            check_out("all_reduce", x, x.shape, out)
        flat = reduction.flat(x, out)
        run, call, link = self._begin(
            "all_reduce", reduction.signature, Load.of(flat), algorithm, 0, reduction.combine
        )
        out = reduction.room(x, out)

        def work() -> Array:
            run(link, flat)
            return reduction.result(flat, self.size, out)

        return self._carry_out(call, flat.nbytes, work, async_op)

    def reduce_scatter(
        self,
        x: Array,
        op: str = "sum",
        algorithm: Choice = None,
        *,
        out: Array | None = None,
        async_op: bool = False,
    ) -> Any:
        """This rank's part of the sum (or mean, prod, min, max) of x over all ranks.

        x: [n, ...]; the parts are those of array_split along the first axis: rank r gets rows
        n·r/p to n·(r+1)/p, the first ranks one more where p does not divide n.  out: for the part.
        Cost: (p-1)·α + (p-1)/p · n·(β + γ), the ring.
        """
        x = as_array("reduce_scatter", x)
        if not x.ndim:
            raise UsageError("reduce_scatter needs an array of at least one dimension")
        rows = even_cuts(len(x), self.size)
        part = x[rows[self.rank] : rows[self.rank + 1]]
        check_out("reduce_scatter", x, part.shape, out)
        reduction = reduction_for("reduce_scatter", op, part)
        nbytes, signature = reduction.nbytes(x), f"{op} {describe(x)}"
        load = Load.of(x, nbytes)
        run, call, link = self._begin(
            "reduce_scatter", signature, load, algorithm, 0, reduction.combine
        )
        cuts = [row * (x.size // max(1, len(x))) for row in rows]
        out = reduction.room(part, out)
        alone = run in LEAVES_BUF_ALONE
        place, view = (reduction.place(part, out), reduction.view(x)) if alone else (None, None)

        def work() -> Array:
            if alone:
                mine = place
                run(link, view, cuts, mine)
            else:
                flat = reduction.flat(x)
                run(link, flat, cuts)
                mine = flat[cuts[self.rank] : cuts[self.rank + 1]].copy()  # lets go of the rest
            return reduction.result(mine, self.size, out)

        return self._carry_out(call, nbytes, work, async_op)

    def all_gather(
        self,
        x: Array,
        algorithm: Choice = None,
        *,
        out: Array | None = None,
        async_op: bool = False,
    ) -> Any:
        """The x of every rank, stacked: [p, *x.shape], in rank order, on every rank.

        out: written and returned if given; x may be its row of this rank.
        Cost: (p-1)·α + (p-1)/p · n·β, the ring; n is the bytes of the result.
        """
        x = as_array("all_gather", x)
        rows = place_for("all_gather", x, (self.size, *x.shape), out)
        run, call, link = self._begin("all_gather", describe(x), Load.of(rows), algorithm)

        def work() -> Array:
            put(rows[self.rank, ...], x)
            run(link, rows.reshape(-1), even_cuts(rows.size, self.size))
            return delivered(rows, out)

        return self._carry_out(call, rows.nbytes, work, async_op)

    def all_to_all(
        self,
        x: Array,
        algorithm: Choice = None,
        *,
        out: Array | None = None,
        async_op: bool = False,
    ) -> Any:
        """Row j of the result is row r of rank j's x: each rank sends a row to each rank.

        x: [p, ...], the same shape and dtype on every rank.  out: of that shape, not x itself.
        Cost: (p-1)·α + (p-1)/p · n·β, each row straight to its rank.
        """
        x = self._one_row_per_rank("all_to_all", x)
        received = place_for("all_to_all", x, x.shape, out)
        if out is not None and array_module(x).may_share_memory(x, out):
            raise UsageError("all_to_all: out is x itself; rows would be lost before they are sent")
        run, call, link = self._begin("all_to_all", describe(x), Load.of(x), algorithm)

        def work() -> Array:
            run(link, x, received)
            return delivered(received, out)

        return self._carry_out(call, x.nbytes, work, async_op)

    # -- groups of fewer ranks ----------------------------------------------------------------

    def split(self, color: int | None, key: int | None = None) -> Group | None:
        """A group of the ranks that give the same color; None for those that give None.

        All ranks of this group call this. In the new group they are ordered by key (None: by their
        rank here), ties by rank. Messages of different groups do not mix.
        """
        return self._part("split", color, self.rank if key is None else key)

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
        return self._part("subgroup", 0 if inside else None, place, f"of {ranks}")

    def _part(self, op: str, color: int | None, key: int, signature: str = "") -> Group | None:
        ranks, ident = self._split(op, color, key, signature)
        if not ranks:
            return None
        group = Group(self._transport, ranks, ident, self)
        name_group(group, "other")  # for a trace, until somebody calls it something else
        return group
