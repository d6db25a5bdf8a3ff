"""Who talks to whom in the ring and its neighbours; results and costs are in test_algorithms."""

import numpy as np
import pytest

from minipar import run
from minipar.events import recording

SIZES = [1, 2, 3, 4, 5, 7, 8]


def messages(call, p):
    """[(receiver, bytes), ...] that left each rank, in order."""

    def work(group):
        with recording() as log:
            call(group)
        return [(event.peer, event.nbytes) for event in log]

    return run(work, p)


@pytest.mark.parametrize("p", SIZES)
@pytest.mark.parametrize("call", ["all_reduce", "reduce_scatter", "all_gather"])
def test_in_a_ring_everybody_sends_equal_parts_to_the_next(call, p):
    x = np.zeros(840 // p if call == "all_gather" else 840)
    sent = messages(lambda g: getattr(g, call)(x, algorithm="ring"), p)
    steps = 2 * (p - 1) if call == "all_reduce" else p - 1
    assert sent == [[((rank + 1) % p, 8 * 840 // p)] * steps for rank in range(p)]


@pytest.mark.parametrize("p", SIZES)
def test_a_chunk_is_added_up_on_its_way_round(p):
    """To the last bit: chunk c sets out from rank c+1, and each rank adds what came to its own."""
    x = np.random.default_rng(p).normal(size=(p, p)).astype(np.float32)
    total = run(lambda g: g.all_reduce(x[g.rank], algorithm="ring"), p)[0]
    for c in range(p):
        carried = x[(c + 1) % p, c]
        for step in range(2, p + 1):
            carried = x[(c + step) % p, c] + carried
        assert carried == total[c]


@pytest.mark.parametrize("p", SIZES)
def test_all_to_all_sends_each_row_straight_to_its_rank(p):
    sent = messages(lambda g: g.all_to_all(np.zeros((p, 3)), algorithm="direct"), p)
    assert sent == [[((rank + step) % p, 24) for step in range(1, p)] for rank in range(p)]


@pytest.mark.parametrize("p", SIZES)
def test_a_barrier_tells_ever_farther_ranks(p):
    rounds = (p - 1).bit_length()
    expected = [[((rank + 2**k) % p, 0) for k in range(rounds)] for rank in range(p)]
    assert messages(lambda g: g.barrier("dissemination"), p) == expected
