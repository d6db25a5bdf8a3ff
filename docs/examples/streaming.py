"""Train on what never ends: rank 0 reads it, every rank learns from its rows of each batch."""

import numpy as np

import minipar
from minipar.data import Stream, counted
from minipar.nn import Linear
from minipar.ops import mse
from minipar.optim import AdamW
from minipar.parallel.data import DataParallel
from minipar.parallel.stream import read_by_one


def measurements():
    """x and 3·x0 - x1, a little off, forever: in place of a socket or a sensor."""
    rng = np.random.default_rng(0)
    while True:
        x = rng.normal(size=2).astype(np.float32)
        yield x, np.float32(3 * x[0] - x[1] + rng.normal(scale=0.1))


group = minipar.init()
net = Linear(minipar.Init(seed=0), 2, 1)
parallel = DataParallel(net, group)
optimizer = AdamW(net.named_parameters(), lr=0.05, weight_decay=0.0)
stream = Stream(counted(measurements), batch=32) if group.rank == 0 else None
for _, (x, y) in zip(range(300), read_by_one(stream, group)):  # x: [16, 2] on each of two ranks
    loss = mse(net(minipar.Tensor(x)).reshape(-1), y)
    optimizer.zero_grad()
    loss.backward()
    parallel.sync_gradients()
    optimizer.step()

if stream is not None:
    print(f"after {stream.position} measurements: {net.weight.data.ravel().round(1)}")
    stream.close()
