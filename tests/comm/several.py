"""Several launchers on this machine, as if each were on a host of its own."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from tests.jobs import started

TOKEN = "a token of the tests, long enough"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def environment(**more):
    """This environment without what torchrun or srun may have set, and with the token."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MINIPAR_"))}
    return ours | {"MINIPAR_TOKEN": TOKEN} | more


class Host:
    """A launcher that has ended."""

    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds
        self.last = err.splitlines()[-1] if err else ""


class Hosts:
    """Launchers of one job; `nodes` and `ranks` per node."""

    def __init__(self, tmp_path, source, nodes=2, ranks=1, options=(), arguments=(), **env):
        (tmp_path / "script.py").write_text(source)
        self._folder, self._nodes, self._ranks = tmp_path, nodes, ranks
        self.port = free_port()
        self._options, self._arguments = options, arguments
        self._env = environment(**env)
        self._stack = ExitStack()
        self.jobs = []

    def start(self, node, prefix=(), host="127.0.0.1", nodes=None, **env):
        ranks = self._ranks if isinstance(self._ranks, int) else self._ranks[node]
        command = [
            *prefix,
            *[sys.executable, "-m", "minipar", "run", "--nnodes", str(nodes or self._nodes)],
            *["--node-rank", str(node), "--rendezvous", f"{host}:{self.port}", "-n", str(ranks)],
            *[*self._options, "script.py", *self._arguments],
        ]
        job = self._stack.enter_context(started(command, cwd=self._folder, env=self._env | env))
        self.jobs.append(job)
        return job

    def start_all(self):
        for node in range(self._nodes):
            self.start(node)
        return self

    def ends(self, timeout_s=60):
        """All launchers, in the order of their start."""
        begun, ended = time.monotonic(), []
        for job in self.jobs:
            try:
                out, err = job.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                job.kill()
                raise
            ended.append(Host(job.returncode, out, err, time.monotonic() - begun))
        return ended

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()


def run_hosts(tmp_path, source, **more):
    with Hosts(tmp_path, source, **more) as hosts:
        return hosts.start_all().ends()


@contextmanager
def strangers(address, how_many=100):
    """Connections that say nothing, garbage, or half of something, and stay."""
    calls = []
    for i in range(how_many):
        sock = socket.create_connection(address, 5)
        if i % 3:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * (i % 3) ** 5)
        calls.append(sock)
    try:
        yield
    finally:
        for sock in calls:
            sock.close()
