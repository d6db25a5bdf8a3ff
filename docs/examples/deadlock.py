"""Rank 1 leaves out a call that rank 0 makes."""

import numpy as np

import minipar

group = minipar.init()
if group.rank == 0:
    group.all_reduce(np.ones(4))
