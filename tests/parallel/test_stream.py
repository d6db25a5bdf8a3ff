import numpy as np
import pytest

import minipar
from minipar.data.sources import counted
from minipar.data.stream import Stream
from minipar.parallel.stream import read_by_one, scatter_batch


def clicks(n):
    """Examples of the form ((dense, ids), y), number k made of k."""
    for k in range(n):
        yield (np.full(3, k, np.float32), np.array([k, k + 1])), np.float32(k)


def received(group, root, n, batch):
    """This rank's batches of a stream that the root reads."""
    if group.rank != root:
        return list(read_by_one(None, group, root))
    with Stream(counted(lambda: clicks(n)), batch) as stream:
        return list(read_by_one(stream, group, root))


@pytest.mark.parametrize(("p", "root"), [(1, 0), (2, 0), (3, 2)])
def test_each_rank_gets_its_rows_of_each_batch(p, root):
    check(minipar.run(received, p, args=(root, 20, 6)), p)


@pytest.mark.parametrize("p", [2, 3])
def test_over_processes_too(p):
    check(minipar.run(received, p, backend="process", args=(0, 20, 6)), p)


def check(by_rank, p):
    each = 6 // p
    for rank, batches in enumerate(by_rank):
        assert len(batches) == 3  # 20 // 6
        for step, ((dense, ids), y) in enumerate(batches):
            first = 6 * step + each * rank
            expected = np.arange(first, first + each)
            assert (y == expected).all() and y.dtype == dense.dtype == np.float32
            assert (dense == expected[:, None]).all() and dense.shape == (each, 3)
            assert (ids == expected[:, None] + [0, 1]).all() and ids.dtype == np.int64


def test_a_stream_without_a_whole_batch_ends_on_all_ranks():
    assert minipar.run(received, 2, args=(0, 5, 6)) == [[], []]


def test_an_error_of_the_source_is_the_error_of_the_run():
    def breaks():
        yield from clicks(6)
        raise OSError("the disk is gone")

    def work(group):
        stream = Stream(counted(breaks), 4) if group.rank == 0 else None
        return list(read_by_one(stream, group))

    with pytest.raises(OSError, match="the disk is gone"):
        minipar.run(work, 2)


def test_a_single_array_and_an_empty_tuple_travel():
    def work(group):
        forms = [np.arange(2), ()], [np.arange(2, 4), ()]
        return [
            scatter_batch([part[n] for part in forms] if group.rank == 0 else None, group)
            for n in range(2)
        ]

    for rank, (array, nothing) in enumerate(minipar.run(work, 2)):
        assert array.tolist() == [2 * rank, 2 * rank + 1] and nothing == ()
