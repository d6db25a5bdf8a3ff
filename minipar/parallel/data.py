r"""Data parallel, the naive form: every rank has the whole model and a part of the batch.

    rank 0:  rows 0..7   forward  backward  \                 / optimizer step
                                              mean gradient                       the same weights
    rank 1:  rows 8..15  forward  backward  /                 \ optimizer step

The loss of a rank is a mean over its rows. The gradient of the mean over all rows is the sum of the
ranks' gradients, each multiplied by its share of the rows (shares.py). So after the same optimizer
step the replicas still agree, to the last bit, because all_reduce gives all of them the same bits.

Left out on purpose: buckets (bucketed.py), and overlap with backward (overlapped.py).
Cost per step: one all_reduce per parameter: 2(p-1) messages each, and 2(p-1)/p of the gradient
bytes out of each rank in all.  Paper: Li et al. 2020, section 3.2.1.
"""

from __future__ import annotations

from collections.abc import Iterable

from minipar.comm.group import Group
from minipar.parallel.replicas import Replicas
from minipar.parallel.shares import dense_gradient, exchange, row_gradient, sum_of_rows
from minipar.tensor import Tensor


class DataParallel(Replicas):
    """One all_reduce for each gradient, when backward is over."""

    def _reduce(self, rows: float) -> None:
        shares, dense = exchange(self.trained, rows, self.group)
        pairs = zip((x for _, x in self.trained), dense)
        reduce_each(pairs, float(shares[self.group.rank]), self.group)


def reduce_each(pairs: Iterable[tuple[Tensor, bool]], share: float, group: Group) -> None:
    """Replace each gradient by Σ share · gradient over the ranks.

    pairs: a parameter, and whether its sum is dense, or only some rows of a large table.
    """
    for x, is_dense in pairs:
        if is_dense:
            x.grad = g = dense_gradient(x)
            g *= share
            group.all_reduce(g, out=g)
        else:
            rows = row_gradient(x)
            rows *= share
            x.grad = sum_of_rows(rows, group)
