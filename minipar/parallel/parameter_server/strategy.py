r"""A worker's side of training with parameter servers, as the training loop wants it.

    zero_grad         pull the weights                   may wait, as the rule says
    backward          embedding picks rows of tables     pulled when picked, or before by `pull`
    sync_gradients    sync: push                         the servers lay it aside
    clip              sync: the norm of the round's mean gradient; else of this worker's own
    step              async, ssp: push;  all: STEP       now the push counts

    roles = Roles(world, servers=2)
    if roles.is_server:
        return serve(roles, model, make_optimizer, ASYNC)
    with ParameterServer(model, roles, make_optimizer) as strategy:
        ...                                              # the same loop as always

Which rule holds is the servers' business: a worker is told when it says hello. In sync the result
is that of one rank with the whole batch. In async and ssp a push is a step of its own, over this
worker's rows alone, and p workers make p steps where sync makes one.

Frozen parameters and buffers are no business of the servers: all workers get worker 0's at first.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np

from minipar.array import Array, to_numpy
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.optim import clip_grad_norm
from minipar.parallel.held import Held
from minipar.parallel.parameter_server import pulls, wire
from minipar.parallel.parameter_server.keys import SLICE_BYTES, shards_of, table_names
from minipar.parallel.parameter_server.lines import take
from minipar.parallel.parameter_server.payload import CODES, counts_of, messages_of
from minipar.parallel.parameter_server.roles import Roles
from minipar.parallel.parameter_server.state import load_state, pull_state
from minipar.parallel.parameter_server.tables import RemoteTable, is_hollow
from minipar.parallel.parameter_server.wire import Head
from minipar.parallel.parameter_server.worker import Worker
from minipar.parallel.strategy import MakeOptimizer
from minipar.sparse import RowGradient


class ParameterServer:
    """Trains `model` with the weights that the servers hold; see `strategy.Strategy`."""

    def __init__(
        self,
        model: Module,
        roles: Roles,
        make_optimizer: MakeOptimizer,
        *,
        prefetch: bool = False,
        compress: str = "none",
        slice_bytes: int = SLICE_BYTES,
        xp: Any = np,
    ) -> None:
        """model:    of its parameters only the shapes count; large ones may be `Hollow`.
        prefetch:    ask for the next weights early: in sync as soon as the push counts, in async
                     and ssp as soon as the last weights are there, so without the push between.
        compress:    "float16" or "int8", how dense gradients travel (`parallel.compress`).
        slice_bytes: see `keys`; the same on servers and workers.
        xp:          cupy if this worker computes on a GPU; weights and gradients then pass through
                     host memory, where the servers have theirs.
        Raises:      UsageError; CommError if the servers have another model.
        """
        if compress not in CODES:
            raise UsageError(f"there is no {compress!r}; there are {', '.join(CODES)}.")
        roles.check()
        self.model, self.roles, self.prefetch, self.xp = model, roles, prefetch, xp
        self.trained = {n: x for n, x in model.named_parameters() if x.requires_grad}
        shards = shards_of(model, len(roles.server_ranks), slice_bytes)
        self.worker = Worker(roles, shards, CODES.index(compress))
        roles.used = True
        self.who = f"worker {roles.worker}"
        self.optimizer: Any = make_optimizer(())  # for its lr, and the names of its state
        self._pull: pulls.Pull | None = None
        self._rows, self._factor, self._pushed = 1.0, 1.0, False
        self._make_room(model)
        self._arrived = {n: self._in_host_memory(x.data) for n, x in self.dense.items()}
        self._spare = {n: np.empty_like(a) for n, a in self._arrived.items() if prefetch}
        self._agree_on_the_rest(model)

    def _make_room(self, model: Module) -> None:
        """Tables become remote, hollow arrays real ones."""
        names = table_names(model)
        self.dense = {n: x for n, x in self.trained.items() if n not in names}
        self.tables: dict[str, RemoteTable] = {}
        for name, x in self.trained.items():
            if name in names:
                fetch, put = partial(self._fetch, name), partial(self._put, name)
                x.data = self.tables[name] = RemoteTable(x.shape, x.dtype, fetch, put, self.xp)
            elif is_hollow(x.data):
                x.data = self.xp.empty(x.shape, x.dtype)

    def _in_host_memory(self, x: Array) -> np.ndarray:
        """Where the values of a weight arrive: in it, or in an array beside it."""
        return x if self.xp is np else np.empty(x.shape, x.dtype)

    def _agree_on_the_rest(self, model: Module) -> None:
        for name, x in model.named_parameters():
            if x.requires_grad:
                continue
            if is_hollow(x.data):
                raise UsageError(f"{name} is frozen and hollow: no server has its values.")
            if self.roles.workers is not None:
                x.data[...] = self.roles.workers.broadcast(x.data)

    # -- the loop -----------------------------------------------------------------------------

    def zero_grad(self) -> None:
        """Pull, and let go of all gradients, and of the rows of tables."""
        self.pull()

    def pull(self, rows: Mapping[str, Array] | None = None) -> None:
        """`zero_grad`, with the rows of tables that the batch will need, all in one round trip.

        rows: by the name of the table, ids in any order and shape.
        """
        for x in self.trained.values():
            x.grad = None
        for table in self.tables.values():
            table.forget()
        wanted = {name: self._wanted(name, ids) for name, ids in (rows or {}).items()}
        early = self._pull
        if early is None:
            self._pull = self._ask(self.worker.clock, self._arrived, wanted)
        self._finish()
        if early is not None and wanted:
            self._pull = self._ask(self.worker.clock, {}, wanted)
            self._finish()
        if self.prefetch and not self.worker.rounds:
            self._ask_early()

    def announce(self, rows: float) -> None:
        """Nothing: how many rows each worker had is said with its push."""

    def no_sync(self) -> AbstractContextManager[None]:
        """Backward inside only adds up; so it does outside: it is not backward that sends."""
        return nullcontext()

    def sync_gradients(self, rows: float = 1.0) -> None:
        """In sync, push. The mean of all is on the servers, so the gradients here are let go."""
        self._rows, self._factor = rows, 1.0
        if self.worker.rounds:
            self._push()

    def clip(self, max_norm: float) -> float:
        """In sync the norm of the mean gradient of all, which the servers will shrink; waits for
        the round. Else that of this worker's gradient, which is shrunk.
        """
        if not self.worker.rounds:
            return clip_grad_norm(self.trained.values(), max_norm)
        norm = math.sqrt(self.worker.norm_squared())
        self._factor = max_norm / norm if norm > max_norm else 1.0
        return norm

    def step(self) -> None:
        """What was pushed counts; in async and ssp this worker's gradient, if nothing was."""
        if not self._pushed:
            self._push()
        self._pushed = False
        self.worker.step(self.optimizer.lr, self._factor)
        if self.prefetch and self.worker.rounds:
            self._ask_early()

    def push(self, gradients: Mapping[str, Any], rows: float = 1.0) -> None:
        """Push these; they count with `step`.  gradients: arrays, or RowGradients, by name.

        Raises: UsageError, ShapeMismatch, Diverged, before anything is sent.
        """
        pulls.check(gradients, {n: x.data for n, x in self.trained.items()}, self.who)
        gradients = {name: pulls.in_host_memory(g) for name, g in gradients.items()}
        values = pulls.shared_out(self.worker.lines, gradients)
        looked = not self.worker.skip_nan
        if looked:
            pulls.check_finite(values, self.worker.lines, self.who)
        self.worker.push(values, rows, finite=looked)
        self._pushed = True

    def _push(self) -> None:
        self.push({n: x.grad for n, x in self.trained.items() if x.grad is not None}, self._rows)
        for x in self.trained.values():
            x.grad = None

    # -- pulling ------------------------------------------------------------------------------

    def _wanted(self, name: str, ids: Array) -> tuple[np.ndarray, Array]:
        """The ids that are not here, and room for their rows."""
        if name not in self.tables:
            there = ", ".join(self.tables) or "none"
            raise UsageError(f"{self.who}: there is no table {name}; there are {there}.")
        table = self.tables[name]
        missing = table.missing(ids)
        if len(missing) and not 0 <= missing[0] <= missing[-1] < len(table):
            raise UsageError(
                f"{self.who}: the ids for {name} run from {missing[0]} to {missing[-1]}, the table "
                f"has {len(table)} rows."
            )
        return missing, np.empty((len(missing), *table.shape[1:]), table.dtype)

    def _ask(self, clock: int, into: Mapping[str, Array], rows: pulls.Rows) -> pulls.Pull:
        return pulls.ask(self.worker, clock, into, rows)

    def _ask_early(self) -> None:
        """For the next clock, into spare arrays: these are in use."""
        clock = self.worker.clock + (not self.worker.rounds)
        self._pull = self._ask(clock, self._spare, {})

    def _finish(self) -> None:
        """Wait for the pull under way."""
        pull, self._pull = self._pull, None
        assert pull is not None
        pulls.finish(self.worker, pull)
        for name, (ids, rows) in pull.rows.items():
            self.tables[name].keep(ids, rows)
        if pull.into is self._spare:
            self._arrived, self._spare = self._spare, self._arrived
        for name, array in pull.into.items():
            if self.xp is np:
                self.dense[name].data = array
            else:
                self.dense[name].data[...] = self.xp.asarray(array)

    def _fetch(self, name: str, ids: np.ndarray) -> Array:
        """Rows of a table, now."""
        wanted = self._wanted(name, ids)
        pull = self._ask(self.worker.clock, {}, {name: wanted})
        pulls.finish(self.worker, pull)
        return wanted[1]

    # -- everything -----------------------------------------------------------------------------

    @contextmanager
    def whole(self) -> Iterator[Module]:
        """The model with the servers' latest weights (collective, if they are changed inside).

        Tables stay remote: rows come as they are picked, `copy()` gets all of one. Dense weights
        that were changed inside go to the servers, if all workers changed them alike.
        """
        self._drop_early()
        self._pull = self._ask(self.worker.clock, self._arrived, {})
        self._finish()
        for table in self.tables.values():
            table.forget()
        before = self._sums()
        yield self.model
        after = self._sums()
        changed = {n: x.data for n, x in self.dense.items() if before[n] != after[n]}
        if changed:
            self._set(changed)

    @contextmanager
    def held(self) -> Iterator[list[Held]]:
        """Copies of everything, as it is on the servers: to be read, not to be changed."""
        with self.whole() as model:
            weights = {f"model/{name}": x for name, x in model.state_dict().items()}
        state = {f"optimizer/{name}": x for name, x in self.state_dict().items()}
        yield [Held(name, x, x.shape) for name, x in (weights | state).items()]

    def state_dict(self) -> dict[str, Array]:
        """The complete state of the optimizers of all servers."""
        self._drop_early()
        return pull_state(self.worker, self.optimizer.slots, self.trained)

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        """Collective. Take over what `state_dict` gave, in any layout."""
        self._drop_early()
        if self.roles.worker == 0:
            load_state(self.worker, self.optimizer.slots, self.trained, flat)
        self._meet()

    def sync_buffers(self) -> None:
        """Give all workers worker 0's tensors that are not trained, such as moments; collective."""
        assert self.roles.workers is not None
        for x in self.model.parameters():
            if not x.requires_grad:
                x.data[...] = self.roles.workers.broadcast(x.data)

    def close(self) -> None:
        """Say goodbye: the servers go on without this worker."""
        self._drop_early()
        self.worker.goodbye()

    def __enter__(self) -> ParameterServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def _drop_early(self) -> None:
        """Have the pull that was asked for early, so that nothing is under way."""
        if self._pull is not None:
            self._finish()

    def _sums(self) -> dict[str, int]:
        """A checksum of each dense parameter here."""
        raw = {n: np.ascontiguousarray(to_numpy(x.data)).reshape(-1) for n, x in self.dense.items()}
        return {name: zlib.crc32(array.view(np.uint8).data) for name, array in raw.items()}

    def _put(self, name: str, value: Array) -> None:
        """Replace a table.  Collective."""
        self._set({name: RowGradient(np.arange(len(value)), value, value.shape)})

    def _set(self, new: Mapping[str, Any]) -> None:
        """Replace weights on the servers, by worker 0's.  Collective."""
        if self.roles.worker == 0:
            new = {name: pulls.in_host_memory(value) for name, value in new.items()}
            values = pulls.shared_out(self.worker.lines, new)
            take(
                [
                    line.ask(
                        Head(wire.SET),
                        counts_of(line.shard, own),
                        messages_of(line.shard, own),
                    )
                    for line, own in zip(self.worker.lines, values)
                ]
            )
        self._meet()

    def _meet(self) -> None:
        if self.roles.workers is not None:
            self.roles.workers.barrier()
