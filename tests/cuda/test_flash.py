"""Attention in 16 bits: who takes the kernel, and that the future does not reach the past."""

import numpy as np
import pytest

from minipar.cuda import flash
from minipar.ops import causal_attention
from minipar.tensor import Tensor
from tests.cuda.test_kernels import GPU


@pytest.mark.parametrize("xp", ["twins", pytest.param("gpu", marks=GPU)], indirect=True)
def test_what_suits_it(xp):
    fits = xp.zeros((2, 8, 3, 2, 64), "float16")
    assert flash.suits(fits)
    assert not flash.suits(fits.astype("float32")) and not flash.suits(fits[..., :17])


@pytest.mark.parametrize("xp", ["twins", pytest.param("gpu", marks=GPU)], indirect=True)
@pytest.mark.parametrize("at", [0, 63, 64, 99])
def test_what_comes_later_changes_nothing_before_to_the_bit(xp, at):
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 100, 3, 2, 64)).astype("float16")
    other = one.copy()
    other[:, at:] = rng.normal(size=other[:, at:].shape)
    seen, changed = (causal_attention(Tensor(xp.asarray(q))).data.get() for q in (one, other))
    assert np.array_equal(seen[:, :at], changed[:, :at])
    assert not np.array_equal(seen[:, at:], changed[:, at:])
