"""The figures of the views in seeing.md: memory, pipeline, bytes, overlap, and the expected."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import minipar
from minipar import Cluster, Group
from minipar.models import GPT
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.parallel.mesh import Mesh
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.random import Draw, Init
from minipar.spans import at_step, know, span
from minipar.trace.bytes_figure import draw_bytes
from minipar.trace.expected_figure import draw_expected
from minipar.trace.layer_figure import draw_layers
from minipar.trace.memory_figure import draw_memory
from minipar.trace.overlap_figure import draw_overlap_of
from minipar.trace.pipeline_figure import draw_pipeline
from minipar.trace.totals import window_of
from minipar.trace.trace_file import Trace, load
from minipar.trace.traced import takes, traced

STAGES, MICROS, ROWS, BLOCK = 4, 8, 4, 32
TOP = 13  # MB
FAST = Cluster(1e-6, 0, 0)
SLOW_STAGE = Cluster(1e-6, 0, 0, slow={2: 1.5})
SLOW_LINKS = Cluster(50e-6, 1 / 200e6, 0)


def model() -> Any:
    """A small GPT whose blocks take their time."""
    made: Any = GPT(Init(), vocab=256, block=BLOCK, layers=8, d=64, heads=4)
    takes(made.blocks, 1e-3, 2e-3)
    know(made)
    return made


def rows_of(n: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.arange(n * BLOCK).reshape(n, BLOCK) % 256
    return ids, (ids + 1) % 256


def pipeline_steps(group: Group, schedule: str) -> None:
    """Two steps of a pipeline: in the second one, all that stays is there."""
    mesh = Mesh(group, pp=STAGES)
    cuts = (0, 3, 5, 7, 10)  # the embedding, 8 blocks, and the head
    pipe = Pipeline(model(), mesh.pp, cross_entropy, schedule, cuts)
    strategy = PipelineParallel(pipe, partial(AdamW, lr=1e-3))
    x, y = rows_of(MICROS * ROWS)
    for step in range(2):
        at_step(step)
        strategy.zero_grad()
        pipe.train(micro_batches(x, y, Draw(0, step, range(len(x))), MICROS))
        with span("reduce"):
            strategy.sync_gradients()
        with span("optimizer"):
            strategy.step()
            group.spend(1e-3)


def overlapped_steps(group: Group) -> None:
    parallel = OverlappedDataParallel(
        made := model(), group, partial(AdamW, lr=1e-3), bucket_bytes=400_000
    )
    x, y = rows_of(ROWS)
    for step in range(2):
        at_step(step)
        parallel.zero_grad()
        with span("forward"):
            loss = cross_entropy(made(x, Draw(0, step, range(ROWS))), y)
        with span("backward"):
            loss.backward()
        with span("reduce"):
            parallel.sync_gradients()
        with span("optimizer"):
            parallel.step()
            group.spend(1e-3)


def pipelined(schedule: str, cluster: Cluster) -> Trace:
    return traced(pipeline_steps, STAGES, args=(schedule,), cluster=cluster)[1]


def memory(path: Path, schedule: str) -> None:
    trace = pipelined(schedule, FAST)
    title = f"a step of {schedule}, {MICROS} micro-batches"
    figure = draw_memory(trace, *window_of(trace, 1), title)
    for axes in figure.axes:
        axes.set_ylim(0, TOP)  # the same in both figures
    figure.savefig(path)


def pipeline(path: Path) -> None:
    trace = pipelined("1f1b", SLOW_STAGE)
    draw_pipeline(trace, *window_of(trace, 1), "1f1b, stage 2 is slow").savefig(path)


def step_of_layers(group: Group) -> None:
    """Three steps of a GPT of two blocks on one rank."""
    made: Any = GPT(Init(), vocab=256, block=64, layers=2, d=128, heads=4)
    know(made)
    x = np.arange(8 * 64).reshape(8, 64) % 256
    for step in range(3):
        at_step(step)
        with span("forward"):
            loss = cross_entropy(made(x, Draw(0, step, range(8))), x)
        with span("backward"):
            loss.backward()


def layers(path: Path) -> None:
    trace = traced(step_of_layers, 1)[1]
    draw_layers(trace, *window_of(trace, 2), "a GPT of two blocks").savefig(path)


def overlap(path: Path) -> None:
    trace = traced(overlapped_steps, 2, cluster=SLOW_LINKS)[1]
    draw_overlap_of(trace, *window_of(trace, 1), "data parallel, overlapped").savefig(path)


TRAINED = {"dp": 2, "pp": 2, "tp": 2, "microbatches": 4, "layers": 4, "d": 64, "batch": 16}


@cache
def trained() -> tuple[Any, Trace]:
    """A short training on eight ranks, and the folder it lies in; times are this machine's."""
    folder = tempfile.TemporaryDirectory()
    out = Path(folder.name, "gpt")
    more: dict[str, Any] = {"backend": "local", "trace": True, "steps": 4, "eval_batches": 1}
    minipar.train("gpt", out=str(out), **more, **TRAINED)
    return folder, load(out / "trace")


def of_training(draw: Callable[..., Any], path: Path) -> None:
    trace = trained()[1]
    draw(trace, *window_of(trace, 2), "gpt on 2 x 2 x 2 ranks").savefig(path)


MADE: dict[str, Callable[[Path], None]] = {
    "memory_gpipe.png": partial(memory, schedule="gpipe"),
    "memory_1f1b.png": partial(memory, schedule="1f1b"),
    "pipeline_seen.png": pipeline,
    "overlap_seen.png": overlap,
    "layers_seen.png": layers,
    "bytes_by_axis.png": partial(of_training, draw_bytes),
    "expected.png": partial(of_training, draw_expected),
}
