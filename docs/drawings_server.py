"""The figures of parameter_server.md: four workers, one of them slow, in virtual time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from drawings_seeing import photograph
from matplotlib.figure import Figure

import minipar
from minipar.array import Array
from minipar.comm.tracing import tracing
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import SGD
from minipar.parallel.parameter_server import (
    ASYNC,
    SYNC,
    ParameterServer,
    Report,
    Roles,
    Rule,
    serve,
    ssp,
)
from minipar.spans import span
from minipar.trace.clock_figure import draw_clocks
from minipar.trace.replay import replay_data, replay_page
from minipar.trace.staleness_figure import draw_staleness
from minipar.trace.trace_file import Trace, load
from minipar.trace.worker_figure import draw_workers

WORKERS, SLOW, UNTIL_S, LR = 4, 5.0, 200.0, 1.0
STRAGGLER = "four workers, worker 1 is 5 × slower"
RULES = {"sync": SYNC, "ssp(2)": ssp(2), "async": ASYNC}
LOOKS: dict[str, Any] = {  # colours of Okabe & Ito; the dashes tell them apart in print
    "sync": {"color": "#222222", "linestyle": "-"},
    "ssp(2)": {"color": "#0072B2", "linestyle": (0, (5, 2))},
    "async": {"color": "#D55E00", "linestyle": (0, (1, 1.2))},
}


class Net(Module):
    """x [b, 16] -> one of 4 classes."""

    def __init__(self) -> None:
        init = minipar.Init(seed=1, dtype=np.float64)
        self.up, self.down = Linear(init / "up", 16, 32), Linear(init / "down", 32, 4)

    def __call__(self, x: minipar.Tensor) -> minipar.Tensor:
        return self.down(tanh(self.up(x)))


def data() -> tuple[Array, Array]:
    """1024 rows, and the classes that another net gives them."""
    dice = np.random.default_rng(0)
    x = dice.normal(size=(1024, 16))
    return x, (np.tanh(x @ dice.normal(size=(16, 12))) @ dice.normal(size=(12, 4))).argmax(1)


class Course(NamedTuple):
    """What a run has been."""

    spans: list[list[tuple[float, float]]]  # when each worker computed
    times: list[float]  # of the server's updates
    losses: list[float]  # after them
    report: Report

    def pushes(self) -> Array:
        """How many pushes were in the weights after each update."""
        applied = [record.applied for record in self.report.records]
        return np.searchsorted(applied, np.arange(len(self.times)), side="right")


def noting(world: minipar.Group, times: list[float], losses: list[float]) -> Any:
    """Makes an optimizer that notes when it made a step, and the loss over all rows after it."""
    x, y = data()

    def make(named: Any) -> SGD:
        weights = dict(named)
        optimizer, net = SGD(weights.items(), lr=0.1), Net()
        step = optimizer.step

        def noted() -> None:
            step()
            for name, w in net.named_parameters():
                w.data = weights[name].data
            times.append(world.now_ns() / 1e9)
            losses.append(cross_entropy(net(minipar.Tensor(x)), y).item())

        optimizer.step = noted  # type: ignore[method-assign]
        return optimizer

    return make


def work(world: minipar.Group, rule: Rule, lr: float) -> Any:
    """A worker's spans; a server's times, losses and report."""
    roles = Roles(world)
    if roles.is_server:
        times: list[float] = []
        losses: list[float] = []
        return times, losses, serve(roles, Net(), noting(world, times, losses), rule)
    spans, (x, y) = [], data()
    dice = np.random.default_rng(world.rank)
    with ParameterServer(Net(), roles, lambda named: SGD(named, lr)) as ps:
        while world.now_ns() / 1e9 < UNTIL_S:
            ps.zero_grad()
            rows = dice.integers(0, len(y), 32)
            cross_entropy(ps.model(minipar.Tensor(x[rows])), y[rows]).backward()
            begin = world.now_ns() / 1e9
            world.spend(1.0)
            spans.append((begin, world.now_ns() / 1e9))
            ps.sync_gradients()
            ps.step()
    return spans


@cache
def course(name: str, slow: float = SLOW) -> Course:
    """A step of sync is one of four gradients, so its rate is four times as large."""
    rule = RULES[name]
    cluster = minipar.Cluster(slow={1: slow})
    args = rule, LR if rule.rounds else LR / WORKERS
    *spans, (times, losses, report) = minipar.run(work, WORKERS + 1, args=args, cluster=cluster)
    return Course(spans, times, losses, report)


def watched_work(world: minipar.Group, folder: Path) -> None:
    """The same workers under ssp(2) with two servers, traced."""
    with tracing(world, folder):
        roles = Roles(world, servers=2)
        if roles.is_server:
            serve(roles, Net(), partial(SGD, lr=LR), ssp(2))
            return
        x, y = data()
        with ParameterServer(Net(), roles, partial(SGD, lr=LR / WORKERS)) as ps:
            while world.now_ns() / 1e9 < 31.0:
                ps.zero_grad()
                with span("backward", "gradient"):
                    cross_entropy(ps.model(minipar.Tensor(x[:32])), y[:32]).backward()
                    world.spend(1.0)
                with span("optimizer"):
                    ps.sync_gradients()
                    ps.step()


@cache
def watched() -> Trace:
    """The same on every machine."""
    cluster = minipar.Cluster(slow={1: SLOW})
    with tempfile.TemporaryDirectory() as folder:
        minipar.run(watched_work, WORKERS + 2, args=(Path(folder),), cluster=cluster)
        return load(folder)


def clocks(path: Path) -> None:
    draw_clocks(watched(), 0, 31 * 10**9, f"ssp(2): {STRAGGLER}").savefig(path)


def replay(path: Path) -> None:
    """When version 9 is made: the quick workers have used up their lead."""
    trace, until = watched(), 16 * 10**9
    events = replay_data(trace, 0, until, "")["events"]
    made = [n for n, e in enumerate(events, 1) if e["does"] == "version" and e["value"] == 9]
    page = replay_page(trace, 0, until, f"ssp(2) on two servers: {STRAGGLER}")
    photograph(page, f"{made[0]}&open=lanes,servers", 722, path)


def timeline(path: Path) -> None:
    draw_workers({name: course(name).spans for name in RULES}, 31.0).savefig(path)


def losses(path: Path) -> None:
    """Without a straggler and with one: against pushes, and against time."""
    figure = Figure(figsize=(9.5, 5.6), dpi=140, layout="constrained")
    for row, (slow, what) in zip(
        figure.subplots(2, 2, sharey=True), ((1.0, "all equally fast"), (SLOW, "one 5 × slower"))
    ):
        for name, look in LOOKS.items():
            found = course(name, slow)
            for axes, where in zip(row, (found.pushes(), found.times)):
                axes.plot(where, found.losses, label=name, linewidth=1.8, **look)
        for axes, unit, end in zip(row, ("pushes applied", "seconds"), (160, UNTIL_S)):
            axes.set(xlim=(0, end), ylim=(0, 1.4), title=f"{what}, against {unit.split()[0]}")
            axes.set_xlabel(unit, loc="right", labelpad=1)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
        row[0].set_ylabel("loss")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path)


def staleness(path: Path) -> None:
    counts: dict[str, Counter[int]] = {f"worker {w}": Counter() for w in range(WORKERS)}
    for record in course("async").report.records:
        counts[f"worker {record.worker}"][record.staleness] += 1
    draw_staleness(counts, f"async: {STRAGGLER}").savefig(path)


MADE: dict[str, Callable[[Path], None]] = {
    "server_timeline.png": timeline,
    "server_losses.png": losses,
    "server_staleness.png": staleness,
    "server_clocks.png": clocks,
    "server_replay.png": replay,
}
