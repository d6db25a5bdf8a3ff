"""A group's own communicator: made once, by all its ranks together, with one stream for all."""

import numpy as np

from tests.comm.gpus import Ranks


def test_each_group_has_one_and_all_go_through_one_stream(cupy):
    ranks = Ranks(2)

    def work(group):
        half = group.subgroup([group.size - 1])
        for g in (group, half, group):
            if g is not None:
                g.all_reduce(cupy.asarray(np.ones(2)))
        return len(ranks.transports[group.rank]._handles)

    assert ranks.run(work) == [1, 2]
    assert len(ranks.nccl.meetings) == 2 and not ranks.nccl.complaints
    ranks.end()
