"""The contenders of `bench comm`: how each is started, asked, and ended.

A contender is a set of rank processes that stay alive, each of which sleeps in a socket until an
order comes for it (`comm_worker`). All have one thread for BLAS and OpenMP, and the same malloc.

    process, local    minipar's own launcher
    mpi               minipar's ranks, started by mpirun
    openmpi           mpirun, with mpi4py; the binding of ranks to cores is what mpirun chooses
    gloo              one Python with torch per rank, over the loopback interface
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minipar.comm.environment import (
    THREAD_VARIABLES,
    python_command,
    rank_environment,
    usable_cores,
)
from minipar.errors import MiniparError

START_S, ANSWER_S, END_S = 60.0, 300.0, 10.0
PEERS = MappingProxyType({"gloo": "torch", "openmpi": "mpi4py"})  # and what must be importable
WORKER = "minipar.bench.comm_worker"
RUN_FILE = "import runpy, sys; del sys.path[0]; runpy.run_path(sys.argv.pop(1))['main']()"
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class Missing(MiniparError):
    """A contender that cannot be measured here, or not any more; the text says why."""


class Unsupported(MiniparError):
    """A contender that lives, but does not have this call."""


class Contender:
    """The ranks of one contender, from `start` to `close`."""

    def __init__(self, name: str, ranks: int, commands: Sequence[Sequence[str]], folder: Path):
        """commands: of the processes, with SOCKET for the path where the ranks find their orders.

        Raises: Missing.
        """
        self.name, self.version, self._ranks = name, "", ranks
        path = str(folder / f"{name}.socket")
        self._said = open(folder / f"{name}.stderr", "w+", encoding="utf-8")  # noqa: SIM115
        self._sockets: dict[int, socket.socket] = {}
        self._lines: dict[int, Any] = {}  # that come from them
        self.pids: dict[int, int] = {}  # of each rank
        self._processes: list[subprocess.Popen[bytes]] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(ranks)
            listener.settimeout(0.2)
            try:
                for command in commands:
                    words = [path if word == "SOCKET" else word for word in command]
                    self._processes.append(self._start(words))
                for _ in range(int(START_S / 0.2)):
                    self._greet(listener)
                    if len(self._sockets) == ranks:
                        return
                raise Missing(f"its ranks did not start within {START_S:.0f} s")
            except BaseException:
                self.close()
                raise

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = rank_environment(1) | dict.fromkeys(THREAD_VARIABLES, "1")
        environment.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )

    def _greet(self, listener: socket.socket) -> None:
        """Take in one rank, if there is one."""
        try:
            sock, _ = listener.accept()
        except TimeoutError:
            if any(process.poll() is not None for process in self._processes):
                raise self._ended() from None
            return
        sock.settimeout(ANSWER_S)
        lines = sock.makefile("r")
        hello = json.loads(lines.readline())
        rank, self.version = hello["rank"], hello["version"]
        self.pids[rank] = hello["pid"]
        self._sockets[rank], self._lines[rank] = sock, lines

    def ask(self, op: str, algorithm: str | None, nbytes: int, times: int) -> float:
        """Seconds of one call, on the slowest rank, over `times` calls.

        Raises: Unsupported, Missing.
        """
        order = {"op": op, "algorithm": algorithm, "bytes": nbytes, "times": times}
        found = self.order(order, op)
        if "note" in found:
            raise Unsupported(found["note"])
        return found["seconds"]

    def order(self, order: Mapping[str, Any], what: str) -> Any:
        """Rank 0's answer to an order that all ranks get.  Raises: Missing, saying what."""
        try:
            for sock in self._sockets.values():
                sock.sendall(json.dumps(order).encode() + b"\n")
            answer = self._lines[0].readline()
        except TimeoutError:
            raise Missing(f"it has not answered {what} for {ANSWER_S:.0f} s") from None
        except OSError:
            answer = ""
        if not answer:
            raise self._ended()
        return json.loads(answer)

    def _ended(self) -> Missing:
        for process in self._processes:  # the one that ended first may still be saying why
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
        self._said.seek(0)
        lines = self._said.read().splitlines()
        last = [x for x in lines if x.strip() and not x.startswith(" ") and x[-1] != ":"][-1:]
        return Missing(" ".join(["its ranks ended early:", *last]))

    def close(self) -> None:
        """The end of their input ends the ranks; who does not end is killed."""
        for rank, sock in self._sockets.items():
            self._lines[rank].close()
            sock.close()
        for process in self._processes:
            if not self._sockets:
                process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._said.close()


def start(
    name: str, ranks: int, folder: Path, pythons: Sequence[str] = (), memory: str = "private"
) -> Contender:
    """Start a contender by name: a backend of minipar's, gloo or openmpi.

    folder:  for its sockets and its files.
    pythons: other interpreters in which a peer may be installed.
    Raises:  Missing.
    """
    if name not in PEERS:
        worker = python_command(WORKER, name, "SOCKET", str(ranks), memory)
        started_by = _mpirun(sys.executable, ranks) if name == "mpi" else []
        return Contender(name, ranks, [[*started_by, *worker]], folder)
    python = python_with(PEERS[name], [sys.executable, *pythons])
    file = str(Path(__file__).with_name("comm_worker.py"))
    worker = [python, "-c", RUN_FILE, file, name, "SOCKET"]
    if name == "gloo":
        store = str(folder / "gloo.store")
        commands = [[*worker, str(rank), str(ranks), store] for rank in range(ranks)]
        return Contender(name, ranks, commands, folder)
    return Contender(name, ranks, [[*_mpirun(python, ranks), *worker]], folder)


def _mpirun(python: str, ranks: int) -> list[str]:
    beside = os.path.dirname(python) + os.pathsep + os.environ.get("PATH", "")
    found = shutil.which("mpirun", path=beside)
    if found is None:
        raise Missing("there is no mpirun")
    options = ["-n", str(ranks)]
    if os.geteuid() == 0:
        options.append("--allow-run-as-root")
    if ranks > usable_cores():
        options.append("--oversubscribe")
    return [found, *options]


def python_with(module: str, pythons: Sequence[str]) -> str:
    """The first interpreter that has the module."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    for python in pythons:
        try:
            if subprocess.run([python, "-c", code, module]).returncode == 0:
                return python
        except OSError as error:
            raise Missing(f"{python} cannot be run: {error.strerror}") from error
    raise Missing(f"{module} is not installed (--peer-python PATH: a Python that has it)")
