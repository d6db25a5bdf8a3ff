"""Sums down the columns: of few rows in one launch, of many in two, and a bias added."""

import numpy as np
import pytest

from minipar.cuda.columns import FEW, add_bias, column_sums
from tests.cuda.test_kernels import EVERYWHERE, close


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
@pytest.mark.parametrize("n", [1, FEW, FEW + 1, 3 * FEW + 5])
@pytest.mark.parametrize("d", [1, 33, 64])
def test_the_sums_are_numpys(xp, dtype, n, d):
    x = xp.asarray(np.random.default_rng(0).normal(size=(n, d)).astype("float32")).astype(dtype)
    close(column_sums(x).get(), x.get().astype("float64").sum(axis=0), dtype, f"[{n}, {d}]")


@pytest.mark.parametrize(("xp", "dtype"), EVERYWHERE, indirect=["xp"])
@pytest.mark.parametrize("d", [1, 33, 64])
def test_a_bias_is_added_to_every_row(xp, dtype, d):
    rng = np.random.default_rng(0)
    z, bias = (
        xp.asarray(rng.normal(size=s).astype("float32")).astype(dtype) for s in ((7, d), (d,))
    )
    wanted = z.get().astype("float64") + bias.get().astype("float64")
    add_bias(z, bias)
    close(z.get(), wanted, dtype, "z + bias")
