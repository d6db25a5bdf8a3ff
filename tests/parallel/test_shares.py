import numpy as np
import pytest

import minipar
from minipar.events import recording
from minipar.parallel.shares import exchange, sum_of_rows
from minipar.sparse import RowGradient
from minipar.tensor import Tensor


def test_shares_are_those_of_the_rows_and_a_sum_is_dense_if_one_part_is():
    def work(group):
        x, table = Tensor(np.ones(3), True), Tensor(np.ones((4, 2)), True)
        if group.rank == 1:
            x.grad = np.ones(3)
        table.grad = RowGradient(np.array([1]), np.ones((1, 2)), (4, 2))
        return exchange([("x", x), ("table", table)], [1, 5, 2][group.rank], group)

    for shares, dense in minipar.run(work, 3):
        assert shares.tolist() == [0.125, 0.625, 0.25] and dense.tolist() == [True, False]


@pytest.mark.parametrize("p", [1, 2, 4])  # with 3, all_gather sends more than it must
@pytest.mark.parametrize("n", [100, 1_000_000])
def test_the_bytes_of_a_sparse_sum_grow_with_the_rows_and_not_with_the_table(p, n):
    k, d = 5, 4

    def ids(rank):
        return np.arange(1, k + 1 - rank % 2) * (rank + 1)  # uneven, some in common, none is 0

    def work(group):
        mine = ids(group.rank)
        g = RowGradient(mine, np.full((len(mine), d), 2.0**group.rank), (n, d))
        with recording() as log:
            total = sum_of_rows(g, group)
        return total, sum(event.nbytes for event in log)

    touched = sorted({i for r in range(p) for i in ids(r).tolist()})
    expected = [sum(2**r for r in range(p) if i in ids(r)) for i in touched]  # each rank is a bit
    for total, sent in minipar.run(work, p):
        assert sent == (p - 1) * (8 + k * (8 + 8 * d))
        assert total.ids.tolist() == touched
        assert (total.rows == np.array(expected)[:, None]).all()


def test_ranks_that_touch_nothing_get_the_rows_of_the_others():
    def work(group):
        mine = np.arange(3 * group.rank)  # none on rank 0
        return sum_of_rows(RowGradient(mine, np.ones((len(mine), 2)), (9, 2)), group).dense()

    for total in minipar.run(work, 2):
        assert total.tolist() == [[1.0, 1.0]] * 3 + [[0.0, 0.0]] * 6
    assert (minipar.run(work, 1)[0] == 0).all()
