"""Every call of a contender of `bench comm`, held against what it should leave in its arrays.

As a script, one rank of a peer:  calls_of.py openmpi | gloo RANK RANKS FILE
"""

import sys

import numpy as np

from minipar.bench import comm_worker


def check(contender):
    p, r = contender.size, contender.rank
    ranks = np.arange(1, p + 1, dtype=np.float32)

    def after(op, x, y):
        x, y = (np.array(a, np.float32) for a in (x, y))
        returned = contender.calls(x, y, None)[op]()
        if isinstance(returned, np.ndarray):
            return returned.reshape(-1)
        return y if y.size else x

    assert (after("all_reduce", [r + 1.0] * 5, []) == ranks.sum()).all()
    assert (after("broadcast", [r + 7.0] * 3, []) == 7).all()
    assert after("reduce_scatter", 10.0 * np.arange(p) + r, [0]) == 10 * p * r + sum(range(p))
    assert (after("all_gather", [r + 1], [0] * p) == ranks).all()
    assert (after("all_to_all", 10.0 * np.arange(p) + r, [0] * p) == 10 * r + ranks - 1).all()
    after("barrier", [], [])
    if r == 0:
        after("send", [5, 6], [])
    elif r == 1:
        assert (after("recv", [0, 0], []) == [5, 6]).all()
    assert contender.largest(float(r)) == p - 1
    assert contender.array(3).dtype == np.float32 and contender.version


if __name__ == "__main__":
    name, *more = sys.argv[1:]
    if name == "gloo":
        gloo = comm_worker.Gloo(int(more[0]), int(more[1]), more[2])
        check(gloo)
        gloo.close()
    else:
        check(comm_worker.OpenMPI())
