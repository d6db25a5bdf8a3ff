"""What a rank's process finds around it: cores, BLAS threads, memory allocation.

Threads of BLAS are fixed when NumPy loads, so they must stand in the environment of a process
before it starts. The launcher never overrides a variable that the user has set.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# glibc hands arrays above 128 KB back to the kernel when they are freed, and the next one is mapped
# and zeroed again, page by page. A training step frees and allocates the same sizes each time, so
# the heap may keep them.
MALLOC_SETTINGS = (
    ("MALLOC_MMAP_THRESHOLD_", str(1 << 30)),
    ("MALLOC_TRIM_THRESHOLD_", str(1 << 34)),
    ("MALLOC_TOP_PAD_", str(1 << 26)),
)


def usable_cores() -> int:
    """Cores this process may use: the machine's, less affinity, less a container's CPU quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> float | None:
    """Cores that the cgroups grant (quota / period; the least of this process's cgroup and of those
    around it), None without a limit.  own: lists the cgroups, of version 2 and of version 1.
    """
    found = [quota for folder in cgroups(Path(root), Path(own), "cpu") if (quota := _quota(folder))]
    return min(found, default=None)


def cgroups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup, and of those around it, that may limit something."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in [*lines, "::/", f":{controller}:/"]:  # in a container often only the root is there
        _, controllers, path = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            base, inside = root / (controller if controllers else ""), Path(path.lstrip("/"))
            yield from (base / folder for folder in (inside, *inside.parents))


def _quota(folder: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
        except OSError:
            continue
        return None if quota in ("max", "-1") else int(quota) / int(period)
    return None


def open_standard_streams() -> None:
    """Give this process the standard descriptors and streams that it was started without (`>&-`):
    the next file would get such a number, and be taken for the stream by every child.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def python_command(module: str, *arguments: str) -> list[str]:
    """The command for module.main() in a new Python. Not `-m`, which would look for modules in the
    current folder first, where any random.py of the user's would take the place of Python's.
    """
    code = f"import sys; del sys.path[0]; from {module} import main; main()"
    return [sys.executable, "-c", code, *arguments]


def rank_environment(ranks_on_host: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for one of `ranks_on_host` processes: the caller's, plus threads and malloc.

    Threads per rank = cores // ranks, at least 1. What the user has set stays.
    """
    env = dict(os.environ if base is None else base)
    threads = str(max(1, usable_cores() // ranks_on_host))
    for name in THREAD_VARIABLES:
        env.setdefault(name, threads)
    for name, value in MALLOC_SETTINGS:
        env.setdefault(name, value)
    return env


def child_environment(ranks_on_host: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """rank_environment, with minipar importable also where it is not installed."""
    env = rank_environment(ranks_on_host, base)
    root = str(Path(__file__).resolve().parents[2])
    if root != sysconfig.get_path("purelib"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    return env
