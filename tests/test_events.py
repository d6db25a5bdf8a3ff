"""What is recorded, and that nothing is when nobody asks."""

import numpy as np

from minipar import ambient, run
from minipar.events import recording


def work(group):
    group.barrier()
    with recording() as log:
        group.send(np.zeros(3), (group.rank + 1) % group.size)
        group.recv((group.rank - 1) % group.size)
        group.all_reduce(np.zeros(4))
    group.barrier()
    return log


def test_every_message_of_the_block_and_no_other():
    for rank, log in enumerate(run(work, 2)):
        assert [(e.rank, e.peer, e.op, e.sequence, e.nbytes) for e in log] == [
            (rank, 1 - rank, "send", 0, 24),
            (rank, 1 - rank, "all_reduce", 1, 16),
            (rank, 1 - rank, "all_reduce", 1, 16),
        ]
        assert all("test_events.py:" in event.site for event in log)
    assert ambient.recorder.get() is None
