"""A circle by messages: the same as one by shared memory, and as many messages as it says."""

import numpy as np
import pytest

from minipar import run
from minipar.comm.messages import Messages
from minipar.events import recording


@pytest.mark.parametrize("p", [1, 2, 5])
def test_what_each_rank_sees(p):
    def work(group):
        circle, r = Messages(group), group.rank
        parts = [np.full(1 + i, r) for i in range(p)]
        with recording() as log:
            shown = [array.tolist() for array in circle.show(parts)]
            got = [array.tolist() for array in circle.exchange(parts)]
            root = circle.show_from(p - 1, np.full(3, r)).tolist()
            circle.meet()
        assert circle.windows(parts[0]) is None
        return shown, got, root, len(log)

    for r, (shown, got, root, messages) in enumerate(run(work, p)):
        assert shown == [[i] * (1 + i) for i in range(p)]
        assert got == [[i] * (1 + r) for i in range(p)]
        assert root == [p - 1] * 3
        assert messages == (p - 1) * (4 if r == p - 1 else 3)


def test_what_is_shown_is_a_copy():
    def work(group):
        mine = np.full(2, group.rank)
        seen = Messages(group).show([mine, mine])
        mine[:] = 9
        return [array.tolist() for array in seen]

    assert run(work, 2) == [[[0, 0], [1, 1]]] * 2


def test_among_others():
    def work(group):
        circle = Messages(group).among([2, 1, 0])
        return circle.show_from(0, np.full(1, group.rank)).tolist()

    assert run(work, 3) == [[2]] * 3
