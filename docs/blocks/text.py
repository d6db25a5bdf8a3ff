"""What blocks are made of: text in fences, sizes and times, what a command says."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
FIGURES = DOCS / "figures"
MARKS = re.compile(r"^\[rank \d\] +[~^]+\n", re.MULTILINE)  # under a source line, since Python 3.11
MB = 2**20
ALPHA, BETA, GAMMA = 5e-6, 1 / 10e9, 1 / 20e9  # the example machine of the pages


def said(
    command: list[str], limit: int | None = None, program: Sequence[str] = ("-m", "minipar")
) -> str:
    """What the command says, less the marks that newer tracebacks have.

    limit: the most bytes that a file may have.  program: what Python runs.
    """

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, *program, *command],
        cwd=DOCS / "examples",
        env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=set_limit,
    )
    return MARKS.sub("", done.stdout + done.stderr).rstrip()


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def size(n: float) -> str:
    for unit, factor in (("MB", MB), ("KB", 1024)):
        if n >= factor:
            return f"{n / factor:.4g} {unit}"
    return f"{n:g} B"


def time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
