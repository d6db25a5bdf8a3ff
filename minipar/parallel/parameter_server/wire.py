r"""The messages between workers and servers: a head of integers, then plain arrays.

    worker                                                    server
    HELLO  checksum of the keys, last acknowledged push  ->
                                                         <-   rule, pushes lost
    PULL   rows wanted of each table │ ids ...           ->
                                                         <-   versions │ bundles ... │ rows ...
    PUSH   rows given of each key │ bundles ... │ ids, rows ...  ->           (is only laid aside)
    NORM                                                 ->
                                                         <-   squared norm of the round's mean
    STEP   number of the push, lr, factor                ->           (now it counts)
    BYE                                                  ->
                                                         <-   once all its pushes are applied

Whatever has an answer has exactly one, and a worker's answers come in the order in which it asked.
So a receiver knows what comes next, and large arrays are received where they belong. That a push
was refused is the answer to what its worker asks next; that it counts stands in all answers.

A head is int64 [HEAD + tail]: the fields of `Head`, floats by their bits, then one number for each
key or table (or a text, one byte each). Nothing is pickled, and nothing that comes is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from minipar.array import Array
from minipar.errors import CommError, Diverged, MiniparError, PeerLost, ShapeMismatch, UsageError

HELLO, PULL, ROWS, PUSH, NORM, STEP, SET, STATE, LOAD, BYE, ANSWER, REFUSED = range(12)
KINDS = (
    "HELLO", "PULL", "ROWS", "PUSH", "NORM", "STEP", "SET", "STATE", "LOAD", "BYE", "ANSWER",
    "REFUSED",
)  # fmt: skip


class Head(NamedTuple):
    """What a message says about itself; each kind uses some of it."""

    kind: int
    clock: int = 0  # PULL: for which clock; PUSH, STEP: of which
    number: int = 0  # of a worker's push: 1, 2, 3, ...
    version: int = 0  # how many updates the server has made; PUSH: when its weights were pulled
    messages: int = 0  # so many arrays follow
    expected: int = 0  # so many arrays are to follow the answer
    code: int = 0  # how dense arrays are written, see `payload`; REFUSED: which of ERRORS
    steps: int = 0  # of the optimizer, with its state
    finite: int = 0  # PUSH: its worker has looked, and there is no NaN in it
    rows: float = 0.0  # that a push is the mean of
    lr: float = 0.0
    factor: float = 1.0  # by which the gradient is shrunk


NEW = -1  # as the clock of a HELLO: I have none
INTEGERS = 9
HEAD = len(Head._fields)


def pack_head(head: Head, tail: Iterable[int] = ()) -> np.ndarray:
    """int64 [HEAD + len(tail)]"""
    tail = list(tail)
    array = np.empty(HEAD + len(tail), np.int64)
    array[:INTEGERS] = head[:INTEGERS]
    array[INTEGERS:HEAD].view(np.float64)[:] = head[INTEGERS:]
    array[HEAD:] = tail
    return array


def unpack_head(array: Array) -> tuple[Head, list[int]]:
    """The head and its tail.  Raises: CommError if that is none."""
    if array.dtype != np.int64 or array.ndim != 1 or len(array) < HEAD:
        raise CommError(f"that is no head of a message of the parameter server: {array!r:.60}")
    floats = array[INTEGERS:HEAD].view(np.float64).tolist()
    head = Head(*array[:INTEGERS].tolist(), *floats)
    if not 0 <= head.kind < len(KINDS):
        raise CommError(f"the parameter server has no message of kind {head.kind}")
    return head, array[HEAD:].tolist()


def text_tail(text: str) -> list[int]:
    return list(text.encode())


def tail_text(tail: Sequence[int]) -> str:
    return bytes(tail).decode()


# The errors that a refusal may be: what is raised at the server is raised at the worker.
ERRORS = (UsageError, ShapeMismatch, Diverged, PeerLost, CommError)


def misfit(seen: str, expected: str) -> NoReturn:
    """Raises: UsageError."""
    raise UsageError(f"the message has {seen}, expected {expected}.")


def error_number(error: MiniparError) -> int:
    return next((i for i, kind in enumerate(ERRORS) if isinstance(error, kind)), len(ERRORS) - 1)
