"""Starting commands that the tests send signals to, and looking at what becomes of them."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def started(command, **more) -> Iterator[subprocess.Popen]:
    """The command, running; killed at the end of the block if it still is.

    Ctrl-C reaches it even if the tests themselves run in the background of a shell, where SIGINT
    is ignored and stays so in children.
    """

    def take_sigint() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=take_sigint, **(pipes | more)) as job:
        try:
            yield job
        finally:
            job.kill()


def launched(fn, p, folder):
    """minipar.run(ranks.fn, p, args=(folder,)) on processes, started."""
    code = (
        "import minipar; from tests.comm import ranks; "
        f"minipar.run(ranks.{fn}, {p}, args=({str(folder)!r},), backend='process')"
    )
    return started([sys.executable, "-c", code])


def pids(folder, p):
    """The processes of the ranks, once they all run."""
    for rank in range(p):
        path = Path(folder, str(rank))
        eventually(lambda path=path: path.exists() and path.read_text())
    return [int(Path(folder, str(rank)).read_text()) for rank in range(p)]


def eventually(condition, deadline_s=10.0):
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
