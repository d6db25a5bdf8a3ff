"""`run` and `init`: the same on both backends, and what cannot be started says why."""

import functools
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import minipar
from minipar.comm.launch import function_work
from minipar.errors import UsageError
from tests.comm import ranks


def top_level(group):
    return group.rank


@pytest.mark.parametrize("backend", ["local", "process"])
def test_results_come_in_rank_order(backend):
    found = minipar.run(ranks.rank_and_big_result, 3, args=(2,), backend=backend)
    assert np.array_equal(found, [[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize("fn", [lambda g: 1, lambda g, unused=0: 2])
def test_a_lambda_cannot_go_to_processes_and_the_message_says_what_to_do(fn):
    with pytest.raises(UsageError, match="define it at the top level of a file, or use backend='l"):
        minipar.run(fn, 2, backend="process")


def test_a_function_of_a_notebook_neither(monkeypatch):
    def cell(group):
        return group.rank

    cell.__module__, cell.__qualname__ = "__main__", "cell"
    monkeypatch.setattr(sys.modules["__main__"], "cell", cell, raising=False)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(UsageError, match="notebook"):
        function_work(cell)


@pytest.mark.parametrize("fn", [functools.partial(top_level), [].append])
def test_what_has_no_name_in_a_module(fn):
    with pytest.raises(UsageError, match="not a function that stands under its own name"):
        function_work(fn)


def test_arguments_that_cannot_be_sent():
    with pytest.raises(UsageError, match="cannot be sent to processes"):
        minipar.run(top_level, 2, args=(lambda: 0,), backend="process")


@pytest.mark.parametrize(("p", "backend", "says"), [(0, "local", "at least 1"), (2, "mpj", "mpj")])
def test_what_there_is_not(p, backend, says):
    with pytest.raises(UsageError, match=says):
        minipar.run(top_level, p, backend=backend)


def test_init_is_the_world_and_always_the_same():
    def work(group):
        return minipar.init() is group and minipar.init() is minipar.init()

    assert minipar.run(work, 3) == [True] * 3


SCRIPT = """
import minipar

class Thing:
    def __init__(self, value):
        self.value = value

def work(group, thing):
    return Thing(thing.value + group.rank)

{guard}
{indent}print([t.value for t in minipar.run(work, 2, args=(Thing(5),), backend="process")])
"""


def test_a_scripts_own_functions_and_classes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard='if __name__ == "__main__":', indent="    "))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout == "[5, 6]\n", done.stderr


def test_a_script_without_a_guard_is_told_to_add_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard="", indent=""))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    assert "under `if __name__ == '__main__':`" in done.stderr


def test_plain_python_is_one_rank():
    code = "import minipar, numpy; g = minipar.init(); print(g, g.all_reduce(numpy.ones(2)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "Group(rank 0 of 1) [1. 1.]\n"


@pytest.mark.parametrize("count", ["2", 2.0, 0, None])
def test_a_number_of_ranks_that_is_none_is_refused(count):
    with pytest.raises(UsageError, match="at least 1 rank, as an integer, not"):
        minipar.run(top_level, count)


def test_ctrl_c_that_does_not_wake_the_main_thread():
    """It had come just before the main thread fell asleep, and local ranks went on computing for
    ever. A signal to the thread of a rank is noted, too, and wakes nobody else.
    """
    seen, computed = threading.Event(), []

    def work(group):
        signal.raise_signal(signal.SIGINT)
        computed.append(seen.wait(5))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            minipar.run(work, 1)
        assert not computed
    finally:
        seen.set()
        signal.signal(signal.SIGINT, before)
