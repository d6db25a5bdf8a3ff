"""Which gradient lies where: many small ones in few flat buckets, which are sent as one array each.

    parameters    a [2, 3]   b [3]   c [3, 4]   d [4]              in the order of the model

    bucket 0      ┌ d ──┬ c ──────────────────┐                    backward reaches d and c first
    bucket 1      ┌ b ──┬ a ────────┐

A message costs its latency α however small it is. A model has hundreds of gradients, most of them
small: together they cost one α per bucket. The buckets are filled from the last parameter to the
first, for in backward the gradients become final about in that order: bucket 0 is full first.

This file is arithmetic. Nothing is allocated or sent here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from minipar.tensor import Tensor

MB = 2**20


class Place(NamedTuple):
    """Elements start .. stop of bucket `bucket`."""

    bucket: int
    start: int
    stop: int


class Layout(NamedTuple):
    """places[i] is where parameter i lies; buckets[k] is (elements, dtype) of bucket k."""

    places: Sequence[Place]
    buckets: Sequence[tuple[int, Any]]

    def of_bucket(self, k: int) -> list[int]:
        """The parameters in bucket k."""
        return [i for i, place in enumerate(self.places) if place.bucket == k]


def lay_out(parameters: Iterable[Tensor], bucket_bytes: float) -> Layout:
    """A place for each parameter's gradient, from the last parameter to the first.

    A bucket ends before it would get larger than bucket_bytes, and where the dtype changes; a
    gradient that is larger has a bucket of its own.
    """
    parameters = list(parameters)
    places: list[Place] = []
    buckets: list[tuple[int, Any]] = []
    for x in reversed(parameters):
        n, dtype = x.data.size, x.dtype
        filled, of = buckets[-1] if buckets else (0, dtype)
        if not buckets or of != dtype or (filled + n) * dtype.itemsize > bucket_bytes:
            filled = 0
            buckets.append((0, dtype))
        places.append(Place(len(buckets) - 1, filled, filled + n))
        buckets[-1] = (filled + n, dtype)
    return Layout(places[::-1], buckets)
