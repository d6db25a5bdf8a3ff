"""Workers and servers, by hand: async on 2 servers, with a worker that is slow on purpose."""

import numpy as np

import minipar
from minipar.nn import Linear
from minipar.ops import mse
from minipar.optim import SGD
from minipar.parallel.parameter_server import ASYNC, ParameterServer, Roles, serve

WANTED = np.arange(12.0, dtype="float32").reshape(4, 3)


def sgd(named):
    return SGD(named, lr=0.1)


def rank(world):
    roles = Roles(world, servers=2)  # of 5 ranks the first 3 are workers
    model = Linear(minipar.Init(seed=0), 4, 3)
    if roles.is_server:
        return serve(roles, model, sgd, ASYNC)  # until all workers have said goodbye
    dice = np.random.default_rng(world.rank)
    with ParameterServer(model, roles, sgd) as strategy:
        for _ in range(60):
            x = dice.normal(size=(8, 4)).astype("float32")
            strategy.zero_grad()  # pulls
            mse(model(minipar.Tensor(x)), x @ WANTED).backward()
            world.spend(1.0)  # in virtual time; on real ranks nothing
            strategy.sync_gradients()
            strategy.step()  # pushes
        with strategy.whole() as newest:
            return np.abs(newest.weight.data - WANTED).max()


if __name__ == "__main__":
    cluster = minipar.Cluster(slow={1: 5.0})
    *workers, first, second = minipar.run(rank, ranks=5, cluster=cluster)
    print("a weight is off by", " ".join(f"{error:.0e}" for error in workers), "at most")
    for server in (first, second):
        print(f"{server.applied} pushes; staleness {server.staleness()}")
