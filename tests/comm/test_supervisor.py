"""A rank that cannot be started; all else of the supervisor: test_process.py, test_leaks.py."""

import errno
import os

import pytest

import minipar
from minipar.comm import crew
from minipar.errors import CommError
from tests.comm import ranks


def test_a_rank_that_the_system_does_not_let_start_is_named(monkeypatch):
    """The second one is refused; the first, which has been started, is ended."""
    before, child = len(os.listdir("/proc/self/fd")), crew.Child

    def refuse(number, *more):
        if number == 1:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return child(number, *more)

    monkeypatch.setattr(crew, "Child", refuse)
    with pytest.raises(CommError, match="process of rank 1 cannot be started: Resource temp"):
        minipar.run(ranks.late, 2, args=(0,), backend="process")
    assert len(os.listdir("/proc/self/fd")) == before
