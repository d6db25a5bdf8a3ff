"""`minipar.init()`: the one group of all ranks."""

import contextvars
import os

import pytest

from minipar import ambient, init
from minipar.comm.mpi import start
from minipar.errors import UsageError


def test_plain_python_is_one_rank_and_always_the_same_group():
    def script():
        group = init()
        assert (group.rank, group.size, group.backend) == (0, 1, "local")
        return init() is group and ambient.world.get() is group

    assert contextvars.Context().run(script)


def test_under_mpirun_a_missing_mpi4py_is_told_and_not_taken_for_one_rank(monkeypatch):
    monkeypatch.setattr(start, "find_spec", lambda name: None)
    monkeypatch.setattr(os, "environ", {"PMI_RANK": "0", "PMI_SIZE": "2"})
    with pytest.raises(UsageError, match="pip install mpi4py"):
        contextvars.Context().run(init)
