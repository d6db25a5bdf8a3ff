"""A rank comes too late for the others."""

import time

import minipar

group = minipar.init()
if group.rank == 1:
    time.sleep(60)
group.barrier()
