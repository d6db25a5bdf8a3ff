"""The contract that every transport keeps, on every transport."""

from itertools import product

import pytest

import minipar
from tests.comm import ranks

WORLDS = [*product(("local", "process"), (1, 2, 3)), ("local", 5)]


@pytest.mark.parametrize(
    ("backend", "p"), [*WORLDS, pytest.param("process", 5, marks=pytest.mark.slow)]
)
def test_conformance(backend, p):
    assert minipar.run(ranks.conformance, p, backend=backend, timeout_s=30) == [True] * p
