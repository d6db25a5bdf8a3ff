import numpy as np
import pytest

from minipar.blocks import BLOCK_BYTES, blocks, room


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_every_item_is_covered_once_in_order(count):
    items = list(range(count))
    assert [i for part in blocks(count, 4, block_bytes=8) for i in items[part]] == items


def test_blocks_have_the_size_asked_for_and_at_least_one_item():
    assert [s.stop - s.start for s in blocks(5, 4, block_bytes=8)] == [2, 2, 1]
    assert [s.stop - s.start for s in blocks(2, 100, block_bytes=8)] == [1, 1]


def test_a_gpu_gets_large_blocks(cupy):
    assert room(np.zeros(1)) == BLOCK_BYTES and room(np.zeros(1), 5) == 5
    assert room(cupy.zeros(1)) == room(cupy.zeros(1), 5) > 1000 * BLOCK_BYTES
