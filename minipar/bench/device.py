"""How long a training step takes on a GPU, beside PyTorch's on the same one.

    tokens a step · (6 N + 12 · L · d · T)     the floating-point operations that the model needs
    ──────────────────────────────────────  =  MFU, model FLOPs utilisation
    seconds a step · what the GPU could do     (Chowdhery et al. 2022, appendix B)

Each engine is a process of its own. Both are started at once, and asked one after the other: each
has the GPU for itself.

Letters: N parameters, L layers, d features, T positions.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
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


def bench_device(
    models: Sequence[str], engines: Sequence[str] = ("minipar", "torch"), steps: int = 10
) -> Iterator[dict[str, Any]]:
    """A row for each engine, model and precision: torch first, as minipar is compared with it.

    Each row has engine, model, precision, step_ms, ratio, reserved_mb and memory_ratio (torch's is
    max_memory_reserved, minipar's the whole of CuPy's pool), launches, busy_ms, tflops, mfu,
    first_loss, last_loss, device and versions; note says why there are no numbers.
    Raises: UsageError.
    """
    if unknown := [model for model in models if model not in ON_DEVICE]:
        raise UsageError(f"on a GPU there are {', '.join(ON_DEVICE)} to bench, not {unknown[0]!r}.")
    if missing := missing_for_cuda(compute=False):
        raise UsageError(f"--device cuda: {missing}")
    there = "torch" in engines and importlib.util.find_spec("torch") is not None
    kinds: dict[str, tuple[str, ...]] = {"torch": (*PRECISIONS, PURE)} if there else {}
    kinds["minipar"] = PRECISIONS
    workers = {engine: _start(engine) for engine in kinds}
    beside: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        for engine, worker in workers.items():
            for model, precision in product(models, kinds[engine]):
                row = {"engine": engine, "model": model, "precision": precision}
                row |= _ask(worker, f"{model} {precision} {steps}")
                if engine == "torch":
                    beside[model, precision] = row
                yield row | _compared(ON_DEVICE[model], row, beside.get((model, precision)))
            worker.communicate()  # the end of its input ends it, and lets go of the GPU
    finally:
        for worker in workers.values():
            worker.kill()


def _start(engine: str) -> subprocess.Popen[str]:
    command, pipe = python_command("minipar.bench.device_worker", engine), subprocess.PIPE
    return subprocess.Popen(command, env=dict(os.environ), stdin=pipe, stdout=pipe, text=True)


def _ask(worker: subprocess.Popen[str], order: str) -> dict[str, Any]:
    assert worker.stdin is not None and worker.stdout is not None
    try:
        worker.stdin.write(f"{order}\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
    except BrokenPipeError:
        answer = ""
    return json.loads(answer) if answer else {"note": "the process has ended; its error is above"}


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
    f"{'× torch':>9s}{'launches':>10s}{'busy ms':>9s}{'MFU':>7s}{'loss':>16s}"
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
        f"{row['launches'] or '':>10}{busy:>9s}{mfu:>7s}{losses:>16s}"
    )
