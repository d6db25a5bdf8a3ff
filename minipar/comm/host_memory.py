"""How much memory this host has left, and how much this process has taken.

A container may grant less than the machine has: its cgroup has a limit, and says how much of it is
taken. What files have left in memory counts as free there, for the kernel gives it back.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from minipar.comm.environment import cgroups

LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
NO_LIMIT = 1 << 60  # cgroups of version 1 write such a number


def available_bytes(
    root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup", meminfo: str = "/proc/meminfo"
) -> int | None:
    """What processes can still take, of the machine and of the cgroups around this one.

    None where nobody says (not on Linux).
    """
    folders = cgroups(Path(root), Path(own), "memory")
    found = [left for folder in folders if (left := _left(folder)) is not None]
    return min([*found, *_of_machine(Path(meminfo))], default=None)


def _of_machine(meminfo: Path) -> list[int]:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]


def _left(folder: Path) -> int | None:
    for limit, usage in LIMITS:
        try:
            most = (folder / limit).read_text().strip()
            taken = int((folder / usage).read_text())
        except OSError:
            continue
        if most == "max" or int(most) >= NO_LIMIT:
            return None
        return max(0, int(most) - taken + _reclaimable(folder))
    return None


def _reclaimable(folder: Path) -> int:
    """Of the cgroup's memory, what only keeps files at hand."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    pairs = dict(line.split() for line in lines if len(line.split()) == 2)
    return int(pairs.get("inactive_file", 0))


def resident_bytes() -> int:
    """What this process has in memory now; the most so far where nobody says how much it is now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes()


def peak_bytes() -> int:
    """The most that this process has had in memory so far (0 where nobody says)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # on Linux this would count the process, too, of which this one was forked
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def parsed_bytes(text: str) -> int:
    """Such as 500MB or 2.5GB, where a MB is 2^20 bytes.  Raises: ValueError."""
    units = {"KB": 2**10, "MB": 2**20, "GB": 2**30}
    number, unit = text[:-2], text[-2:].upper()
    if unit not in units or not 0 < float(number) < np.inf:
        raise ValueError(text)
    return int(float(number) * units[unit])


def in_words(n: float) -> str:
    """Such as 12.5 MB."""
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n:.0f} B"
