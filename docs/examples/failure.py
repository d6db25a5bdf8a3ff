"""A rank fails while the others wait for it."""

import numpy as np

import minipar

group = minipar.init()
group.barrier()
if group.rank == 1:
    raise ValueError("the disk is full")
group.all_reduce(np.ones(4))
