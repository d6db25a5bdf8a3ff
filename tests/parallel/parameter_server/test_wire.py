"""Heads of messages are integers, and come back as they went."""

import math

import numpy as np
import pytest

from minipar.errors import CommError, Diverged, PeerLost, ShapeMismatch, UsageError
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.wire import Head


def test_a_head_comes_back():
    head = Head(wire.STEP, 3, 2**40, 5, 6, 7, 8, 9, rows=2.5, lr=1e-300, factor=-math.inf)
    array = wire.pack_head(head, [4, -1])
    assert array.dtype == np.int64
    assert wire.unpack_head(array) == (head, [4, -1])


def test_text_goes_as_bytes():
    assert wire.tail_text(wire.text_tail("ein Fehler: √2 ≠ 1")) == "ein Fehler: √2 ≠ 1"


@pytest.mark.parametrize(
    "array",
    [np.zeros(3, np.int64), np.zeros(20), np.zeros((2, 20), np.int64), np.full(20, 99)],
)
def test_what_is_no_head_is_refused(array):
    with pytest.raises(CommError):
        wire.unpack_head(array)


@pytest.mark.parametrize("kind", [UsageError, ShapeMismatch, Diverged, PeerLost, CommError])
def test_an_error_is_the_same_at_the_other_end(kind):
    assert wire.ERRORS[wire.error_number(kind("x"))] is kind
