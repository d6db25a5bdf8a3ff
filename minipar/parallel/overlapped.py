"""Data parallel that sends while it computes: a bucket goes as soon as its last gradient is final.

    own thread       forward   backward d  backward c | backward b  backward a |  wait   step
    second thread                                     [ all_reduce (d, c)      ][ (b, a) ]

Backward finds the gradients of the last layers first, and does not need them any more. So their
all_reduce can begin while it works on the layers before; only what is sent after the last gradient
is waited for. With L seconds of backward and C of communication a step loses max(0, C - L) and the
last bucket's time, instead of C. That takes somebody who can send while the rank computes: a
network card, or a core that has nothing else to do.

All ranks must reduce the same buckets in the same order, but may find their gradients in another
one, or never find some. So a bucket that is full waits until those before it have gone, and what is
not full at the end of backward goes in sync_gradients. So does the last bucket: it is full when
backward is over, and the rank's own thread, which has nothing else to do then, is the faster one.

A rank's share of the rows must be known before the first bucket goes: `announce(rows)` before
backward says it. Without it, all ranks are taken to have equally many; if sync_gradients then hears
otherwise it is an error, for what has been added up cannot be weighted any more.

A model that is a part of another one may say in `late`, by name, which of its gradients somebody
will add to after backward (a weight that stages of a pipeline share): the buckets from there on go
in sync_gradients.

Left out on purpose: other collectives in backward, unless all ranks meet them between the same two
buckets, as they do if all go through the same graph (synchronised batch norm does).
Cost: as bucketed.py.  Paper: Li et al. 2020, section 3.2.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minipar.comm.asynchronous import Handle
from minipar.errors import UsageError
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.tensor import Tensor


class OverlappedDataParallel(BucketedDataParallel):
    """One all_reduce for each bucket, during backward."""

    sends_once = True  # of several backwards in a step, all but the last belong into no_sync

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As BucketedDataParallel."""
        super().__init__(*arguments, **options)
        late = getattr(self.model, "late", ())
        self._late = {id(x) for name, x in self.dense if name in late}
        self._bucket_of = {id(x): at.bucket for (_, x), at in zip(self.dense, self.layout.places)}
        self._shares: np.ndarray | None = None  # [p], if they were announced
        self._rows = 0.0  # of this rank, for the last bucket
        self._only_add = False
        self._begin_step()

    def _begin_step(self) -> None:
        self._missing = [set(map(id, self._parameters_in(k))) for k in range(len(self.buckets))]
        self._handles: list[Any] = []  # of the buckets that have gone: the first ones

    def _parameters_in(self, k: int) -> list[Tensor]:
        return [self.dense[i][1] for i in self.layout.of_bucket(k)]

    def announce(self, rows: float) -> None:
        """Say how many rows the coming backwards of this rank are over, up to sync_gradients.

        Collective.  Cost: an all_gather of 8 bytes.
        """
        rows_of = self.group.all_gather(np.array(rows, np.float64))
        self._shares = rows_of / rows_of.sum()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward inside only adds up; the last one of a step, outside, sends."""
        self._only_add = True
        try:
            yield
        finally:
            self._only_add = False

    def zero_grad(self) -> None:
        self._wait()  # a step that was given up after backward: the others wait for us
        super().zero_grad()

    def _when_final(self, x: Tensor) -> None:
        k = self._bucket_of[id(x)]
        if k < len(self._handles):
            raise UsageError(
                "backward() has found gradients of a bucket that was sent already. With several "
                "backwards in a step, put all but the last into `with parallel.no_sync():`."
            )
        super()._when_final(x)
        if not self._only_add and id(x) not in self._late:
            self._missing[k].discard(id(x))
            last = len(self.buckets) - 1  # which nothing is left to hide: sync_gradients sends it
            while len(self._handles) < last and not self._missing[len(self._handles)]:
                self._send_next(async_op=True)

    def _send_next(self, async_op: bool) -> None:
        k, rank = len(self._handles), self.group.rank
        for x in self._parameters_in(k):
            self._put_in_place(x)
        if k == len(self.buckets) - 1:
            self._fill_ballot(self._rows)
        share = 1 / self.group.size if self._shares is None else float(self._shares[rank])
        self.gradients[k] *= share
        bucket = self.buckets[k]
        self._handles.append(self.group.all_reduce(bucket, out=bucket, async_op=async_op))

    def _reduce(self, rows: float) -> None:
        self._rows = rows
        while len(self._handles) < len(self.buckets):
            self._send_next(async_op=False)
        self._wait()
        shares = self.ballot.count()
        self._check(shares)
        self._reduce_sparse(rows, float(shares[self.group.rank]))

    def _check(self, shares: np.ndarray) -> None:
        """Whether what was sent during backward was weighted as it should have been."""
        announced = self._shares
        self._shares = None
        expected = 1 / self.group.size if announced is None else announced
        if np.abs(shares - expected).max() > 1e-12:
            raise UsageError(
                f"sync_gradients: the ranks have these shares of the rows: {shares.tolist()}, but "
                f"the gradients were sent as if they were {np.ravel(expected).tolist()}. Call "
                "parallel.announce(rows) on all ranks before backward."
            )

    def _wait(self) -> None:
        for handle in self._handles:
            if isinstance(handle, Handle):
                handle.wait()
        self._begin_step()
