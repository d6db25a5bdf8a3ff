"""Every array is counted once, with all that a view keeps alive."""

import numpy as np

import minipar
from minipar.nn import Linear
from minipar.optim import Adam
from minipar.parallel.memory import Peak, held_bytes
from minipar.parallel.sharded import Zero1
from minipar.random import Init
from minipar.tensor import Tensor


def test_views_count_as_the_array_that_they_keep_alive():
    whole = np.zeros(100)
    assert held_bytes(whole[:3], [whole[5:], (whole,)]) == 800
    assert held_bytes({"a": whole[:1].copy()}, np.broadcast_to(np.zeros(()), (50,))) == 8 + 8


def test_a_model_with_gradients_and_an_optimizer():
    model = Linear(Init(0, np.float64), 3, 4)
    optimizer = Adam(model.named_parameters())
    n = 8 * (3 * 4 + 4)
    assert held_bytes(model, optimizer) == 3 * n
    model(Tensor(np.ones((2, 3)))).sum().backward()
    assert held_bytes(model, optimizer) == 4 * n


def test_the_peak_is_when_gradients_are_there():
    def work(group):
        model = Linear(Init(0, np.float64), 3, 4)
        sharing = Zero1(model, group, Adam)
        peak = Peak(model, sharing)
        assert peak.nbytes == 0
        model(Tensor(np.ones((2, 3)))).sum().backward()
        return peak.nbytes, held_bytes(model, sharing)

    n = 8 * (3 * 4 + 4)
    assert minipar.run(work, 2) == [(3 * n, 3 * n)] * 2
