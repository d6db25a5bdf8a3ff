"""The figures of seeing.md: a pipeline in virtual time, and the page that plays it and others."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

import minipar
from minipar import Cluster, Group
from minipar.comm.tracing import tracing
from minipar.errors import Deadlock
from minipar.nn import Linear, Module
from minipar.parallel.mesh import Mesh
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.pipeline import KIND
from minipar.parallel.schedule import Program, one_f_one_b, zero_bubble
from minipar.random import Init
from minipar.spans import at_step, know, span
from minipar.tensor import Tensor
from minipar.trace.last_moments import draw_last_moments
from minipar.trace.replay import replay_page
from minipar.trace.timeline_figure import draw_timeline
from minipar.trace.trace_file import Trace, load
from minipar.trace.traced import takes, traced

STAGES, MICROS, DP = 4, 6, 2
COSTS = {"F": 1e-3, "B": 2e-3, "I": 1e-3, "W": 1e-3}  # seconds of an action
CLUSTER = Cluster(20e-6, 1 / 1e9, 1 / 4e9, slow={5: 1.3})
LINK = Cluster(20e-6, 1 / 1e9, 1 / 4e9)
WIDTH, BLOCKS = 400, 6
ACTIVATIONS, GRADIENTS = 200_000, 2_000_000  # bytes
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def staged(group: Group, dp: int, programs: Sequence[Program]) -> None:
    """A step of a schedule on so many replicas; times are declared."""
    mesh = Mesh(group, dp=dp, pp=STAGES)
    s, last = mesh.pp.rank, STAGES - 1
    for action in programs[s]:
        phase, x = action.phase, np.zeros(ACTIVATIONS, np.uint8)
        source, target = (s - 1, s + 1) if phase == "F" else (s + 1, s - 1)
        with span(KIND[phase], str(action), action.micro):
            if 0 <= source <= last and phase != "W":
                mesh.pp.recv(source)
            group.spend(COSTS[phase])
            if 0 <= target <= last and phase != "W":
                mesh.pp.send(x, target)
    with span("reduce"):
        mesh.dp.all_reduce(np.zeros(GRADIENTS, np.uint8), algorithm="ring")
    with span("optimizer"):
        group.spend(0.5e-3)


class Blocks(Module):
    """Some layers, each of which takes 0.5 ms forward and 1 ms backward."""

    def __init__(self) -> None:
        self.blocks = [Linear(Init(0) / n, WIDTH, WIDTH) for n in range(BLOCKS)]
        takes(self.blocks, 0.5e-3, 1e-3)

    def __call__(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def beside_backward(group: Group) -> None:
    """Two steps of data parallel, with two layers in a bucket."""
    model = Blocks()
    parallel = OverlappedDataParallel(model, group, bucket_bytes=8.2 * WIDTH * WIDTH)
    know(model)
    for step in range(2):
        at_step(step)
        parallel.zero_grad()
        with span("forward"):
            loss = model(Tensor(np.ones((2, WIDTH), np.float32))).sum()
        with span("backward"):
            loss.backward()
        with span("reduce"):
            parallel.sync_gradients()
        with span("optimizer"):
            group.spend(0.5e-3)


def ring(group: Group) -> None:
    group.all_reduce(np.zeros(1024, np.float32), algorithm="ring")


@cache
def watched() -> Trace:
    """The same on every machine."""
    programs = one_f_one_b(STAGES, MICROS)
    return traced(staged, DP * STAGES, args=(DP, programs), cluster=CLUSTER)[1]


TITLE = "1F1B on 2 replicas of 4 stages; rank 5 is slow"


def timeline(path: Path) -> None:
    trace = watched()
    draw_timeline(trace, 0, trace.end, TITLE).savefig(path)


def whole_page(path: Path) -> None:
    photograph(page_of(watched(), TITLE), "330&open=lanes,pipeline", 970, path)


def pipeline_view(path: Path) -> None:
    programs = zero_bubble(STAGES, 8)
    _, trace = traced(staged, STAGES, args=(1, programs), cluster=LINK)
    page = page_of(trace, "A zero-bubble schedule: 4 stages, 8 micro-batches")
    photograph(page, "260&open=pipeline", 425, path)


def overlap_view(path: Path) -> None:
    _, trace = traced(beside_backward, 4, cluster=LINK)
    page = page_of(trace, "Overlapped data parallel: 6 layers, 3 buckets, 4 ranks")
    photograph(page, "362&open=overlap", 510, path)


def collective_view(path: Path) -> None:
    _, trace = traced(ring, 4, cluster=LINK)
    photograph(page_of(trace, "all_reduce by the ring on 4 ranks"), "27&open=moves", 425, path)


def page_of(trace: Trace, title: str) -> str:
    return replay_page(trace, 0, trace.end + 1, title)


def photograph(page: str, event: int | str, height: int, path: Path) -> None:
    """That page at that event in a browser; where there is none the stored picture stays."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "replay.html")
        file.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size=1180,{height}", f"--screenshot={path}"]
        command = [browser, *options, f"file://{file}#event={event}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def last_moments(path: Path) -> None:
    """Of docs/examples/circle.py, in virtual time."""
    script = str(path.resolve().parents[1] / "examples" / "circle.py")

    def stuck(group: Group) -> None:
        with tracing(group, folder):
            runpy.run_path(script)

    with tempfile.TemporaryDirectory() as folder:
        with suppress(Deadlock):
            minipar.run(stuck, 3, cluster=Cluster(20e-6, 1 / 1e9, 1 / 4e9))
        draw_last_moments(load(folder)).savefig(path)


MADE: dict[str, Callable[[Path], None]] = {
    "timeline.png": timeline,
    "last_moments.png": last_moments,
    "replay.png": whole_page,
    "replay_pipeline.png": pipeline_view,
    "replay_overlap.png": overlap_view,
    "replay_collective.png": collective_view,
}
