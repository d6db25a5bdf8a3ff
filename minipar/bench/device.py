"""How long a training step takes on a GPU, beside PyTorch's on the same one.

    tokens a step · (6 N + 12 · L · d · T)     the floating-point operations that the model needs
    ──────────────────────────────────────  =  MFU, model FLOPs utilisation
    seconds a step · what the GPU could do     (Chowdhery et al. 2022, appendix B)

Each engine is a process of its own. All are started at once, and then they run one after another:
each has the GPU for itself.

Letters: N parameters, L layers, d features, T positions.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from minipar.bench.workloads import ON_DEVICE, Workload
from minipar.comm.environment import python_command
from minipar.device import missing_for_cuda
from minipar.errors import UsageError

PRECISIONS = ("bfloat16", "tf32")
PURE = "bfloat16-pure"  # of torch alone: beside its autocast
# TFLOP/s of tensor cores without sparsity, by a part of the name: bfloat16, TF32.
PEAKS = MappingProxyType({"H100": (989.4, 494.7), "H200": (989.4, 494.7), "A100": (312.0, 156.0)})
WORKER_TIMEOUT_S = 300


def bench_device(
    model: str, engines: Sequence[str] = ("minipar", "torch"), steps: int = 10
) -> Iterator[dict[str, Any]]:
    """A row for each precision and engine: torch first, as the others are compared with it.

    Each row has engine, model, precision, step_ms, ratio, reserved_mb and memory_ratio (torch's is
    max_memory_reserved, minipar's the whole of CuPy's pool), launches, busy_ms, tflops, mfu,
    first_loss, last_loss, device and versions; note says why there are no numbers.
    Raises: UsageError.
    """
    if model not in ON_DEVICE:
        raise UsageError(f"on a GPU there are {', '.join(ON_DEVICE)} to bench, not {model!r}.")
    if missing := missing_for_cuda(compute=False):
        raise UsageError(f"--device cuda: {missing}")
    torch = "torch" in engines and importlib.util.find_spec("torch") is not None
    kinds = [("torch", p) for p in (*PRECISIONS, PURE) if torch]
    kinds += [("minipar", p) for p in PRECISIONS]
    workers = [_start(engine, model, precision, steps) for engine, precision in kinds]
    beside: dict[str, dict[str, Any]] = {}
    try:
        for (engine, precision), worker in zip(kinds, workers):
            row = {"engine": engine, "model": model, "precision": precision, "note": None}
            row |= _measured(worker)
            if engine == "torch":
                beside[precision] = row
            yield row | _compared(ON_DEVICE[model], row, beside.get(precision))
    finally:
        for worker in workers:
            worker.kill()


def _start(engine: str, model: str, precision: str, steps: int) -> subprocess.Popen[str]:
    command = python_command("minipar.bench.device_worker", engine, model, precision, str(steps))
    environment = {**os.environ, "CUPY_TF32": "1" if precision == "tf32" else "0"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def _measured(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """What a worker finds, now that it is its turn; or a note."""
    out, err = worker.communicate("go\n", timeout=WORKER_TIMEOUT_S)
    if worker.returncode:
        last = (err.strip() or "no word").splitlines()[-1]
        return {"note": f"ended with {worker.returncode}: {last}"}
    return json.loads(out.splitlines()[-1])


def flops(work: Workload) -> float:
    """Floating-point operations of a step of a GPT: two for each multiplication and addition."""
    s = work.sizes
    x, _ = work.batch(0)
    n = parameters(s["vocab"], s["block"], s["layers"], s["d"])
    return x.size * (6 * n + 12 * s["layers"] * s["d"] * s["block"])


def parameters(vocab: int, block: int, layers: int, d: int) -> int:
    """How many a GPT has."""
    return (vocab + block) * d + layers * (12 * d * d + 13 * d) + 2 * d


def _compared(
    work: Workload, row: Mapping[str, Any], torch: Mapping[str, Any] | None
) -> dict[str, Any]:
    """TFLOP/s, the share of what the GPU could do, where that is known, and ratios to torch's."""
    if row["note"] is not None:
        return {}
    tflops = flops(work) / row["step_ms"] / 1e9
    peaks = next((p for name, p in PEAKS.items() if name in row["device"]), None)
    peak = None if peaks is None else peaks[row["precision"] == "tf32"]
    found = {"tflops": tflops, "mfu": None if peak is None else tflops / peak}
    if torch is not None and torch["note"] is None:
        found["ratio"] = row["step_ms"] / torch["step_ms"]
        found["memory_ratio"] = row["reserved_mb"] / torch["reserved_mb"]
    return found


HEAD = f"{'engine':9s}{'model':10s}{'precision':15s}{'ms/step':>9s}{'× torch':>9s}{'MB':>8s}" + (
    f"{'× torch':>9s}{'launches':>10s}{'busy ms':>9s}{'MFU':>7s}{'loss':>14s}"
)


def line(row: Mapping[str, Any]) -> str:
    """A row for people, under HEAD."""
    start = f"{row['engine']:9s}{row['model']:10s}{row['precision']:15s}"
    if row["note"]:
        return f"{start}  {row['note']}"
    time, memory = (f"{row[r]:.2f}" if r in row else "" for r in ("ratio", "memory_ratio"))
    busy = "" if row["busy_ms"] is None else f"{row['busy_ms']:.1f}"
    mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
    losses = f"{row['first_loss']:.2f} - {row['last_loss']:.2f}"
    return (
        f"{start}{row['step_ms']:9.2f}{time:>9s}{row['reserved_mb']:8.0f}{memory:>9s}"
        f"{row['launches'] or '':>10}{busy:>9s}{mfu:>7s}{losses:>14s}"
    )
