"""Train a model of your own, data parallel: is a point in the upper right or lower left quarter?"""

import numpy as np

import minipar
from minipar.data import Sampler
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import AdamW
from minipar.parallel.data import DataParallel


class Net(Module):
    """points [n, 2] -> how much speaks for no and for yes, [n, 2]."""

    def __init__(self, init):
        self.first = Linear(init / "first", 2, 16, std=1.0)
        self.last = Linear(init / "last", 16, 2)

    def __call__(self, x):
        return self.last(tanh(self.first(x)))


points = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
yes = (points[:, 0] * points[:, 1] > 0).astype(int)

group = minipar.init()
net = Net(minipar.Init(seed=0))
parallel = DataParallel(net, group)  # all ranks have the weights of rank 0
optimizer = AdamW(net.named_parameters(), lr=0.01)
sampler = Sampler(len(points), batch=32, seed=0)
for step in range(300):
    mine = sampler.indices(step, group.rank, group.size)  # this rank's part of the 32
    loss = cross_entropy(net(minipar.Tensor(points[mine])), yes[mine])
    optimizer.zero_grad()
    loss.backward()
    parallel.sync_gradients()  # the mean over the ranks
    optimizer.step()

if group.rank == 0:
    with minipar.no_grad():
        right = (net(minipar.Tensor(points)).data.argmax(axis=1) == yes).mean()
    print(f"{right:.0%} are right")
