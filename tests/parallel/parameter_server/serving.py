"""Workers and servers for the tests: what a rank runs, on any backend."""

from __future__ import annotations

import numpy as np

import minipar
from minipar.nn import Embedding, Module
from minipar.optim import SGD
from minipar.parallel.parameter_server import ASYNC, ParameterServer, Roles, serve
from minipar.random import Init
from minipar.tensor import Tensor

N, D = 12, 2  # rows and columns of the table


class Small(Module):
    """x [3, 4], y [5], and a table [12, 2] whose row i is i, i."""

    def __init__(self):
        self.x = Tensor(np.zeros((3, 4)), requires_grad=True)
        self.y = Tensor(np.zeros(5), requires_grad=True)
        self.table = Embedding(Init(0, np.float64), N, D, sparse=True)
        self.table.weight.data[...] = np.arange(N)[:, None]

    def follow(self, gx=1.0, ids=None):
        """Let x's gradient be gx, y's 1, and that of each row picked 1."""
        loss = (self.x * gx).sum() + self.y.sum()
        if ids is not None:
            loss = loss + self.table(np.array(ids)).sum()
        loss.backward()


class Large(Module):
    """One vector of 500,000 numbers, 4 MB: more than a transport copies before it is taken."""

    def __init__(self):
        self.x = Tensor(np.zeros(500_000), requires_grad=True)


def sgd(named):
    return SGD(named, lr=1.0)


def rank(world, work, servers, rule, model, options):
    """A server's report, or what work(strategy, world) gives on a worker."""
    options = dict(options)
    roles = Roles(world, servers)
    slice_bytes = options.pop("slice_bytes", 64)
    if roles.is_server:
        conduct = options.pop("conduct", None)
        return serve(roles, model(), sgd, rule, conduct, slice_bytes=slice_bytes)
    options.pop("conduct", None)
    with ParameterServer(model(), roles, sgd, slice_bytes=slice_bytes, **options) as strategy:
        return work(strategy, world)


def served(work, workers, servers=1, rule=ASYNC, model=Small, backend="local", job=None, **options):
    """What the workers return, and the reports of the servers."""
    args = work, servers, rule, model, options
    results = minipar.run(rank, workers + servers, args=args, backend=backend, **(job or {}))
    return results[:workers], results[workers:]
