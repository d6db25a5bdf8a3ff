from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.random import Draw, Init, bits, normal, permutation, uniform, words

M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157  # constants of the Philox paper
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
MASK = 2**64 - 1


def philox(counter, key):
    """Philox4x64-10 from the paper, in Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = M0 * c[0], M1 * c[2]
        c = [(b >> 64) ^ c[1] ^ k[0], b & MASK, (a >> 64) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + W0) & MASK, (k[1] + W1) & MASK]
    return c


def test_words_are_philox_of_step_and_block():
    digest = blake2b(b"7\0a.weight", digest_size=16).digest()
    key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    # NumPy counts before it draws, so block n has counter n + 1.
    expected = [w for block in range(3) for w in philox([block + 1, 0, 5, 0], key)]
    assert words(7, "a.weight", 5, 0, 12).tolist() == expected


@pytest.mark.parametrize("draw", [words, bits])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("count", [0, 1, 8, 13])
def test_any_stretch_of_a_stream_is_the_same_numbers(draw, start, count):
    assert (draw(0, "x", 2, start, count) == draw(0, "x", 2, 0, 40)[start : start + count]).all()


def test_bits_are_the_halves_of_words_low_first():
    w = words(0, "x", 0, 0, 1)[0]
    assert bits(0, "x", 0, 0, 2).tolist() == [int(w) & 0xFFFFFFFF, int(w) >> 32]


def test_seed_name_and_step_make_different_streams():
    streams = {words(s, n, t, 0, 1)[0] for s in (0, 1) for n in ("a", "b") for t in (0, 1)}
    assert len(streams) == 8


def test_uniform_and_normal_have_their_moments():
    u, z = uniform(0, "u", (100_000,)), normal(0, "z", (100_001,))
    assert u.min() >= 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005 and abs(u.var() - 1 / 12) < 0.002
    assert abs(z.mean()) < 0.02 and abs(z.var() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15
    assert abs((z[:-1] * z[1:]).mean()) < 0.02  # the two of a pair are independent


def test_permutation_sorts_the_words():
    p = permutation(3, "epoch", 50, step=2)
    assert sorted(p) == list(range(50))
    assert (np.diff(words(3, "epoch", 2, 0, 50)[p].astype(object)) > 0).all()


def test_init_draws_by_full_name():
    a = (Init(1) / "blocks" / 0 / "up").normal("weight", (3, 4), 0.5)
    assert a.dtype == np.float32 and a.shape == (3, 4)
    expected = 0.5 * normal(1, "blocks.0.up.weight", (3, 4))
    assert (a == expected.astype(np.float32)).all()
    assert (Init() / "a").zeros("b", (2,)).sum() == 0 and Init().ones("b", (2,)).sum() == 2
    assert Init(dtype=np.float64).normal("w", (2,), 1.0).dtype == np.float64


def test_init_draws_the_same_for_the_device(cupy):
    here, there = Init(3) / "a", Init(3, xp=cupy) / "a"
    for draw in (
        lambda i: i.normal("w", (2, 3), 0.5),
        lambda i: i.zeros("b", (3,)),
        lambda i: i.ones("g", (3,)),
    ):
        assert isinstance(draw(there), cupy.ndarray) and draw(there).dtype == np.float32
        assert (draw(there).get() == draw(here)).all()


@pytest.mark.parametrize("shape", [(7,), (7, 3), (7, 3, 5)])
@pytest.mark.parametrize("cuts", [[0, 7], [0, 1, 7], [0, 2, 3, 6, 7], list(range(8))])
def test_any_split_of_the_rows_has_the_mask_of_one_rank(shape, cuts):
    whole = Draw(0, 4, range(7)).keep("mlp.dropout", shape, 0.3)
    parts = [
        Draw(0, 4, range(a, b)).keep("mlp.dropout", (b - a, *shape[1:]), 0.3)
        for a, b in pairwise(cuts)
    ]
    assert (np.concatenate(parts) == whole).all()


def test_masks_keep_the_right_share_and_change_with_step_and_layer():
    keep = Draw(0, 0, range(100)).keep("a", (100, 1000), 0.25)
    assert keep.dtype == bool and abs(keep.mean() - 0.75) < 0.005
    assert (keep != Draw(0, 1, range(100)).keep("a", (100, 1000), 0.25)).any()
    assert (keep != Draw(0, 0, range(100)).keep("b", (100, 1000), 0.25)).any()


def test_a_batch_that_does_not_fit_the_rows_is_refused():
    with pytest.raises(UsageError, match=r"5 rows.*range\(0, 4\)"):
        Draw(0, 0, range(4)).keep("a", (5, 2), 0.1)
    with pytest.raises(UsageError, match="consecutive"):
        Draw(0, 0, range(0, 8, 2))
