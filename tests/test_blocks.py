import pytest

from minipar.blocks import blocks


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_every_item_is_covered_once_in_order(count):
    items = list(range(count))
    assert [i for part in blocks(count, 4, block_bytes=8) for i in items[part]] == items


def test_blocks_have_the_size_asked_for_and_at_least_one_item():
    assert [s.stop - s.start for s in blocks(5, 4, block_bytes=8)] == [2, 2, 1]
    assert [s.stop - s.start for s in blocks(2, 100, block_bytes=8)] == [1, 1]
