"""What all collective calls of a group have in common: how they begin, and who does the work.

    _begin        the call gets its number and the line where it was made; `pick` says by which
                  algorithm; root and ranks are checked. From now on it can be named in errors
    _carry_out    the work is done at once, or by the rank's second thread (`asynchronous`): with
                  `async_op`, and while that has something left, since calls keep their order

`_split` is such a call, too: all ranks show each other to which group they will belong. The groups
that come of it share the counter of splits, the second thread and the history of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array, describe, on_host
from minipar.comm.algorithms import Algorithm, Choice, pick
from minipar.comm.asynchronous import Worker
from minipar.comm.history import History
from minipar.comm.link import CallLink, as_array
from minipar.comm.nccl.library import can_combine
from minipar.comm.on_device import taken
from minipar.comm.pairs import Pairs
from minipar.comm.subgroups import Serials, entry, group_number, members
from minipar.comm.transport import Transport
from minipar.comm.wiring import Link, even_cuts, seen_from
from minipar.errors import CallMismatch, UsageError
from minipar.spans import mark

SAME_AS = MappingProxyType({"split": "all_gather", "subgroup": "all_gather"})


class Load(NamedTuple):
    """What a call moves."""

    nbytes: int
    device: bool = False  # whether it lies on a GPU
    dtype: str = ""

    @classmethod
    def of(cls, x: Array, nbytes: int | None = None) -> Load:
        """nbytes: if they are not those of x."""
        n = x.nbytes if nbytes is None else nbytes
        return cls(n) if type(x) is np.ndarray else cls(n, not on_host(x), x.dtype.name)


class Conductor(Pairs):
    """Some ranks of the world that can begin a collective call; `Group` has the calls."""

    def __init__(
        self,
        transport: Transport,
        ranks: Sequence[int] | None = None,
        ident: int = 0,
        parent: Conductor | None = None,
        history: History | None = None,
    ) -> None:
        """ranks: world ranks in group order (None: all).  ident: see `subgroups`.

        parent: the group that was split; all groups of a rank share serials, worker and history.
        """
        if history is None:
            history = History() if parent is None else parent.history
        super().__init__(transport, ranks, ident, history)
        self._serials: Serials = Serials() if parent is None else parent._serials
        self._worker: Worker = Worker(transport) if parent is None else parent._worker
        self._medium = transport.backend
        if transport.backend in ("process", "nccl"):
            self._medium = "hosts" if self._calls.circle is None else "process"

    def close(self) -> CallMismatch | None:
        """Finish what was begun and sent; the launcher calls this.

        Returns: the error that it is if all ranks return well now, with a call left out by this.
        """
        self._worker.end()
        return self._transport.close()

    # -- a call -------------------------------------------------------------------------------

    def _begin(
        self,
        op: str,
        signature: str,
        load: Load,
        algorithm: Choice,
        root: int = 0,
        combine: Callable[..., Array] = np.add,
    ) -> tuple[Algorithm, CallLink, Link]:
        """The algorithm of a collective call, its link, and the link as seen from the root."""
        if root:
            self._check_peer(op, root)
        medium = self._medium_of(load, combine) if load.device else self._medium
        name, run = pick(SAME_AS.get(op, op), algorithm, load.nbytes, self.size, medium)
        call = self._calls.collective(op, signature, name, combine, load.device)
        return run, call, seen_from(call, root) if root else call

    def _medium_of(self, load: Load, combine: Callable[..., Array]) -> str:
        """What carries arrays of a GPU: of those, other ranks see nothing but messages."""
        backend = self._transport.backend
        if backend == "nccl":
            return "nccl" if can_combine(load.dtype, combine) else "hosts"
        return backend if backend == "local" else "hosts"

    def _carry_out(
        self, link: CallLink, nbytes: int, work: Callable[[], Any], async_op: bool
    ) -> Any:
        """Do the work now, or hand it to the second thread: always, if that has other work left."""
        if link.device:
            work = self._transport.on_device(work, link.call, link.algorithm == "native")
        if not async_op and not self._worker.queue:
            return taken(link.carry_out(work, nbytes))
        mark("queued", link.call.group, link.call.sequence)
        handle = self._worker.submit(lambda: link.carry_out(work, nbytes), link.call)
        return handle if async_op else handle.wait()

    def _split(
        self, op: str, color: int | None, key: int, signature: str = ""
    ) -> tuple[list[int], int]:
        """World ranks and number of the new group that this rank is in; no ranks if in none."""
        mine = entry(color, key, self._serials)
        table = np.empty((self.size, len(mine)), mine.dtype)
        table[self.rank] = mine
        run, call, link = self._begin(op, signature, Load(0), None)

        def work() -> None:
            run(link, table.reshape(-1), even_cuts(table.size, self.size))

        self._carry_out(call, table.nbytes, work, False)
        ranks = [self.world_ranks[r] for r in members(table, self.rank)]
        number = group_number(table, min(ranks, default=0), self._transport.size, self._serials)
        return ranks, number

    def _one_row_per_rank(self, op: str, x: Any) -> Array:
        """x as an array.  Raises: UsageError if it does not have a row for each rank."""
        x = as_array(op, x)
        if x.ndim and len(x) == self.size:
            return x
        raise UsageError(
            f"rank {self.rank}/{self.size}, {op}: x is {describe(x)}, but it needs a row for each "
            f"rank: [{self.size}, ...]"
        )
