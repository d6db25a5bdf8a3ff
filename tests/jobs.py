"""Starting commands that the tests send signals to."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


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
