"""The figures of seeing.md: a pipeline in virtual time, as a timeline and in a browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from minipar import Cluster, Group
from minipar.parallel.mesh import Mesh
from minipar.parallel.pipeline import KIND
from minipar.parallel.schedule import one_f_one_b
from minipar.spans import span
from minipar.trace.replay import replay_page
from minipar.trace.timeline_figure import draw_timeline
from minipar.trace.trace_file import Trace
from minipar.trace.traced import traced

STAGES, MICROS, DP = 4, 6, 2
COSTS = {"F": 1e-3, "B": 2e-3}  # seconds of an action
CLUSTER = Cluster(20e-6, 1 / 1e9, 1 / 4e9, slow={5: 1.3})
ACTIVATIONS, GRADIENTS = 200_000, 2_000_000  # bytes
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def work(group: Group) -> None:
    """A step of 1F1B on two replicas of four stages, then the gradients; times are declared."""
    mesh = Mesh(group, dp=DP, pp=STAGES)
    s, last = mesh.pp.rank, STAGES - 1
    for action in one_f_one_b(STAGES, MICROS)[s]:
        phase, x = action.phase, np.zeros(ACTIVATIONS, np.uint8)
        source, target = (s - 1, s + 1) if phase == "F" else (s + 1, s - 1)
        with span(KIND[phase], str(action), action.micro):
            if 0 <= source <= last:
                mesh.pp.recv(source)
            group.spend(COSTS[phase])
            if 0 <= target <= last:
                mesh.pp.send(x, target)
    with span("reduce"):
        mesh.dp.all_reduce(np.zeros(GRADIENTS, np.uint8), algorithm="ring")
    with span("optimizer"):
        group.spend(0.5e-3)


@cache
def watched() -> Trace:
    """The same on every machine."""
    return traced(work, DP * STAGES, cluster=CLUSTER)[1]


TITLE = "1F1B on 2 replicas of 4 stages; rank 5 is slow"


def timeline(path: Path) -> None:
    trace = watched()
    draw_timeline(trace, 0, trace.end, TITLE).savefig(path)


def screenshot(path: Path, event: int) -> None:
    trace = watched()
    photograph(replay_page(trace, 0, trace.end + 1, TITLE), event, 1170, path)


def photograph(page: str, event: int, height: int, path: Path) -> None:
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


MADE: dict[str, Callable[[Path], None]] = {
    "timeline.png": timeline,
    "replay.png": partial(screenshot, event=330),
}
