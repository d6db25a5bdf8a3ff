"""Runs in virtual time for the tests of the replay: the same on every machine."""

import numpy as np

from minipar import Cluster
from minipar.comm.algorithms import ALGORITHMS
from minipar.nn import Linear, Module
from minipar.parallel.mesh import Mesh
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.pipeline import KIND
from minipar.random import Init
from minipar.spans import at_step, know, span
from minipar.tensor import Tensor
from minipar.trace.traced import takes, traced

FREE = Cluster(0, 0, 0)  # only what is declared takes time
LINK = Cluster(1e-6, 1e-9, 0)
SLOW = Cluster(1e-9, 1e-7, 0)  # which takes longer for a bucket than backward for a block
ROOTED = ("broadcast", "reduce", "gather", "scatter")
OPS = (*ROOTED, "all_reduce", "all_gather", "reduce_scatter", "all_to_all")
EVERY = [(op, name) for op in OPS for name in ALGORITHMS[op]]


def collective(group, op, algorithm, root=0, n=4):
    """A call of any collective, with arrays that it can take."""
    x = np.ones((group.size, n))
    if op == "scatter" and group.rank != root:
        x = None
    more = {"root": root} if op in ROOTED else {}
    getattr(group, op)(x, algorithm=algorithm, **more)


def every_collective(group, root):
    for op, name in EVERY:
        collective(group, op, name, root)


def staged(group, programs, seconds, dp=1):
    """A step of a schedule on each replica, with so many seconds for each phase.

    dp: 0 for one replica in a group that has no name.
    """
    stages = group.size // max(1, dp)
    pipe = Mesh(group, dp=dp, pp=stages).pp if dp else group
    parts = stages * (1 + max(action.chunk for action in programs[0]))
    for action in programs[pipe.rank]:
        part = action.chunk * stages + pipe.rank
        there = -1 if action.phase == "F" else 1
        with span(KIND[action.phase], str(action), action.micro):
            if action.phase != "W" and 0 <= part + there < parts:
                pipe.recv((part + there) % stages)
            group.spend(seconds[action.phase])
            if action.phase != "W" and 0 <= part - there < parts:
                pipe.isend(np.zeros(1), (part - there) % stages)
    with span("optimizer"):
        group.spend(1e-6)


class Net(Module):
    """Three blocks, each of which takes 1 ms forward and 2 ms backward."""

    def __init__(self, name):
        layers = [Linear(Init(0) / n, 100, 100) for n in range(3)]
        takes(layers, 1e-3, 2e-3)
        setattr(self, name, layers)
        self._name = name

    def __call__(self, x):
        for layer in getattr(self, self._name):
            x = layer(x)
        return x


def beside_backward(group, steps=2, form=OverlappedDataParallel, name="blocks", first=0):
    """Data parallel with a bucket for each block."""
    model = Net(name)
    parallel = form(model, group, bucket_bytes=4 * 101 * 100)
    know(model)
    for step in range(first, steps):
        at_step(step)
        parallel.zero_grad()
        with span("forward"):
            loss = model(Tensor(np.ones((2, 100), np.float32))).sum()
        with span("backward"):
            loss.backward()
        with span("reduce"):
            parallel.sync_gradients()
        with span("optimizer"):
            group.spend(1e-3)


def trace_of(work, ranks, *args, cluster=LINK):
    return traced(work, ranks, args=args, cluster=cluster)[1]
