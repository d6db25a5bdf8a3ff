"""The serial definitions, held against what is known without them."""

import numpy as np
import pytest

from minipar.testing import replicas
from minipar.testing.training import CASES, largest_difference, train_alone


def exact(stacks):
    return [stack.sum(axis=0) for stack in stacks]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("p", [1, 3])
def test_replicas_that_add_up_exactly_are_one_rank_with_the_whole_batch(case, p):
    """So the joint batch norm, and the shares, are right."""
    found = replicas.compressed(case, p, exact)
    assert largest_difference(found, [train_alone(case)] * p)[0] < 1e-12


@pytest.mark.parametrize("every", [2, None])
def test_one_replica_is_one_rank_however_often_it_meets_itself(every):
    for case in CASES:
        found = replicas.local_sgd(case, 1, every)
        assert largest_difference(found, [train_alone(case)])[0] == 0


def test_sums_for_fewer_bytes_by_hand():
    stack = np.array([[1.0, -0.5, 4.0], [1.0, 0.25, 2.5]])
    assert replicas.float16()([stack / 3])[0] == pytest.approx(stack.sum(axis=0) / 3, rel=1e-3)
    (total,) = replicas.int8(block=3)([stack])
    assert total == pytest.approx([2, -0.25, 6.5], abs=4 / 127)
    add_up = replicas.top_k(0.3)
    assert [add_up([stack])[0].tolist() for _ in range(2)] == [[0, 0, 6.5]] * 2
    assert add_up([np.zeros((2, 3))])[0].tolist() == [4, 0, 0]


def test_powersgd_leaves_vectors_alone_and_loses_nothing():
    dice, add_up = np.random.default_rng(0), replicas.powersgd(1)
    same = dice.normal(size=(6, 1)) @ dice.normal(size=(1, 5))
    matrix, vector = add_up([np.stack([same, same]), np.ones((2, 4))])
    assert np.abs(matrix - 2 * same).max() < 1e-12
    assert vector.tolist() == [2, 2, 2, 2]
