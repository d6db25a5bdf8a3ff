"""Thousands of calls: all right, and nothing grows: memory, descriptors, segments."""

import sys

import numpy as np
import pytest

import minipar
from tests.comm import soaks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]
GROWTH_BYTES = 2 * 2**20  # in the second half: 2500 rounds; a lost array of each is far more


def assert_flat(samples):
    memory, descriptors, maps = np.array(samples).T
    half = len(samples) // 2
    assert memory[half:].max() - memory[:half].max() < GROWTH_BYTES, memory
    assert descriptors[half:].max() <= descriptors[:half].max(), descriptors
    assert maps[half:].max() <= maps[:half].max() + 2, maps  # the allocator's own come and go


def test_five_thousand_mixed_collectives():
    for samples in minipar.run(soaks.collectives, 2, args=(5000,), backend="process"):
        assert len(samples) == soaks.SAMPLES
        assert_flat(samples)


def test_five_thousand_training_steps():
    for samples, first, last in minipar.run(soaks.training, 2, args=(5000,), backend="process"):
        assert len(samples) == soaks.SAMPLES
        assert_flat(samples)
        assert last < first / 2
