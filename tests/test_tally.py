"""Bytes by axis: every message belongs to the axis whose group sent it."""

import numpy as np

import minipar
from minipar.events import telling
from minipar.parallel.mesh import Mesh
from minipar.tally import Tally, axes_of


def counted(group):
    mesh = Mesh(group, dp=2, tp=2)
    tally = Tally(axes_of(mesh))
    with telling(tally):
        mesh.tp.all_reduce(np.ones(100), algorithm="ring")
        mesh.pp.all_reduce(np.ones(100))  # of one rank: sends nothing
        first = tally.taken()
        if mesh.dp.rank == 0:
            mesh.dp.send(np.ones(7), 1)
        else:
            mesh.dp.recv(0)
        group.all_reduce(np.ones(4), algorithm="ring")
        second = tally.taken()
    mesh.dp.all_reduce(np.ones(3))  # nobody looks
    return first, second, tally.taken()


def test_messages_are_counted_by_axis_and_from_one_time_to_the_next():
    for rank, (first, second, third) in enumerate(minipar.run(counted, 4)):
        assert {axis: sent.nbytes for axis, sent in first.items() if sent.nbytes} == {"tp": 800}
        assert second["world"].nbytes == 2 * 3 * 8
        assert second.get("dp", (0,))[0] == (56 if rank < 2 else 0)
        assert third == {}
