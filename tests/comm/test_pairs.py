"""Send and receive within a group; what the transports owe is in test_transport."""

import numpy as np
import pytest

from minipar import run
from minipar.errors import CallMismatch, UsageError


@pytest.mark.parametrize("call", ["send", "isend", "recv", "irecv", "poll"])
@pytest.mark.parametrize("peer", [-2, 2, 7])
def test_a_rank_that_there_is_not(call, peer):
    def work(group):
        arguments = (np.zeros(1), peer) if "send" in call else (peer,)
        getattr(group, call)(*arguments)

    with pytest.raises(UsageError, match=rf"there is no rank {peer}; this group has ranks 0 to 1"):
        run(work, 2)


def test_each_pair_counts_its_own_messages():
    """The third message between two ranks is #2, whatever they sent to others meanwhile."""

    def work(group):
        r = group.rank
        for dst in (1, 2, 1, 2, 1):
            if r == 0:
                group.send(np.zeros(2 if dst == 1 else 3), dst)
        if r == 1:
            group.recv(0)
            group.recv(0)
            group.recv(0, out=np.zeros(5))
        if r == 2:
            group.recv(0)
            group.recv(0)

    with pytest.raises(CallMismatch, match=r"recv #2: rank 0 sent float64\[2\], expected .*\[5\]"):
        run(work, 3)


def test_its_name():
    def work(group):
        return repr(group), repr(group.split(group.rank // 2)), group.backend

    found = run(work, 4)
    assert found[0][0] == "Group(rank 0 of 4)"
    assert found[3] == ("Group(rank 3 of 4)", "Group(rank 1 of 2 (world rank 3))", "local")
