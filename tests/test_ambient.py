"""Ambient state: three values, each its own per rank."""

from contextvars import ContextVar

import numpy as np

import minipar
from minipar import Tensor, ambient
from minipar.events import recording


def test_there_are_exactly_three_values():
    found = {name for name, value in vars(ambient).items() if isinstance(value, ContextVar)}
    assert found == {"grad_enabled", "recorder", "world"}


def test_a_switch_to_another_rank_inside_a_block_does_not_leak_into_that_rank():
    """Rank 0 waits inside no_grad() and recording(), so that rank 1 runs meanwhile."""

    def work(group):
        x = Tensor(np.ones(2), requires_grad=True)
        if group.rank == 0:
            with minipar.no_grad(), recording() as log:
                group.recv(1)
                inside = (x * 2).requires_grad
            return inside, len(log)
        z = x * 2
        group.send(np.zeros(1), 0)
        return z.requires_grad, ambient.recorder.get().logs

    assert minipar.run(work, 2) == [(False, 0), (True, ())]
    assert ambient.world.get() is None or ambient.world.get().size == 1
