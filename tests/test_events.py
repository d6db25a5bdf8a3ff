"""What is recorded, and that nothing is when nobody asks."""

import numpy as np

from minipar import ambient, run
from minipar.events import recording


def work(group):
    group.barrier()
    with recording() as log:
        group.send(np.zeros(3), (group.rank + 1) % group.size)
        group.recv((group.rank - 1) % group.size)
        group.all_reduce(np.zeros(4), algorithm="ring")
        group.split(0).barrier()
    group.barrier()
    return log


def test_every_message_of_the_block_and_no_other():
    for rank, log in enumerate(run(work, 2)):
        assert all((e.rank, e.peer) == (rank, 1 - rank) for e in log)
        assert [(e.op, e.sequence, e.nbytes, e.algorithm) for e in log] == [
            ("send", 0, 24, ""),
            ("all_reduce", 1, 16, "ring"),
            ("all_reduce", 1, 16, "ring"),
            ("split", 2, 32, "halving_doubling"),
            ("barrier", 0, 0, "dissemination"),
        ]
        assert [event.group for event in log] == [0, 0, 0, 0, 2]  # see comm/subgroups
        assert all("test_events.py:" in event.site for event in log)
    assert ambient.recorder.get() is None
