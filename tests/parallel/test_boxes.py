"""Boxes: flat ranges as staircases, what two have in common, and whether some make up an array."""

import itertools

import numpy as np
import pytest

from minipar.parallel.boxes import MOST_BOXES, Box, staircase, whole, why_no_cover

SHAPES = [(), (5,), (4, 3), (3, 1, 4), (2, 3, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_staircase_has_the_elements_of_a_flat_range_in_their_order(shape):
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    for first, last in itertools.combinations(range(numbers.size + 1), 2):
        boxes = staircase(shape, first, last)
        found = [numbers[box.inside(whole(shape))].reshape(-1) for box in boxes]
        assert np.concatenate(found).tolist() == list(range(first, last))
        assert len(boxes) <= max(1, 2 * len(shape) - 1)
    assert staircase(shape, 0, 0) == []


def test_what_two_boxes_have_in_common():
    one, other = Box((0, 2), (4, 6)), Box((3, 0), (9, 3))
    assert one.meet(other) == other.meet(one) == Box((3, 2), (4, 3))
    assert one.meet(Box((4, 2), (5, 6))) is None  # beside it
    assert whole(()).meet(whole(())) == whole(())
    assert Box((3, 2), (4, 3)).inside(one) == (slice(3, 4), slice(0, 1))
    assert one.moved(1, 5) == Box((0, 7), (4, 11))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s])
def test_pieces_of_a_staircase_make_up_the_array_and_without_any_they_do_not(shape):
    size = int(np.prod(shape))
    cuts = [0, size // 3, size // 2, size]
    boxes = [box for a, b in itertools.pairwise(cuts) for box in staircase(shape, a, b)]
    assert why_no_cover(shape, boxes[::-1]) is None
    for n, box in enumerate(boxes):
        without = boxes[:n] + boxes[n + 1 :]
        assert f"{box.size} of its numbers are in no box" in why_no_cover(shape, without)
        assert "overlaps another" in why_no_cover(shape, [*boxes, box])


def test_boxes_that_make_up_no_array():
    def why(*boxes, shape=(4, 6)):
        return why_no_cover(shape, [Box(*box) for box in boxes])

    assert "not inside [4, 6]" in why(((0, 0), (4, 7)))
    assert "not inside" in why(((0, 3), (4, 2)))
    assert "not inside" in why(((0,), (4,)))
    # as many numbers as there are, but one box twice and one place never
    assert "overlaps" in why(((0, 0), (4, 3)), ((0, 2), (4, 5)))
    assert "24 of its numbers" in why()
    assert why(shape=(4, 0)) is None and why(((0, 0), (4, 0)), shape=(4, 0)) is None
    many = [((n,), (n + 1,)) for n in range(MOST_BOXES + 1)]
    assert "more than any layout has" in why(*many, shape=(len(many),))


def test_an_array_of_any_size_is_checked_without_memory_for_it():
    huge = (2**30, 2**29)
    assert why_no_cover(huge, [whole(huge)]) is None
