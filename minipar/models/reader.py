"""Writing with a cache: the prompt is read once, then each token, and nothing is read again.

    read   d e f _      one pass over the prompt     logits of what comes next  ->  m
    read           m    one row                      logits                     ->  a
    read             a  one row                      logits                     ->  i

The positions of GPT are learnt for the places 0 .. block - 1 of a window. When the window is full
its beginning has to go, all others move to other places, and nothing of what is remembered holds
any more. So half of it goes at once: the rest is read again, and there is room for a while.

    block 8    a b c d e f g h │ i         a .. h is full
                       e f g h   i _ _ _   e .. i is read again, at the places 0 .. 4

In the long run this reads two rows for each token, where without a cache it is a whole window.

Letters: b batch items, t new positions, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from minipar.array import Array, to_numpy
from minipar.models.generate import chance, check_writing, choose
from minipar.models.gpt import GPT
from minipar.tensor import Tensor, no_grad

Pick = Callable[[np.ndarray], int]  # float64 logits [vocab] -> a token


class Reads(Protocol):
    """What `write` needs: one rank (`Reader`), or one of many (parallel/generation.py)."""

    block: int

    def forget(self) -> None:
        """Begin a new text."""

    def next(self, ids: Array, pick: Pick) -> int:
        """Read t more tokens [1, t]; the one that pick takes to come next."""


class Reader:
    """Pieces first .. last of a GPT, all by default, and what they remember of a text."""

    def __init__(self, model: GPT, first: int = 0, last: int | None = None, b: int = 1) -> None:
        """b: texts of one length that are read side by side."""
        self.model, self.block = model, model.block
        end = len(model.blocks) + 2  # of the pieces: embedding, blocks, head
        self.pieces = range(first, end if last is None else last)
        self.past = {
            n: model.blocks[n - 1].attention.memory(b, model.block)
            for n in self.pieces
            if 0 < n < end - 1
        }
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Of all caches."""
        return sum(past.nbytes for past in self.past.values())

    def forget(self) -> None:
        self.length = 0
        for past in self.past.values():
            past.forget()

    def read(self, x: Any) -> Tensor:
        """What the pieces make of t more positions, knowing those before.

        x:  ids [b, t], or what the piece before has made of them [b, t, d].
        Returns: [b, t, d], or behind the head the logits of the last of them [b, 1, vocab].
        Cost: t rows through each matrix, and t·(all positions so far) scores in each head.
        """
        first, self.length = self.length, self.length + x.shape[1]
        with no_grad():
            for n in self.pieces:
                if n == 0:
                    x = self.model.embed_from(x, first)
                elif n in self.past:
                    x = self.model.blocks[n - 1].extend(x, self.past[n])
                else:
                    x = self.model.logits(x[:, -1:])
        return x

    def next(self, ids: Array, pick: Pick) -> int:
        return pick(last_row(self.read(ids)))


def last_row(logits: Tensor) -> np.ndarray:
    """[1, 1, vocab] -> float64 [vocab], in host memory."""
    return to_numpy(logits.data)[0, -1].astype(np.float64)


def write(
    reader: Reads,
    prompt: Sequence[int],
    count: int,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Iterator[int]:
    """`count` tokens after the prompt (bytes will do), each as soon as it is there.

    As long as the text fits the block they are those of `generate`; beyond, see `window`.
    """
    check_writing(prompt, temperature, top_k)
    text, begin, done = list(prompt), -1, 0
    for _ in range(count):
        if window(len(text), reader.block) != begin:
            reader.forget()
            begin = done = window(len(text), reader.block)
        u = chance(seed, len(text))
        token = reader.next(
            np.array([text[done:]]), partial(choose, u=u, temperature=temperature, top_k=top_k)
        )
        done = len(text)
        text.append(token)
        yield token


def window(n: int, block: int) -> int:
    """Where the part of a text begins from which token n is predicted: 0, if n <= block."""
    half = max(1, block // 2)
    return -(-max(0, n - block) // half) * half
