"""How much memory GPUs have free, and how much of one this process has taken."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np

ASK = (
    "import cupy.cuda.runtime as r; n = r.getDeviceCount(); "
    "print(min([r.setDevice(i) or r.memGetInfo()[0] for i in range(n)]), n)"
)
PATIENCE_S = 60.0


class Free(NamedTuple):
    """nbytes: of the GPU that has least."""

    nbytes: int
    gpus: int


def free_memory(ask: str = ASK) -> Free | None:
    """What GPUs have free; None if nobody says.

    Another process asks: whoever asks holds some of that memory until it ends.
    """
    command = [sys.executable, "-c", ask]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        nbytes, gpus = done.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Free(int(nbytes), int(gpus))


def taken_bytes(xp: Any) -> int | None:
    """What arrays of this process have taken of the GPU so far; None for NumPy."""
    return None if xp is np else xp.get_default_memory_pool().total_bytes()
