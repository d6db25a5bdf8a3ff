"""A rank is stopped while the others wait for it."""

import os
import signal

import minipar

group = minipar.init()
group.barrier()
if group.rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
group.barrier()
