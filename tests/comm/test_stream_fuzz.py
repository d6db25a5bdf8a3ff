"""Streams that are no streams of messages: an error that names the rank, and no memory taken."""

import random
import struct
import tracemalloc

import numpy as np
import pytest

from minipar.comm.frame import HEADER_BYTES, MAGIC, NUMBERS, TEXTS, Call, header_for, pack
from minipar.comm.mailbox import Mailbox
from minipar.comm.streams import Incoming, memory_bytes
from minipar.errors import CommError

CALL = Call(0, 0, "send", "", "here:1")
KEPT = 1 << 20  # more than all honest messages of this test together


class Bytes:
    """A reader of given bytes, in pieces of any size."""

    def __init__(self, raw, dice):
        self._raw, self._dice = memoryview(raw), dice

    def read_some(self, target):
        n = min(len(target), len(self._raw), self._dice.randrange(1, 400))
        target[:n] = self._raw[:n]
        self._raw = self._raw[n:]
        return n

    def readable(self):
        return bool(self._raw)


def frame(array):
    return pack(header_for(CALL, array)) + array.tobytes()


def announcing(shape, dtype=b"float64", nbytes=None, place=0):
    shape = tuple(shape)
    product = 8
    for n in shape:
        product *= n
    padded = shape + (0,) * (8 - len(shape))
    size = product if nbytes is None else nbytes
    numbers = NUMBERS.pack(MAGIC, 0, 0, size, place, len(shape), False, *padded)
    return numbers + TEXTS.pack(b"send", dtype, b"", b"here:1")


def refuse(src, header, into):
    """What a rank says to one of another host that points into memory."""
    raise CommError(f"rank {src} points to memory that this rank cannot reach")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"GET / HTTP/1.1\r\n" + b"x" * HEADER_BYTES, "rank 3 sent what is no message"),
        (announcing((2**57,)), "rank 3 announces .* for which there is no room"),
        (announcing((memory_bytes() // 8 + 1,)), "rank 3 announces .* this machine has"),
        (announcing((2**62, 0)), "rank 3 announces .* for which there is no room"),
        (announcing((4,), nbytes=31), "rank 3 sent what is no message: a header announces 31"),
        (announcing((4,), place=7), "rank 3 points to memory"),
        (announcing((4,), dtype=b"object"), "rank 3 sent what is no message"),
    ],
)
def test_the_error_names_the_rank_and_comes_again(raw, says):
    incoming = Incoming(3, Bytes(raw, random.Random(0)), Mailbox(), refuse)
    for _ in range(2):
        with pytest.raises(CommError, match=says):
            while incoming.readable():
                incoming.pull()
            incoming.pull()


def test_fuzz_ends_in_messages_or_in_our_error_and_takes_little_memory():
    """Random, truncated, and mutated streams; the seed makes them the same each time."""
    dice = random.Random(0)
    valid = [frame(x) for x in (np.arange(9.0), np.zeros((0, 2)), np.array(True), np.ones((2, 3)))]
    numbers = struct.Struct("<Q")
    outcomes = {"error": 0, "fine": 0}
    tracemalloc.start()
    for _ in range(3000):
        raw = bytearray(b"".join(dice.choices(valid, k=3)))
        how = dice.randrange(5)
        if how == 0:
            raw = bytearray(dice.randbytes(dice.randrange(2 * HEADER_BYTES)))
        elif how == 1:
            del raw[dice.randrange(len(raw)) :]
        elif how == 2:  # a number of the first header: group, sequence, bytes, or of its shape
            place = dice.choice((8, 16, 24, 32, 40, 48))
            numbers.pack_into(raw, place, dice.choice((0, 1, 2**31, 2**60, 2**64 - 1)))
        else:
            for _ in range(dice.randrange(1, 5)):
                raw[dice.randrange(len(raw))] = dice.randrange(256)
        incoming = Incoming(1, Bytes(raw, dice), Mailbox(), refuse)
        try:
            while incoming.readable():
                incoming.pull()
            outcomes["fine"] += 1
        except CommError as error:
            assert str(error).startswith("rank 1 ")
            outcomes["error"] += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert min(outcomes.values()) > 300, outcomes
    assert peak < KEPT
