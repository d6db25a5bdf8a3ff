"""`minipar step`: through a run, one communication at a time."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import verb


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "step",
        "go through a run one communication at a time, forward and back",
        "minipar step -n 4 tutorials/02_all_reduce.py",
        _step,
    )
    parser.add_argument("-n", "--ranks", type=int, default=2, metavar="N", help="number of ranks")
    parser.add_argument(
        "--script", dest="commands", metavar="FILE", help="commands from a file, a line for each"
    )
    parser.add_argument("--cluster", metavar="FILE", help="in virtual time; see minipar run")
    parser.add_argument("--width", type=int, metavar="N", help="columns of the terminal")
    parser.add_argument("path", metavar="script", help="a Python file, as for minipar run")
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the script itself")
    rest.required = False


def _step(arguments: argparse.Namespace) -> int:
    from minipar.comm.cluster import Cluster
    from minipar.comm.launch import check, check_cluster
    from minipar.stepping.prompt import Prompt
    from minipar.stepping.stepper import Session

    check(arguments.ranks, "local")
    if arguments.width is not None and arguments.width < 1:
        raise UsageError(f"--width {arguments.width}: a number of columns, from 1 on.")
    if not os.path.isfile(arguments.path):
        raise UsageError(f"there is no script {arguments.path}.")
    cluster = None if arguments.cluster is None else Cluster.from_file(arguments.cluster)
    if cluster is not None:
        check_cluster(cluster, arguments.ranks, "local")
    lines = None
    if arguments.commands is not None:
        try:
            with open(arguments.commands) as file:
                lines = iter(file.read().splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--script {arguments.commands} cannot be read: {error}") from None
    width = arguments.width or shutil.get_terminal_size((100, 24)).columns
    prompt = Prompt(lines, sys.stdout, width)
    session = Session(arguments.path, arguments.arguments, arguments.ranks, prompt, cluster)
    prompt.session = session
    kept = _terminal()
    try:
        return 0 if session.run().failure is None else 1
    except KeyboardInterrupt:
        # The rank that asks is still reading, and Python would wait for the lock that it holds.
        _restore(kept)
        print("minipar: interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)


def _terminal() -> Any:
    """The settings of the terminal, which reading a line changes meanwhile; None without one."""
    try:
        import termios
    except ImportError:  # Windows
        return None
    try:
        return termios.tcgetattr(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError, termios.error):
        return None


def _restore(kept: Any) -> None:
    if kept is not None:
        import termios

        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, kept)
