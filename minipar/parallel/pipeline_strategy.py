r"""Training the stages of a pipeline: what the training loop asks for.

    pipeline = Pipeline(model, group, loss, "1f1b")
    strategy = PipelineParallel(pipeline, make_optimizer)

    owner of a shared weight    g  +=  g' ◄── send ── g'    another stage that uses it
                                step
                                w  ─────── send ───►  w

A weight that stages share (the token table of GPT, on the first and the last) belongs to the first
of them. The others send it their gradients, it adds them up and makes the step, and they get the
new weight back. So it has its state, its decay, and its part in the norm once.

A stage is trained like a model: by any strategy, over the ranks that hold the equal stages of other
pipelines. What it sends during backward is one of three kinds:

    nothing                        naive, in buckets, stage 1 of ZeRO, compressed, local SGD
    once, in the last backward     overlapped: the backwards before it only add up (`no_sync`)
    in each backward               stages 2 and 3 of ZeRO: what is reduced is added up in slices

With m micro-batches stage 2 so sends m times what stage 1 sends of gradients; stage 3 gathers the
weights of a layer for each forward and each backward. They are for whom memory is short: had stage
2 added up before it sends, each rank would keep all of its stage's gradient over the step, which is
what stage 1 does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from minipar.array import Array, to_numpy
from minipar.comm.frame import dtype_of
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.nn import Module
from minipar.parallel.data import DataParallel
from minipar.parallel.held import Held
from minipar.parallel.pipelined import Pipeline
from minipar.parallel.shares import dense_gradient
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.tensor import Tensor

MakeInner = Callable[[Module, Group, MakeOptimizer], Strategy]


class PipelineParallel:
    """A `Strategy` for the stages of a pipeline, and, with `dp`, for several equal pipelines."""

    def __init__(
        self,
        pipeline: Pipeline,
        make_optimizer: MakeOptimizer,
        dp: Group | None = None,
        inner: MakeInner = DataParallel,
        view: Callable[[Module], Any] | None = None,
    ) -> None:
        """Collective, over the groups of pipeline and dp.

        dp:    the ranks that hold this stage in other pipelines.
        inner: how these share the work.
        view:  what `whole` makes of the model, if inner has each rank hold slices of it.
        """
        self.pipeline, self.group, self._view = pipeline, pipeline.group, view
        if dp is None:
            dp = self.group.split(self.group.rank)
        assert dp is not None
        self.inner = inner(pipeline.stage, dp, make_optimizer)
        if getattr(self.inner, "sends_once", False):
            pipeline.no_sync = self.inner.no_sync
        self.optimizer = self.inner.optimizer
        self._lend()

    def zero_grad(self) -> None:
        self.inner.zero_grad()
        for x in self.pipeline.stage.borrowed.values():
            x.grad = None

    def announce(self, rows: float) -> None:
        self.inner.announce(rows)

    def no_sync(self) -> AbstractContextManager[None]:
        return self.inner.no_sync()

    def sync_gradients(self, rows: float = 1.0) -> None:
        """Add up the gradients of shared weights, then what the inner strategy does."""
        for x, own, others in self._shared(trained=True):
            if self.group.rank != own:
                self.group.send(dense_gradient(x), own)
                continue
            x.grad = dense_gradient(x)
            for other in others:
                x.grad += self.group.recv(other)
        self.inner.sync_gradients(rows)

    def clip(self, max_norm: float) -> float:
        """The norm of the whole model's gradient; each stage shrinks its own by the same factor."""
        own = self.inner.clip(math.inf)
        norm = math.sqrt(float(self.group.all_reduce(np.array(own * own))))
        if norm > max_norm and own > 0:
            self.inner.clip(own * (max_norm / norm))
        return norm

    def step(self) -> None:
        """Each stage changes what it owns; who borrows a weight gets the new one."""
        self.inner.step()
        self._lend()

    @contextmanager
    def whole(self) -> Iterator[Any]:
        with self.inner.whole(), self.pipeline.whole() as model:
            yield model if self._view is None else self._view(model)

    @contextmanager
    def held(self) -> Iterator[list[Held]]:
        """What this stage owns; who borrows weights gets what they have become."""
        with self.inner.held() as held:
            yield held
        self._lend()

    def state_dict(self) -> dict[str, Array]:
        return union(self.inner.state_dict(), self.group)

    def load_state_dict(self, flat: Mapping[str, Any]) -> None:
        """Raises: UsageError if a name is no parameter's; and as the inner strategy."""
        users, owned = self.pipeline.stage.users, self.pipeline.stage.owned
        of = {key: key.rpartition("/")[0] for key in flat if "/" in key}
        unknown = sorted(key for key, name in of.items() if name not in users)
        if unknown:
            raise UsageError(f"optimizer state: {unknown[0]} is of no parameter of this model.")
        self.inner.load_state_dict({k: a for k, a in flat.items() if of.get(k, k) in (k, *owned)})

    def _shared(self, trained: bool = False) -> Iterator[tuple[Tensor, int, list[int]]]:
        """Of each weight that this rank shares: itself, its owner, and the other stages."""
        stage = self.pipeline.stage
        for name, (own, *others) in stage.users.items():
            if others and self.group.rank in (own, *others):
                x = (stage.owned | stage.borrowed)[name]
                if x.requires_grad or not trained:
                    yield x, own, others

    def _lend(self) -> None:
        for x, own, others in self._shared():
            if self.group.rank != own:
                self.group.recv(own, out=x.data)
                continue
            for sending in [self.group.isend(x.data, other) for other in others]:
                sending.wait()


def union(state: Mapping[str, Array], group: Group) -> dict[str, Array]:
    """The arrays that all ranks have together, by name, in the host memory of each.  Collective.

    Of what several ranks have under one name, the last one's counts.
    """
    found: dict[str, Array] = {}
    state = {name: to_numpy(array) for name, array in state.items()}
    text = json.dumps([[name, a.dtype.name, a.shape] for name, a in state.items()]).encode()
    raw = np.frombuffer(text, np.uint8)
    for root in range(group.size):
        length = int(group.broadcast(np.array(len(raw)), root))
        forms = json.loads(group.broadcast(np.resize(raw, length), root).tobytes())
        for name, dtype, shape in forms:
            mine = group.rank == root
            array = state[name] if mine else np.empty(shape, dtype_of(dtype))
            found[name] = group.broadcast(array, root)
    return found
