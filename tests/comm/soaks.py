"""Long mixes of collectives and of training steps, checked, with what they hold on the way."""

import os
from functools import reduce
from pathlib import Path

import numpy as np

from minipar.comm.algorithms import ALGORITHMS
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import AdamW
from minipar.parallel.data import DataParallel
from minipar.random import Init
from minipar.tensor import Tensor

SIZES = (0, 1, 3, 64, 1000, 5000, 40_000, 150_000)
OPS = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}
SAMPLES = 50


def held():
    """Resident bytes, descriptors, and mapped pieces of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    maps = Path("/proc/self/maps").read_text().count("\n")
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), maps


def collectives(group, rounds):
    """Samples of what this rank held, SAMPLES of them, while all results were right."""
    dice = np.random.default_rng(0)  # the same throws on all ranks
    turned = group.subgroup(list(reversed(range(group.size))))
    alone = group.split(group.rank)
    samples = []
    for i in range(rounds):
        one_collective((group, turned, alone)[dice.choice(3, p=(0.6, 0.3, 0.1))], dice)
        if i % (rounds // SAMPLES) == 0:
            samples.append(held())
    return samples


def one_collective(group, dice):
    """A random call, compared with what NumPy makes of the x of all."""
    p, r = group.size, group.rank
    call = str(dice.choice(list(ALGORITHMS)))
    algorithm = dice.choice([None, *ALGORITHMS[call]])
    n, root, op = int(dice.choice(SIZES)), int(dice.integers(1 << 20)) % p, str(dice.choice([*OPS]))
    dtype = dice.choice(["int32", "int64", "float32", "float64"])
    shift = int(dice.integers(100))
    every = [((np.arange(p * n) * (q + 3) + shift) % 7).astype(dtype) for q in range(p)]
    x, rows = every[r], [one.reshape(p, n) for one in every]
    total = reduce(OPS[op], every)
    parts = np.array_split(total, p)
    match call:
        case "barrier":
            got = expected = group.barrier(algorithm)
        case "broadcast":
            got, expected = group.broadcast(x, root, algorithm), every[root]
        case "reduce":
            got, expected = group.reduce(x, root, op, algorithm), total if r == root else None
        case "all_reduce":
            got, expected = group.all_reduce(x, op, algorithm=algorithm), total
        case "gather":
            got, expected = group.gather(x, root, algorithm), every if r == root else None
        case "scatter":
            got, expected = group.scatter(rows[r], root, algorithm), rows[root][r]
        case "all_gather":
            got, expected = group.all_gather(x, algorithm), every
        case "reduce_scatter":
            got, expected = group.reduce_scatter(x, op, algorithm), parts[r]
        case "all_to_all":
            got, expected = group.all_to_all(rows[r], algorithm), [one[r] for one in rows]
    if expected is None:
        assert got is None
    else:
        assert got.dtype == dtype and np.array_equal(got, expected), (call, algorithm, n, op)


class Net(Module):
    def __init__(self):
        init = Init(0)
        self.up, self.down = Linear(init / "up", 16, 32), Linear(init / "down", 32, 4)

    def __call__(self, x):
        return self.down(tanh(self.up(x)))


def training(group, steps):
    """Samples of what this rank held, and the mean loss of the first and of the last steps."""
    dice = np.random.default_rng(group.rank)
    model = Net()
    parallel, optimizer = DataParallel(model, group), AdamW(model.named_parameters(), lr=1e-3)
    samples, losses = [], []
    for i in range(steps):
        x = dice.normal(size=(8, 16)).astype(np.float32)
        optimizer.zero_grad()
        loss = cross_entropy(model(Tensor(x)), np.argmax(x[:, :4], axis=1))
        loss.backward()
        parallel.sync_gradients()
        optimizer.step()
        losses.append(float(loss.data))
        if i % (steps // SAMPLES) == 0:
            samples.append(held())
    return samples, np.mean(losses[:100]), np.mean(losses[-100:])
