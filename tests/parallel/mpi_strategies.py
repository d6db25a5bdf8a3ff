"""What `minipar verify` does, under mpirun: test_mpi.py starts it on every rank.

Each rank holds its own outcome against its own part of the definition; the largest error counts.
"""

import json
import sys

import numpy as np

import minipar
from minipar.testing.training import CASES, largest_difference, train_all
from minipar.verify import STRATEGIES


def main():
    group = minipar.init()
    for name in sys.argv[1:]:
        held, worst = STRATEGIES[name], 0.0
        outcomes = train_all(group, held.make, held.synchronised)
        for case, outcome in zip(CASES, outcomes, strict=True):
            expected = held.serial(case, group.size)[group.rank]
            worst = max(worst, largest_difference([outcome], [expected])[0])
        worst = float(group.all_reduce(np.array(worst), op="max"))
        if group.rank == 0:
            print(json.dumps({"strategy": name, "ranks": group.size, "max_error": worst}))


if __name__ == "__main__":
    main()
