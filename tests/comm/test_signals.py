"""Ctrl-C while ranks are started or seen to their end; all else of it: test_process.py."""

import os
import signal
import subprocess
import sys

import pytest

from minipar.comm.signals import sigint_held_back


@pytest.fixture(autouse=True)
def usual_sigint():
    """Also where the tests run in the background of a shell, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_inside_is_noted_and_not_lost():
    with sigint_held_back() as noted:
        assert noted == []
        os.kill(os.getpid(), signal.SIGINT)
    assert noted == [signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):  # and afterwards it works as before
        os.kill(os.getpid(), signal.SIGINT)


def test_children_that_are_started_inside_do_not_get_it():
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with sigint_held_back():
        inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    outside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (inside.stdout, outside.stdout) == ("True\n", "False\n")
