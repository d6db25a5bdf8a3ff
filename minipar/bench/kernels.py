"""How close the kernels of minipar/cuda come to the memory, to cuBLAS, and to torch's.

A kernel that only moves numbers is as good as the share that it has of a plain copy's bytes per
second. Everything runs in one process and on the same arrays (torch reads CuPy's memory), timed by
the GPU's clock, the least of ROUNDS. The calls are in kernel_cases.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minipar import cuda
from minipar.bench.kernel_cases import GPT, Case, Sizes, cases
from minipar.errors import UsageError

ROUNDS, CALLS = 3, 10
FLOATS = ("float32", "tf32", "bfloat16")


def bench_kernels(against_torch: bool = True, sizes: Sizes = GPT) -> Iterator[dict[str, Any]]:
    """A row for each kernel and float: kernel, float, ms, unit, rate, of_copy, torch_ms.

    of_copy:  its rate by that of a copy, of kernels that only move numbers; else None.
    torch_ms: torch's time for the same, None without torch.
    """
    check()
    torch = _torch() if against_torch else None
    copied = 0.0
    for name in FLOATS:
        cuda.use_tf32(name == "tf32")
        if torch is not None:
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        for case in cases(
            "bfloat16" if name == "bfloat16" else "float32", sizes, name == "float32"
        ):
            row = _row(case, name, torch)
            copied = row["rate"] if case.name == "copy" else copied
            row["of_copy"] = row["rate"] / copied if case.unit == "GB/s" else None
            yield row
    cuda.use_tf32(False)


def check() -> None:
    """Raises: UsageError, if there is no GPU for CuPy."""
    try:
        import cupy
    except ImportError as error:
        raise UsageError(f"bench kernels: {error}. See `minipar doctor`.") from None
    if not cupy.is_available():
        raise UsageError("bench kernels: CuPy finds no device that it can use; `minipar doctor`.")


def machine(against_torch: bool = True) -> dict[str, str]:
    """What the numbers were measured on, and with."""
    check()
    import cupy

    runtime = cupy.cuda.runtime
    cuda_version = runtime.runtimeGetVersion()
    found = {
        "device": runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode(),
        "cuda": f"{cuda_version // 1000}.{cuda_version % 1000 // 10}",
        "cupy": cupy.__version__,
    }
    return found | ({"torch": _torch().__version__} if against_torch else {})


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    share = "" if row["of_copy"] is None else f"{row['of_copy']:5.0%} of a copy"
    torch = "" if row["torch_ms"] is None else f"torch {row['torch_ms']:8.3f} ms"
    name = f"{row['kernel']:26s}{row['float']:9s}{row['ms']:9.3f} ms"
    return f"{name}{row['rate']:7.0f} {row['unit']:8s}{share:15s}{torch}".rstrip()


def _torch() -> Any:
    if importlib.util.find_spec("torch") is None:
        raise UsageError("bench kernels: torch is not installed; leave it out with --against ''.")
    import torch

    return torch


def _row(case: Case, name: str, torch: Any) -> dict[str, Any]:
    seconds = _seconds(case.ours)
    theirs = None if torch is None else 1e3 * _seconds(case.theirs(torch))
    rate = case.work / seconds / (1e9 if case.unit == "GB/s" else 1e12)
    row = {"kernel": case.name, "float": name, "ms": 1e3 * seconds, "unit": case.unit}
    return row | {"rate": rate, "torch_ms": theirs}


def _seconds(f: Callable[[], Any]) -> float:
    """Of one call, on the GPU."""
    import cupy

    f()
    times = []
    for _ in range(ROUNDS):
        begun, done = cupy.cuda.Event(), cupy.cuda.Event()
        f()  # while it runs, the next calls are launched
        begun.record()
        for _ in range(CALLS):
            f()
        done.record()
        done.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begun, done) / CALLS / 1e3)
    return min(times)
