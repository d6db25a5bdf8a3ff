from itertools import pairwise

import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.nn import KeyValues, SelfAttention
from minipar.random import Init, normal
from minipar.tensor import Tensor, no_grad


def rows(t, seed=0):
    return normal(seed, "rows", (2, t, 3, 4))


def test_what_was_written_is_seen_in_order_and_nothing_is_copied():
    past = KeyValues(2, 3, 8, 4, np.empty(0))
    k, v = rows(7), rows(7, seed=1)
    for start, stop in ((0, 4), (4, 5), (5, 7)):
        keys, values = past.extend(k[:, start:stop], v[:, start:stop])
        assert (keys == k[:, :stop]).all() and (values == v[:, :stop]).all()
    assert np.shares_memory(keys, past._both) and past.length == 7
    assert past.nbytes == 2 * 2 * 3 * 8 * 4 * 8
    past.forget()
    assert (past.extend(k[:, :1], v[:, :1])[0] == k[:, :1]).all()


@pytest.mark.parametrize("shape", [(2, 9, 3, 4), (1, 1, 3, 4), (2, 1, 2, 4), (2, 1, 3, 5)])
def test_what_does_not_fit_is_refused_and_changes_nothing(shape):
    past = KeyValues(2, 3, 8, 4, np.empty(0))
    with pytest.raises(ShapeMismatch, match="cache"):
        past.extend(np.zeros(shape), np.zeros(shape))
    assert past.length == 0


@pytest.mark.parametrize("cuts", [(0, 6), (0, 1, 2, 3, 4, 5, 6), (0, 4, 5, 6), (0, 1, 3, 6)])
def test_attention_with_a_cache_is_attention(cuts):
    layer = SelfAttention(Init(0, np.float64), d=12, heads=3)
    for x in layer.parameters():
        x.data += normal(1, str(x.shape), x.shape)
    x = normal(2, "x", (2, 6, 12))
    past = layer.memory(2, 6)
    with no_grad():
        whole = layer(Tensor(x)).data
        for start, stop in pairwise(cuts):
            part = layer.extend(Tensor(x[:, start:stop]), past).data
            np.testing.assert_allclose(part, whole[:, start:stop], rtol=1e-13, atol=1e-13)


def test_attention_that_looks_at_what_comes_has_no_cache():
    with pytest.raises(UsageError, match="causal"):
        SelfAttention(Init(), d=8, heads=2, causal=False).memory(1, 4)
