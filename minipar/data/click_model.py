"""Clicks from a known model, so that the best loss which any model can reach is known too.

    p(click) = sigmoid(bias + w·x + a weight for the id in each field + one for a pair of ids)

x is normal. The ids are long-tailed: id k is about as likely as 1/k, so a few of a field's ids make
up half of the rows, and most are met rarely. The pair is the ids of the first two fields together:
what only a cross feature, or the hidden layers of a network, can learn.

Row i is a pure function of (seed, i), and the weights of seed alone: any part of the endless table
can be had, by any rank, in any order.

Letters: n rows, k numbers and f ids in a row, s a standard deviation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minipar.random import normal, words

NUMBERS = 8
TABLES = (10, 50, 1000, 10_000, 100_000)  # how many ids each field has
SPREAD = (0.7, 0.7, 0.4, 0.2, 0.2)  # of their weights: what is met rarely tells little
PAIR = TABLES[:2]
BIAS = -1.2


class Rows(NamedTuple):
    dense: np.ndarray  # float32 [n, k]
    ids: np.ndarray  # int64 [n, f]
    click: np.ndarray  # float32 [n], 0 or 1
    p: np.ndarray  # float64 [n]: the true probability of a click


class ClickModel:
    """The weights, drawn once from a seed.  Keeps 1 MB."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.numbers = 0.35 * normal(seed, "clicks.numbers", (NUMBERS,))
        self.fields = [s * normal(seed, f"clicks.{n}", (n,)) for s, n in zip(SPREAD, TABLES)]
        self.pair = 0.6 * normal(seed, "clicks.pair", PAIR)

    def rows(self, start: int, n: int) -> Rows:
        """Rows start .. start+n of the table.  Cost: 1 µs a row."""
        k, f = NUMBERS, len(TABLES)
        each = 16  # numbers for a row: k for the normal ones, f for the ids, one for the click
        drawn = words(self.seed, "clicks.rows", 0, start * each, n * each)
        u = ((drawn >> np.uint64(11)) * 2.0**-53).reshape(n, each)
        radius, angle = np.sqrt(-2 * np.log1p(-u[:, : k // 2])), 2 * np.pi * u[:, k // 2 : k]
        dense = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        sizes = np.array(TABLES)
        ids = ((sizes + 1.0) ** u[:, k : k + f]).astype(np.int64) - 1  # log-uniform, so like 1/k
        ids = np.minimum(ids, sizes - 1)  # should the power be rounded up
        logit = BIAS + (dense * self.numbers).sum(axis=1)  # not @: its bits depend on n
        logit += self.pair[ids[:, 0], ids[:, 1]]
        for field, weights in enumerate(self.fields):
            logit += weights[ids[:, field]]
        p = 1 / (1 + np.exp(-logit))
        return Rows(dense.astype(np.float32), ids, (u[:, k + f] < p).astype(np.float32), p)


def entropy(p: np.ndarray) -> float:
    """The mean loss, in nats, of a model that knows each p: nobody's is lower, in expectation."""
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())
