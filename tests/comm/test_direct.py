"""Blocks and the order of additions; results and costs are in test_algorithms."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.direct import LINE, blocks
from minipar.comm.wiring import even_cuts, pieces


@pytest.mark.parametrize("p", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 64, 1000, 10_007])
@pytest.mark.parametrize("room", [1 << 10, 1 << 14, 1 << 20])
def test_blocks_cover_everything_once_and_have_room(p, n, room):
    x = np.arange(float(n))
    parts, seen = pieces(x, even_cuts(n, p)), [[] for _ in range(p)]
    found = list(blocks(parts, room))
    assert found
    for block in found:
        assert sum(len(part) * 8 + LINE for part in block[1:]) <= room
        for part, numbers in zip(block, seen, strict=True):
            numbers += part.tolist()
    assert [number for numbers in seen for number in numbers] == x.tolist()
    assert len(found) == 1 or n > 100


@pytest.mark.parametrize("p", range(1, 9))
@pytest.mark.parametrize(("one", "other"), [("direct", "ring"), ("flat", "tree")])
def test_the_same_order_of_additions(p, one, other):
    """Of numbers so different in size that every other order gives other bits."""
    x = np.random.default_rng(p).normal(size=(p, 50)) * 10.0 ** np.arange(p).reshape(p, 1)

    def work(group):
        mine = x[group.rank]
        return [group.all_reduce(mine, algorithm=a).tobytes() for a in (one, other)]

    for first, second in run(work, p):
        assert first == second


@pytest.mark.parametrize("p", [2, 5])
def test_reduce_scatter_leaves_x_alone_and_adds_like_the_ring(p):
    x = np.random.default_rng(p).normal(size=(p, 53)) * 10.0 ** np.arange(p).reshape(p, 1)

    def work(group):
        mine = x[group.rank].copy()
        found = [group.reduce_scatter(mine, algorithm=a).tobytes() for a in ("direct", "ring")]
        assert (mine == x[group.rank]).all()
        return found

    for first, second in run(work, p):
        assert first == second
