"""An all-reduce of one's own: recursive doubling, held against what it should do, and used."""

import numpy as np

import minipar
from minipar import cost
from minipar.cost import Cost
from minipar.events import recording
from minipar.testing import WrongCollective, check_collective, measured_cost


def swap_and_add(link, buf):
    """In each round swap everything with the rank 1, 2, 4, ... away, and add."""
    reach = 1
    while reach < link.size:
        partner = link.rank ^ reach
        link.add(buf, link.sendrecv(buf, dst=partner, src=partner))
        reach *= 2


def recursive_doubling(link, buf):
    """The same for any number of ranks: the ranks from q = 2^k on stand by."""
    p, r = link.size, link.rank
    q = 1 << (p.bit_length() - 1)
    if r >= q:
        link.send(buf, r - q)
        buf[...] = link.recv(r - q)
        return
    if r + q < p:
        link.add(buf, link.recv(r + q))
    reach = 1
    while reach < q:
        link.add(buf, link.sendrecv(buf, dst=r ^ reach, src=r ^ reach))
        reach *= 2
    if r + q < p:
        link.send(buf, r + q)


def formula(p, n):
    """log2(q)·(α + n·β + n·γ) + [p>q]·(2α + 2n·β + n·γ)"""
    rounds = p.bit_length() - 1
    odd = p > 1 << rounds
    return Cost(rounds + 2 * odd, (rounds + 2 * odd) * n, (rounds + odd) * n)


if __name__ == "__main__":
    try:
        check_collective(swap_and_add, "all_reduce")
    except WrongCollective as error:
        print(f"swap_and_add: {error}\n")

    check_collective(recursive_doubling, "all_reduce", formula=formula)
    print("recursive_doubling: right, and costs what its formula says")
    for p in (7, 8):
        print(f"{p} ranks: {measured_cost(recursive_doubling, 'all_reduce', p, 1000)}")
        print(f"    tree: {cost.tree_all_reduce(p, 8000)}")

    def work(group):
        with recording() as log:
            total = group.all_reduce(np.ones(3), algorithm=recursive_doubling)
        return total, log[0].algorithm

    print("\nas algorithm= of a group:", *minipar.run(work, ranks=4)[0])
