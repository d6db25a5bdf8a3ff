"""Codes: what they keep of a number, what they cost, and that sums of them are as defined."""

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.events import recording
from minipar.parallel.compress import Float16, Int8
from minipar.testing import replicas


def drawn(rank, n=1000, dtype=np.float64):
    return np.random.default_rng(rank).normal(size=n).astype(dtype)


def added_up(group, code, n=1000, dtype=np.float64):
    x = [drawn(group.rank, n, dtype).reshape(-1, 2), drawn(100 + group.rank, 7, dtype)]
    with recording() as log:
        code.add_up(x, group)
    return x, sum(event.nbytes for event in log)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("code", "definition"), [(Float16, replicas.float16()), (lambda: Int8(16), replicas.int8(16))]
)
def test_a_sum_is_as_defined_and_has_the_same_bits_everywhere(p, code, definition):
    stacks = [
        np.stack([drawn(r).reshape(-1, 2) for r in range(p)]),
        np.stack([drawn(100 + r, 7) for r in range(p)]),
    ]
    wanted = definition(stacks)
    ends = [x for x, _ in minipar.run(lambda group: added_up(group, code()), p)]
    for x in ends:
        assert all(np.abs(a - b).max() < 1e-12 for a, b in zip(x, wanted))
        assert all((a == b).all() for a, b in zip(x, ends[0]))


@pytest.mark.parametrize("p", [2, 3])
def test_float32_stays_float32_and_errors_are_as_small_as_a_code_allows(p):
    exact = sum(drawn(r, dtype=np.float32).astype(float) for r in range(p))
    for code, allowed in ((Float16, 4e-3 * p), (Int8, 0.03 * p)):
        for (x, _), _ in minipar.run(lambda g, c=code: added_up(g, c(), dtype=np.float32), p):
            assert x.dtype == np.float32
            apart = np.abs(x.reshape(-1) - exact).max()
            assert 1e-6 < apart < allowed


@pytest.mark.parametrize("p", [1, 2, 4])  # with 3, all_gather of small arrays sends more
@pytest.mark.parametrize("n", [4096, 1000])
def test_the_bytes_are_those_of_the_formulas(p, n):
    c = n + 7
    for code, bytes_ in (
        (Float16, cost.float16_bytes(p, c)),
        (lambda: Int8(128), cost.int8_bytes(p, c, 128)),
    ):
        sent = [sent for _, sent in minipar.run(lambda g, k=code: added_up(g, k(), n), p)]
        assert sum(sent) / p == bytes_


def test_int8_takes_its_scale_from_a_block_and_survives_zeros():
    x = np.concatenate([np.zeros(4), [1.0, -0.5, 0.004, 0.003], [1000.0, 0, -1000, 3.0]])
    code = Int8(4)
    again = code.decode(code.encode(x), x.dtype)
    assert again[:4].tolist() == [0, 0, 0, 0]
    assert again[4:] == pytest.approx([1, -64 / 127, 1 / 127, 0, 1000, 0, -1000, 0], rel=1e-6)
    assert code.encode(x).nbytes == 3 * (4 + 4)
