import numpy as np
import pytest

from minipar.parallel.buckets import lay_out
from minipar.tensor import Tensor


def tensors(*shapes, dtype=np.float32):
    return [Tensor(np.zeros(shape, dtype), requires_grad=True) for shape in shapes]


def test_the_picture_at_the_top():
    layout = lay_out(tensors((2, 3), (3,), (3, 4), (4,)), bucket_bytes=4 * 16)
    assert layout.places == [(1, 3, 9), (1, 0, 3), (0, 4, 16), (0, 0, 4)]
    assert layout.buckets == [(16, np.float32), (9, np.float32)]
    assert layout.of_bucket(0) == [2, 3]


@pytest.mark.parametrize("bucket_bytes", [0, 1, 40, 100, 10**9])
def test_every_element_has_one_place_and_no_bucket_is_too_large(bucket_bytes):
    dice = np.random.default_rng(0)
    shapes = [tuple(dice.integers(1, 6, size=dice.integers(0, 4))) for _ in range(30)]
    both = tensors(*shapes[:20]) + tensors(*shapes[20:], dtype=np.float64)
    layout = lay_out(both, bucket_bytes)
    taken = [np.zeros(n, int) for n, _ in layout.buckets]
    for x, (k, start, stop) in zip(both, layout.places):
        taken[k][start:stop] += 1
        assert stop - start == x.data.size and layout.buckets[k][1] == x.dtype
    assert all((bucket == 1).all() for bucket in taken)
    for k, (n, dtype) in enumerate(layout.buckets):
        assert n * dtype.itemsize <= bucket_bytes or len(layout.of_bucket(k)) == 1


def test_no_parameters_need_no_bucket():
    assert lay_out([], 100).buckets == []
