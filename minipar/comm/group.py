"""A group of ranks and its calls: what a training script talks to.

A `Group` numbers each call, writes down where it was made, and hands it as a `Link` to the
algorithm in `collectives`. What is not index arithmetic happens here: shapes, averages, `out=`.

Every rank of the group must make the same collective calls in the same order, with arrays of the
same shape and dtype. Ranks are counted within the group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from minipar.array import Array, array_module, describe
from minipar.comm import collectives
from minipar.comm.frame import MAX_SIGNATURE, Call, call_site
from minipar.comm.link import Link, as_array
from minipar.comm.transport import ANY, Pending, Transport
from minipar.errors import CallMismatch, UsageError

OPS = ("sum", "mean")


class Group:
    """Some ranks of the world that communicate with each other."""

    def __init__(
        self, transport: Transport, ranks: Sequence[int] | None = None, ident: int = 0
    ) -> None:
        """ranks: world ranks in group order (None: all).  ident: the same number on all of them."""
        self._transport, self._ident = transport, ident
        self._ranks = tuple(range(transport.size) if ranks is None else ranks)
        self.rank = self._ranks.index(transport.rank)
        self.size = len(self._ranks)
        self._collectives = 0
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()

    @property
    def backend(self) -> str:
        """What carries the messages: "local" or "process"."""
        return self._transport.backend

    def __repr__(self) -> str:
        return f"Group(rank {self.rank} of {self.size})"

    # -- between two ranks --------------------------------------------------------------------

    def send(self, array: Array, dst: int) -> None:
        """Send array to rank dst; afterwards it may be changed.  Cost: α + n·β.

        Up to 256 KB return at once; more may wait until dst receives.
        Raises: UsageError, PeerLost, CommTimeout, Deadlock.
        """
        self.isend(array, dst).wait()

    def isend(self, array: Array, dst: int) -> Pending:
        """Begin to send; array must stay as it is until `wait()` of the result returns."""
        self._check_peer("send", dst)
        return self._link("send", sequence=self._number(self._sent, dst)).isend(array, dst)

    def recv(self, src: int, out: Array | None = None) -> Any:
        """The next array that rank src sends to this rank; with src=ANY the pair (src, array).

        out: an array of the same shape and dtype to receive into (it is the result, too).
        Raises: CallMismatch (shape or dtype other than out's), PeerLost, CommTimeout, Deadlock.
        """
        return self.irecv(src, out).wait()

    def irecv(self, src: int, out: Array | None = None) -> _Receiving:
        """Ask for the next array from src; `wait()` of the result returns what `recv` would."""
        self._check_peer("recv", src, also=ANY)
        number = 0 if src == ANY else self._number(self._received, src)
        return _Receiving(self._link("recv", sequence=number), src, out)

    def sendrecv(self, array: Array, dst: int, src: int, out: Array | None = None) -> Array:
        """Send to dst and receive from src at the same time; never blocks against itself."""
        sending = self.isend(array, dst)
        incoming = self.recv(src, out)
        sending.wait()
        return incoming

    def poll(self, src: int = ANY) -> bool:
        """Whether an array from src (any rank, if not given) is there for `recv` to take."""
        self._check_peer("poll", src, also=ANY)
        call = Call(self._ident, 0, "recv", "", "")
        return self._transport.poll(src if src == ANY else self._ranks[src], call)

    # -- all together -------------------------------------------------------------------------

    def barrier(self) -> None:
        """Return once every rank has called this.  Cost: ceil(log2 p) · α."""
        collectives.dissemination_barrier(self._link("barrier"))

    def broadcast(self, x: Array, root: int = 0) -> Array:
        """A copy of the root's x on every rank; all pass an array of the same shape and dtype.

        Cost: ceil(log2 p) · (α + n·β), a binomial tree.
        """
        x = as_array("broadcast", x)
        self._check_peer("broadcast", root)
        link = self._link("broadcast", f"from {root} {describe(x)}")
        out = collectives.tree_broadcast(link, x, root)
        return out.copy() if out is x else out

    def all_reduce(self, x: Array, op: str = "sum", out: Array | None = None) -> Array:
        """The sum or mean of x over all ranks, the same bits on each of them.

        x: any shape, the same shape and dtype on every rank.  out: written and returned if given
        (it may be x itself), else a new array.
        Cost: 2(p-1)·α + 2(p-1)/p · n·β + (p-1)/p · n·γ, the ring.
        Raises: CallMismatch, UsageError, PeerLost, CommTimeout, Deadlock.
        """
        x = as_array("all_reduce", x)
        _check_op("all_reduce", op, x)
        flat = _flat_copy(x, out)
        collectives.ring_all_reduce(self._link("all_reduce", f"{op} {describe(x)}"), flat)
        if op == "mean":
            flat /= self.size
        return _into(out, flat.reshape(x.shape))

    def reduce_scatter(self, x: Array, op: str = "sum") -> Array:
        """This rank's part of the sum or mean of x over all ranks.

        x: [n, ...]; the parts are those of array_split along the first axis: rank r gets rows
        n·r/p to n·(r+1)/p, the first ranks one more where p does not divide n.
        Cost: (p-1)·α + (p-1)/p · n·(β + γ), the ring.
        """
        x = as_array("reduce_scatter", x)
        _check_op("reduce_scatter", op, x)
        if not x.ndim:
            raise UsageError("reduce_scatter needs an array of at least one dimension")
        chunks = array_module(x).array_split(x.copy(), self.size)
        collectives.ring_reduce_scatter(self._link("reduce_scatter", f"{op} {describe(x)}"), chunks)
        mine = chunks[self.rank].copy()
        if op == "mean":
            mine /= self.size
        return mine

    def all_gather(self, x: Array) -> Array:
        """The x of every rank, stacked: [p, *x.shape], in rank order, on every rank.

        Cost: (p-1)·α + (p-1)/p · p·n·β, the ring.
        """
        x = as_array("all_gather", x)
        gathered = array_module(x).empty((self.size, *x.shape), x.dtype)
        gathered[self.rank] = x
        parts = list(gathered.reshape(self.size, -1))
        collectives.ring_all_gather(self._link("all_gather", describe(x)), parts)
        return gathered

    def close(self) -> CallMismatch | None:
        """Finish what was sent; the launcher calls this.

        Returns: the error that it is if all ranks return well now, with a call left out by this.
        """
        return self._transport.close()

    # -- bookkeeping --------------------------------------------------------------------------

    def _link(self, op: str, signature: str = "", sequence: int | None = None) -> Link:
        if sequence is None:
            sequence, self._collectives = self._collectives, self._collectives + 1
        call = Call(self._ident, sequence, op, signature[:MAX_SIGNATURE], call_site())
        self._transport.announce(call)
        return Link(self._transport, self._ranks, self.rank, call)

    def _number(self, counter: Counter[int], peer: int) -> int:
        counter[peer] += 1
        return counter[peer] - 1

    def _check_peer(self, op: str, peer: int, also: int = 0) -> None:
        if not 0 <= peer < self.size and peer != also:
            raise UsageError(
                f"rank {self.rank}/{self.size}, {op}: there is no rank {peer}; "
                f"this group has ranks 0 to {self.size - 1}"
            )


class _Receiving:
    """A receive under way."""

    def __init__(self, link: Link, src: int, out: Array | None) -> None:
        self._link, self._src, self._out = link, src, out
        self._pending = link.irecv(src, out)

    def done(self) -> bool:
        """Whether `wait` would return at once."""
        return self._pending.done()

    def wait(self) -> Any:
        """The array (of `recv`), or (src, array) for ANY."""
        message = self._pending.wait()
        array = self._link.received(message, self._out)
        return (self._link.sender(message), array) if self._src == ANY else array


def _check_op(name: str, op: str, x: Array) -> None:
    if op not in OPS:
        raise UsageError(f"{name}: op is one of {', '.join(OPS)}, not {op!r}")
    if x.dtype.kind not in ("i", "u", "f", "c") or (op == "mean" and x.dtype.kind in "iu"):
        raise UsageError(f"{name}: the {op} of {x.dtype} arrays is not defined; convert them first")


def _flat_copy(x: Array, out: Array | None) -> Array:
    """x as a flat array that may be overwritten: out's own memory where that is possible."""
    if out is None:
        return x.reshape(-1).copy()
    if out.shape != x.shape or out.dtype != x.dtype:
        raise UsageError(f"all_reduce: out is {describe(out)}, but the result is {describe(x)}")
    flat = out.reshape(-1)  # a view of out if out is contiguous, else already a copy
    if out is not x:
        flat[...] = x.reshape(-1)
    return flat


def _into(out: Array | None, value: Array) -> Array:
    if out is None:
        return value
    if not array_module(out).may_share_memory(out, value):
        out[...] = value
    return out
