"""The memory of one host out of several."""

import os

import pytest

from minipar.comm.board import NOTICE_BYTES
from minipar.comm.frame import Call
from minipar.comm.hosts.host_memory import HostMemory, create_host_memory

CALL = Call(0, 3, "all_reduce", "", "train.py:1")


@pytest.fixture
def memories():
    """Ranks 2 and 3 of 5, twice mapped, as by two processes."""
    descriptors = create_host_memory(2, 5)
    yield [HostMemory(descriptors[0], range(2, 4), 5) for _ in range(2)]
    for descriptor in descriptors:
        os.close(descriptor)


def test_ranks_of_one_host_have_rings_under_their_numbers_in_the_job(memories):
    a, b = memories[0].streams(2), memories[1].streams(3)
    assert (a.keys(), b.keys()) == ({3}, {2})
    (to_3, from_3), (to_2, from_2) = a[3], b[2]
    target = memoryview(bytearray(5))
    for writer, reader in ((to_3, from_2), (to_2, from_3)):
        assert writer.write_some(memoryview(b"hello")) == 5
        assert reader.read_some(target) == 5 and bytes(target) == b"hello"


def test_notices_are_there_for_all_ranks_of_the_job(memories):
    a, b = memories
    a.board.write(3, CALL)
    assert b.board.read(3) == str(CALL)
    elsewhere = b.notice(3)
    assert len(elsewhere) == NOTICE_BYTES
    b.copy_notice(0, elsewhere)
    assert a.board.read(0) == str(CALL) and a.board.read(1) == "none yet"


def test_a_notice_of_another_size_is_left_alone(memories):
    memories[0].copy_notice(4, b"too short")
    assert memories[0].board.read(4) == "none yet"
