"""Jobs that end in each kind of failure, and what their ranks write down of it themselves.

Run as a script, it takes the kind and the folder for the notes.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import minipar

A_WHILE_S = 0.4  # until the others wait


def noted(group, folder, op):
    """The group, once it is written down which call of it comes now: its name, and the line."""
    with open(Path(folder, f"{group.rank}.txt"), "a") as file:
        file.write(f"{op} {sys._getframe(1).f_lineno}\n")
    return group


def let_others_wait(group):
    if group.backend == "local":
        for _ in range(10):
            group.poll()  # on local that gives the others a turn
    else:
        time.sleep(A_WHILE_S)


def in_a_circle(group, folder):
    noted(group, folder, "recv").recv((group.rank + 1) % 3)


def two_receive_first(group, folder):
    """And rank 2 waits for one of them."""
    noted(group, folder, "recv").recv((1, 0, 1)[group.rank])


def left_alone(end):
    """Rank 0 waits for rank 1, which ends like that, and rank 2 for rank 0."""

    def work(group, folder):
        if group.rank == 1:
            let_others_wait(group)
            end()
        else:
            noted(group, folder, "recv").recv((1, -1, 0)[group.rank])

    return work


def raises():
    raise ValueError("why")


def other_shapes(group, folder):
    """Ranks 0 and 1 differ, and rank 2 waits for rank 0."""
    if group.rank == 2:
        noted(group, folder, "recv").recv(0)
    else:
        let_others_wait(group)
        noted(group, folder, "all_reduce").all_reduce(np.ones(3 + group.rank))


KINDS = {
    "circle": in_a_circle,
    "two": two_receive_first,
    "finished": left_alone(lambda: None),
    "raised": left_alone(raises),
    "killed": left_alone(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "left": left_alone(lambda: os._exit(3)),
    "late": left_alone(lambda: time.sleep(60)),
    "shapes": other_shapes,
}


def work(group, kind, folder):
    for i in range(2):
        noted(group, folder, "barrier").barrier()
        if group.rank == 2:
            noted(group, folder, "send").send(np.ones(i + 1), 0)
        if group.rank == 0:
            noted(group, folder, "recv").recv(2)
    noted(group, folder, "barrier").barrier()
    KINDS[kind](group, folder)


if __name__ == "__main__":
    work(minipar.init(), *sys.argv[1:])
