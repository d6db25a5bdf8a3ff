"""Ranks with unequal numbers of batches: who has none left takes part with zero rows.

    rank 0:  | 8 rows | 8 rows | 8 rows | 8 rows |
    rank 1:  | 8 rows | 8 rows | 5 rows |  None  |        one step more, with nothing of its own

The reductions of a step need all ranks. A rank that stopped earlier would leave the others waiting;
a rank that dropped what it has more than the others would train on less than there is. With a share
of 0 (shares.py) it does neither, and the result is that of one rank with all the rows.

    for batch in joined(batches, group):
        parallel.zero_grad()
        if batch is not None:
            loss(batch).backward()
        parallel.sync_gradients(rows=0 if batch is None else len(batch))
        parallel.step()

An iterator, and no context around the loop that answers calls in the rank's absence: here one can
see that the rank goes on making each step, which is what keeps its replica the same.

Synchronised batch norm does not go with it: who has no batch makes no forward pass, and its ranks
would not meet. That ends in an error that names both calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

from minipar.comm.group import Group

Batch = TypeVar("Batch")


def joined(batches: Iterable[Batch], group: Group) -> Iterator[Batch | None]:
    """This rank's batches, and then None until all ranks are through; collective at each step.

    Cost of a step: an all_reduce of one byte.
    """
    mine = iter(batches)
    while True:
        batch = next(mine, None)
        if not group.all_reduce(np.array(batch is not None), op="max"):
            return
        yield batch
