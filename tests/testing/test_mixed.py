"""The measure of mixed precision finds what is wrong with it."""

import numpy as np
import pytest

from minipar.parallel.mixed import Mastered
from minipar.testing import mixed


@pytest.mark.parametrize("dtype", mixed.TOLERANCES)
def test_it_is_near_exact_training(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    apart, _ = mixed.difference(3, "local", dtype)
    assert mixed.TOLERANCES[dtype] / 100 < apart < mixed.TOLERANCES[dtype] / 2


def test_a_scale_that_is_not_divided_out_is_found(monkeypatch):
    monkeypatch.setattr(Mastered, "step", lambda self: (vars(self).update(scale=None), step(self)))
    with np.errstate(all="ignore"):
        assert mixed.difference(2, "local", "float16")[0] > 1


def test_a_master_that_is_forgotten_is_found(monkeypatch):
    def forgetful(self):
        for x, master in self.pairs():
            master.data[...] = x.data
        step(self)

    pytest.importorskip("ml_dtypes")
    monkeypatch.setattr(Mastered, "step", forgetful)
    right = mixed.TOLERANCES["bfloat16"]
    assert mixed.difference(2, "local", "bfloat16")[0] > right


step = Mastered.step
