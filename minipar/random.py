"""Random numbers that belong to things and not to ranks.

Philox4x64-10 (Salmon et al. 2011) turns a key and a counter into 256 random bits. There is no
state: who knows the key (a hash of the seed and a name) and the counter (a step and a position)
has the number, on any rank, in any order, after any restart.

    key     = blake2b(seed, name)                        which thing
    counter = [block, 0, step, 0], 4 words of 64 bits    which step, which element

So the initial value of a weight depends on its name alone, and the dropout mask of global batch row
7 is the same whichever rank holds that row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.errors import UsageError


def key(seed: int, name: str) -> np.ndarray:
    """The key of Philox that belongs to a thing, uint64 [2]."""
    digest = blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8")


def words(seed: int, name: str, step: int, start: int, count: int) -> np.ndarray:
    """Random uint64 number start .. start+count of the stream (seed, name, step)."""
    first = start // 4
    counter = np.array([first, 0, step, 0], dtype=np.uint64)
    philox = np.random.Philox(key=key(seed, name), counter=counter)
    return philox.random_raw(count + start - 4 * first)[start - 4 * first :]


def bits(seed: int, name: str, step: int, start: int, count: int) -> np.ndarray:
    """Random uint32 number start .. start+count of the stream; each word gives two, low first."""
    first, last = start // 2, -(-(start + count) // 2)
    halves = words(seed, name, step, first, last - first).astype("<u8", copy=False).view("<u4")
    return halves[start - 2 * first :][:count]


def uniform(seed: int, name: str, shape: tuple[int, ...], step: int = 0) -> np.ndarray:
    """float64 in [0, 1): the upper 53 bits of one word each."""
    u = (words(seed, name, step, 0, math.prod(shape)) >> np.uint64(11)) * 2.0**-53
    return u.reshape(shape)


def normal(seed: int, name: str, shape: tuple[int, ...], step: int = 0) -> np.ndarray:
    """float64, mean 0, variance 1 (Box & Muller 1958, two numbers from two words)."""
    n = math.prod(shape)
    u = uniform(seed, name, (2 * -(-n // 2),), step)
    radius = np.sqrt(-2 * np.log1p(-u[0::2]))  # 1 - u is never 0
    angle = 2 * np.pi * u[1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:n].reshape(shape)


def permutation(seed: int, name: str, n: int, step: int = 0) -> np.ndarray:
    """The numbers 0 .. n-1 in random order: the order that sorts n random words."""
    return np.argsort(words(seed, name, step, 0, n), kind="stable")


@dataclass(frozen=True)
class Init:
    """Draws initial weights; `init / "up"` is the same for the part of a model called up.

    Each array is a pure function of (seed, full name), drawn in full: a layer that keeps a slice
    keeps that slice of the one model that all layouts share. The numbers are drawn on the host
    whatever xp is; with xp=cupy the arrays are sent to the GPU, and the model is there.
    """

    seed: int = 0
    dtype: Any = np.float32
    path: str = ""
    xp: Any = np  # the array module, numpy or cupy

    def __truediv__(self, part: str | int) -> Init:
        return replace(self, path=self.name(str(part)))

    def name(self, parameter: str) -> str:
        """The full name, e.g. blocks.0.mlp.up.weight."""
        return f"{self.path}.{parameter}" if self.path else parameter

    def normal(self, parameter: str, shape: tuple[int, ...], std: float) -> Array:
        drawn = std * normal(self.seed, self.name(parameter), shape)
        return self.xp.asarray(drawn.astype(self.dtype))

    def zeros(self, parameter: str, shape: tuple[int, ...]) -> Array:
        return self.xp.zeros(shape, self.dtype)

    def ones(self, parameter: str, shape: tuple[int, ...]) -> Array:
        return self.xp.ones(shape, self.dtype)


@dataclass(frozen=True)
class Draw:
    """What a model called for training needs to know about chance.

    rows: where the rows of this batch stand in the global batch of this step. A rank, or a
    micro-batch, that holds rows 8..16 passes range(8, 16).
    """

    seed: int
    step: int
    rows: range

    def __post_init__(self) -> None:
        if self.rows.step != 1:
            raise UsageError(f"Draw needs consecutive rows, not {self.rows}.")

    def keep(self, name: str, shape: tuple[int, ...], p: float) -> np.ndarray:
        """A mask for a layer's output: False with probability p.  shape: [rows, ...].

        Element j of global row i is number i·n + j of the stream (seed, step, name), n elements a
        row, 32 bits each.
        """
        start = self.start(name, shape)
        drawn = bits(self.seed, name, self.step, start, math.prod(shape))
        return (drawn >= threshold(p)).reshape(shape)

    def start(self, name: str, shape: tuple[int, ...]) -> int:
        """The number, in the stream, of the first element of a layer's output."""
        self._check(name, shape)
        return self.rows.start * math.prod(shape[1:])

    def keep_part(
        self, name: str, shape: tuple[int, ...], p: float, part: int, parts: int
    ) -> np.ndarray:
        """Part number `part` of so many equal ones, along the second axis, of what `keep` gives.

        shape: of this part, [rows, positions, ...]. No other numbers are drawn.
        """
        self._check(name, shape)
        n = math.prod(shape[1:])
        firsts = ((row * parts + part) * n for row in self.rows)
        drawn = [bits(self.seed, name, self.step, first, n) for first in firsts]
        return (np.stack(drawn) >= threshold(p)).reshape(shape)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if shape[0] != len(self.rows):
            raise UsageError(
                f"dropout {name}: the batch has {shape[0]} rows, Draw was made for {self.rows}. "
                "Pass the range of this rank's (or micro-batch's) rows in the global batch."
            )


def threshold(p: float) -> np.uint32:
    """A random uint32 is below it with probability p."""
    return np.uint32(min(p * 2.0**32, 2.0**32 - 1))
