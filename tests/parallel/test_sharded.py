"""Every stage of sharding equals one rank, and each mistake that would break it is seen."""

from functools import partial

import numpy as np
import pytest

import minipar
from tests.parallel.sharing import STRATEGIES, adamw, difference, momentum, on_many, on_one_rank


EVEN, UNEVEN = (adamw, False), (momentum, True)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("make", "uneven"), [EVEN, UNEVEN])
@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_equals_one_rank(name, make, uneven, p):
    one = on_one_rank(make, uneven)
    states = minipar.run(on_many, p, args=(name, make, uneven))
    for state in states:
        assert difference(state, one) < 1e-10
        assert difference(state, states[0]) == 0


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("p", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_equals_one_rank_in_processes(name, p):
    """With bits that are those of threads."""
    states = minipar.run(on_many, p, args=(name, adamw), backend="process")
    (local, *_) = minipar.run(on_many, p, args=(name, adamw))
    for state in states:
        assert difference(state, local) == 0
