"""A worker is killed in the middle of its work, and its next incarnation does the rest."""

import os
import signal

import numpy as np

import minipar
from minipar import ANY
from minipar.errors import PeerLost


def work(group):
    """Rank 0 collects; the other one sends, and is killed after its second array."""
    if group.rank == 1:
        for i in range(3):
            group.send(np.array([group.incarnation, i]), 0)
            if group.incarnation == 0 and i == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    return collect(group) if group.rank == 0 else None


def collect(group):
    heard = []
    while heard[-1:] != [[1, 2]]:
        try:
            heard.append(group.recv(ANY)[1].tolist())
        except PeerLost as error:
            heard.append(f"lost: rank {error.rank}, incarnation {error.incarnation}")
            print(error)
    return heard


if __name__ == "__main__":
    results = minipar.run(work, 2, backend="process", on_lost="report", restarts=1)
    print(*results[0], sep="\n")
