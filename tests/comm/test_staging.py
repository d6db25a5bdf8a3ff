"""Arrays of a GPU in host memory: what goes down comes up, and a block is pinned once."""

import gc

import numpy as np
import pytest

import minipar
from minipar.comm.staging import SMALLEST_BYTES, Staging, pin
from minipar.errors import Deadlock
from minipar.testing.transports import PROMISES, every_collective_works
from tests.comm import gpu_ranks
from tests.strict_cupy import cuda

MESSAGES = tuple(promise for promise in PROMISES if promise is not every_collective_works)


@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "complex64"])
def test_what_goes_down_comes_up(dtype, cupy):
    staging = Staging()
    for shape in ((), (0,), (3, 0), (4, 5, 2), (300_000,)):
        x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        host = staging.down(cupy.asarray(x))
        assert type(host) is np.ndarray and host.shape == shape and host.dtype == dtype
        back = staging.up(host)
        assert type(back) is cupy.ndarray and (back.get() == x).all()
    strided = cupy.asarray(np.arange(24.0).reshape(4, 6))[:, ::2].T
    assert (staging.down(strided) == strided.get()).all()


def test_a_block_is_pinned_once_and_used_again_when_nobody_has_it(cupy):
    cuda.pinned.clear()
    staging, taken = Staging(), []

    def empty(shape, dtype):
        taken.append(shape)
        return np.empty(shape, dtype)

    staging = Staging(empty)
    first = staging.room((100,), "float64")
    part = first[3:5]  # holds the block, too
    first = None
    second = staging.room((100,), "float64")
    assert len(taken) == 2 and not np.shares_memory(part, second)
    part = second = None
    gc.collect()
    for n in (1, 100, SMALLEST_BYTES // 8):
        staging.room((n,), "float64")
    assert taken == [(SMALLEST_BYTES,)] * 2 and len(cuda.pinned) == 2
    staging.room((SMALLEST_BYTES // 8 + 1,), "float64")
    assert taken[-1] == (2 * SMALLEST_BYTES,)


def test_where_nothing_can_be_pinned_it_works_as_well(cupy, monkeypatch):
    def refuse(*_):
        raise cuda.CUDARuntimeError("no")

    monkeypatch.setattr(cuda.runtime, "hostRegister", refuse)
    pin(np.zeros(10, np.uint8))


# -- on the process backend, which is what it is for ----------------------------------------------


@pytest.mark.parametrize(
    ("p", "name"),
    [
        (3, "conformance"),
        (2, "some_of_all"),
        pytest.param(3, "some_of_all", marks=pytest.mark.slow),
        pytest.param(2, "reduced", marks=pytest.mark.slow),
        pytest.param(2, "moved", marks=pytest.mark.slow),
    ],
)
def test_processes_take_arrays_of_a_gpu(p, name):
    assert all(minipar.run(gpu_ranks.by_process, p, args=(name,), backend="process"))


def test_threads_take_arrays_of_a_gpu(cupy):
    assert all(minipar.run(gpu_ranks.conformance, 3, args=(MESSAGES,)))
    assert all(minipar.run(gpu_ranks.some_of_all, 2))


def test_a_rank_that_passes_an_array_of_host_memory_is_told():
    with pytest.raises(Deadlock) as caught:
        minipar.run(gpu_ranks.by_process, 2, args=("one_on_the_host",), backend="process")
    said = str(caught.value)
    assert "(sum float64[3] on cuda by tree)" in said and "(sum float64[3] by flat)" in said
