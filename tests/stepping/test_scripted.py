"""Stepping by commands that were written down, from Python."""

import sys

import pytest

from minipar import Cluster
from minipar.stepping.scripted import stepped

SCRIPT = """import numpy as np

import minipar

group = minipar.init()
x = np.full(2, 10**group.rank)
group.all_reduce(x, algorithm="ring")
"""


def test_it_shows_what_the_prompt_shows_and_leaves_nothing_behind():
    argv, path = list(sys.argv), list(sys.path)
    seen = stepped(SCRIPT, 2, ["b rank 1, gets", "c", "show"], cluster=Cluster())
    assert seen.index("rank 1 gets 8 B from rank 0") < seen.rindex("(step) show")
    assert seen.splitlines()[-2:] == ["rank 0  01  11   0.  1", "rank 1  .1  10   .1  10"]
    assert (sys.argv, sys.path) == (argv, path)


def test_what_the_script_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        stepped("1 / 0", 2, ["c"])
