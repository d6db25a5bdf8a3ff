"""Who is in a group, and that no two groups ever have the same number."""

import random

import numpy as np
import pytest

from minipar.comm.subgroups import Serials, entry, group_number, members
from minipar.errors import UsageError


def table(colors, keys):
    return np.array([entry(c, k, Serials()) for c, k in zip(colors, keys)])


def test_members_are_ordered_by_key_and_ties_by_rank():
    t = table([1, 0, 1, None, 1], [5, 0, 2, 0, 2])
    assert [members(t, r) for r in range(5)] == [[2, 4, 0], [1], [2, 4, 0], [], [2, 4, 0]]


def test_color_0_is_not_none():
    assert members(table([0, None], [0, 0]), 0) == [0]


def test_colors_and_keys_are_integers():
    assert entry(np.int32(3), np.int64(-1), Serials()).tolist() == [1, 3, -1, 0]
    for color, key in (("blue", 0), (1.0, 0), (0, None)):
        with pytest.raises(UsageError, match="integers"):
            entry(color, key, Serials())


@pytest.mark.parametrize("seed", range(20))
def test_numbers_of_groups_are_all_different(seed):
    """Random splits of random groups, seen by all ranks; the same number on all members."""
    dice, p = random.Random(seed), 6
    serials = [Serials() for _ in range(p)]
    groups, numbers = [list(range(p))], [0]
    for _ in range(60):
        parent = dice.choice(groups)
        colors = [dice.choice([None, 0, 0, 1, 2]) for _ in parent]
        t = np.array([entry(c, 0, serials[w]) for c, w in zip(colors, parent)])
        found = {}
        for place, world_rank in enumerate(parent):
            inside = [parent[r] for r in members(t, place)]
            number = group_number(t, min(inside, default=0), p, serials[world_rank])
            if inside:
                found.setdefault(tuple(inside), set()).add(number)
        assert all(len(seen) == 1 for seen in found.values())
        groups += map(list, found)
        numbers += [seen.pop() for seen in found.values()]
    assert len(set(numbers)) == len(numbers)
