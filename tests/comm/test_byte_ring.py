"""The byte ring against a plain queue of bytes, in one process and between two threads."""

import random
import threading

import pytest

from minipar.comm.byte_ring import COUNTER_BYTES, ByteRing


def make(capacity):
    return ByteRing(memoryview(bytearray(2 * COUNTER_BYTES + capacity)))


@pytest.mark.parametrize("capacity", [1, 7, 64, 1000])
def test_it_is_a_first_in_first_out_stream(capacity):
    ring, dice, sent, got = make(capacity), random.Random(capacity), bytearray(), bytearray()
    for _ in range(2000):
        if dice.random() < 0.5:
            piece = dice.randbytes(dice.randrange(2 * capacity + 1))
            sent += piece[: ring.write_some(memoryview(piece))]
        else:
            target = bytearray(dice.randrange(2 * capacity + 1))
            got += target[: ring.read_some(memoryview(target))]
        assert len(sent) - len(got) <= capacity
        assert ring.readable() == (len(sent) > len(got))
        assert sent.startswith(got)
    assert len(got) > 10 * capacity  # went round many times


def test_full_takes_nothing_and_empty_gives_nothing():
    ring = make(4)
    assert ring.read_some(memoryview(bytearray(3))) == 0
    assert ring.write_some(memoryview(b"abcdef")) == 4
    assert ring.write_some(memoryview(b"x")) == 0


@pytest.mark.slow
def test_a_writer_and_a_reader_at_the_same_time():
    ring, total = make(1 << 12), random.Random(0).randbytes(1 << 20)
    got = bytearray(len(total))

    def read():
        left = memoryview(got)
        while left:
            left = left[ring.read_some(left) :]

    reader = threading.Thread(target=read)
    reader.start()
    left = memoryview(total)
    while left:
        left = left[ring.write_some(left) :]
    reader.join()
    assert got == total
