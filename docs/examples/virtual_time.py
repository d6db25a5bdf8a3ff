"""Three workers push to rank 0, one of them three times slower: event by event, in virtual time."""

import numpy as np

import minipar
from minipar import ANY, Cluster, cost

cluster = Cluster(alpha_s=10e-6, beta_s_per_byte=1 / 1e9, gamma_s_per_byte=1 / 4e9, slow={3: 3.0})
gradient = np.zeros(125_000)  # a million bytes: 1.01 ms on these links


def work(group):
    if group.rank == 0:
        for _ in range(3 * 3):
            sender, _ = group.recv(ANY)
            print(f"{group.now_ns() / 1e6:5.2f} ms: a push of rank {sender}")
    else:
        for _ in range(3):
            group.spend(4e-3)  # computing takes 4 ms, and 12 ms on rank 3
            group.send(gradient, 0)
    group.barrier()  # all go on at the same time
    begin = group.now_ns()
    group.all_reduce(gradient, algorithm="ring")
    return group.now_ns() - begin


took = minipar.run(work, ranks=4, cluster=cluster)
expected = cost.ring_all_reduce(4, gradient.nbytes).seconds(10e-6, 1 / 1e9, 1 / 4e9)
print(f"all-reduce: {max(took) / 1e6:.3f} ms; without the slow rank {expected * 1e3:.3f} ms")
