"""The ranks make different calls."""

import numpy as np

import minipar

group = minipar.init()
if group.rank == 0:
    group.all_reduce(np.ones(4))
else:
    group.all_gather(np.ones(4))
