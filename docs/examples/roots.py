"""The ranks name different roots."""

import numpy as np

import minipar

group = minipar.init()
if group.rank == 0:
    group.reduce(np.ones(4), root=0)
else:
    group.reduce(np.ones(4), root=1)
