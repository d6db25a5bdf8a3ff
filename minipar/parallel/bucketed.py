"""Data parallel in buckets: one all_reduce for many gradients.

    bucket, flat     [ d · | c · · · · · · · | b · · · ]      all_reduce, in place
                       │     │                 │
    d.grad, c.grad, b.grad are views into it, so nothing is packed before and unpacked after

The bucket lies in memory that the transport reaches directly (`group.empty`), so on processes of
one host each rank adds up straight out of the others' buckets, without a copy in between.

When a gradient is final, it is moved to its place in the bucket, and .grad becomes the view. From
then on the engine adds to it in place, so gradients can be accumulated over several backwards.

Sparse gradients stay out: a table that is large and touched in a few rows is sent as rows.

What the ranks have to tell each other (ballot.py) comes with the last bucket, so a rank multiplies
by its share before it knows how many rows the others have. It takes them to be as many in all as in
the step before; where they are not, the sum is corrected.

Left out on purpose: sending while backward still runs, which is overlapped.py.
Cost per step: 2(p-1) messages for each bucket; 2(p-1)/p of the gradient bytes out of each rank, and
of some bytes for each rank and parameter; a copy of the gradients into the buckets.
Paper: Li et al. 2020, section 3.2.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.nn import Embedding, Module
from minipar.parallel.ballot import Ballot, with_room
from minipar.parallel.buckets import MB, lay_out
from minipar.parallel.data import reduce_each
from minipar.parallel.replicas import Replicas
from minipar.parallel.shares import dense_gradient, exchange
from minipar.parallel.strategy import MakeOptimizer
from minipar.spans import hold
from minipar.tensor import Tensor

BUCKET_BYTES = 8 * MB


class BucketedDataParallel(Replicas):
    """One all_reduce for each bucket, when backward is over."""

    def __init__(
        self,
        model: Module,
        group: Group,
        make_optimizer: MakeOptimizer | None = None,
        *,
        bucket_bytes: float = BUCKET_BYTES,
        check_every: int = 0,
    ) -> None:
        """As `Replicas`; bucket_bytes: a bucket ends before it would get larger than this."""
        super().__init__(model, group, make_optimizer, check_every=check_every)
        tables = {id(m.weight) for m in model.modules() if isinstance(m, Embedding) and m.sparse}
        self.sparse = [(n, x) for n, x in self.trained if id(x) in tables]
        self.dense = [(n, x) for n, x in self.trained if id(x) not in tables]
        layout = lay_out([x for _, x in self.dense], bucket_bytes)
        self.layout, (k, start, stop) = with_room(layout, group.size + len(self.dense))
        self.buckets = [self._room(n, dtype) for n, dtype in self.layout.buckets]
        hold("gradients", self.buckets)
        self.gradients = [*self.buckets[:k], self.buckets[k][:start]]  # without the ballot
        self.ballot = Ballot(self.buckets[k][start:stop], self.dense, group)
        self.views: dict[int, Array] = {}
        self.final: set[int] = set()  # the gradients that this step has found, by id(x)
        for (_, x), (k, start, stop) in zip(self.dense, self.layout.places):
            self.views[id(x)] = self.buckets[k][start:stop].reshape(x.shape)
            x.when_final(self._when_final)

    def _room(self, n: int, dtype: Any) -> Array:
        """A bucket: where the gradients are, for group.empty is in host memory."""
        xp = array_module(*[x.data for _, x in self.trained])
        return self.group.empty(n, dtype) if xp is np else xp.empty(n, dtype)

    def zero_grad(self) -> None:
        super().zero_grad()
        self.final.clear()

    def _when_final(self, x: Tensor) -> None:
        self.final.add(id(x))
        self._put_in_place(x)

    def _put_in_place(self, x: Tensor) -> None:
        """Make the gradient of x the view of its place; zeros if it has none."""
        view = self.views[id(x)]
        if x.grad is not None and x.grad is not view:
            self.final.add(id(x))
        if x.grad is not view:
            view[...] = dense_gradient(x)
            x.grad = view

    def _reduce(self, rows: float) -> None:
        for _, x in self.dense:
            self._put_in_place(x)
        supposed = self.ballot.rows or self._ask(rows)
        self._fill_ballot(rows)
        for bucket, gradients in zip(self.buckets, self.gradients):
            gradients *= rows / supposed
            self.group.all_reduce(bucket, out=bucket)
        shares = self.ballot.count()
        if self.ballot.rows != supposed:
            for gradients in self.gradients:
                gradients *= supposed / self.ballot.rows
        self._reduce_sparse(rows, float(shares[self.group.rank]))

    def _ask(self, rows: float) -> float:
        """How many rows there are in all, in the first step."""
        return float(self.group.all_reduce(np.array(rows, np.float64))) or 1.0

    def _fill_ballot(self, rows: float) -> None:
        self.ballot.fill(rows, [id(x) in self.final for _, x in self.dense])
        self.final.clear()  # a view that nothing is added to before the next step is no gradient

    def _reduce_sparse(self, rows: float, share: float) -> None:
        """The naive way for what lies in no bucket."""
        if self.sparse:
            dense = exchange(self.sparse, rows, self.group).dense
            reduce_each(zip((x for _, x in self.sparse), dense), share, self.group)
