"""The group of all ranks, for a script that somebody has started on each of them."""

from __future__ import annotations

import atexit
import os

from minipar import ambient
from minipar.comm.group import Group
from minipar.comm.local import LocalWorld
from minipar.comm.local_transport import LocalTransport
from minipar.comm.mpi import job


def init() -> Group:
    """The group of all ranks of this run: the same object at every call.

    Under `minipar run -n N script.py` it has N ranks, and so under `mpirun -n N python script.py`;
    in a script started by plain `python`, one.
    """
    group = ambient.world.get()
    if group is None:
        transport = job.join(os.environ)
        group = Group(transport or LocalTransport(LocalWorld(1), 0))
        if transport is not None:
            atexit.register(job.finish, transport, group.close)
        ambient.world.set(group)
    return group
