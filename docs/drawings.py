"""The figures of the pages: each a function that draws one into a file; run docs/make.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blocks.communication import measured_hash, measured_rows
from blocks.text import ALPHA, BETA, GAMMA
from matplotlib.figure import Figure
from PIL import Image  # comes with matplotlib

import minipar
from minipar import Group, cost
from minipar.config import Config
from minipar.data.glyphs import draw_glyphs
from minipar.models import GPT, MLP
from minipar.ops import cross_entropy
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.random import Init
from minipar.tensor import Tensor
from minipar.trace.chunk_figure import draw_chunks
from minipar.trace.chunks import chunk_snapshots
from minipar.trace.comm_figure import draw_comm
from minipar.trace.graph_figure import draw_graph
from minipar.trace.overlap import Moment, draw_overlap, in_time, watch
from minipar.training import FIRST_STEPS, Trainer

BLUE, ORANGE = "#0072B2", "#D55E00"
GREEN, GREY = "#009E73", "#777777"


def ring(path: Path) -> None:
    draw_chunks(chunk_snapshots("all_reduce", "ring", 4)).savefig(path)


def halving(path: Path) -> None:
    draw_chunks(chunk_snapshots("all_reduce", "halving_doubling", 4)).savefig(path)


def graph(path: Path) -> None:
    """The graph of a small language model; the embedding of bytes is its first op."""
    model = MLP(Init(0), vocab=256, context=4, d=8, hidden=(32,))
    tokens = np.arange(16).reshape(2, 8)
    loss = cross_entropy(model(tokens), tokens)
    names: dict[str, Any] = {
        "token": model.token.weight,
        "w1": model.layers[0].weight,
        "b1": model.layers[0].bias,
        "w2": model.out.weight,
        "b2": model.out.bias,
    }
    draw_graph(loss, **names).savefig(path)


def busiest(path: Path) -> None:
    """What the busiest rank sends, over the number of ranks."""
    figure, axes = _axes()
    ranks = np.arange(2, 33)
    axes.plot(ranks, ranks - 1, "--", color=ORANGE, linewidth=2)
    sent = [cost.ring_all_reduce(int(p), 1).sent for p in ranks]
    axes.plot(ranks, sent, color=BLUE, linewidth=2)
    axes.set(xlabel="ranks", ylabel="arrays sent by the busiest rank", ylim=(0, 32))
    axes.set_title("All-reduce: what the busiest rank sends")
    axes.annotate("all through rank 0: p-1", (20, 19), xytext=(-8, 0), ha="right",
                  textcoords="offset points", color=ORANGE)  # fmt: skip
    axes.annotate("ring: below 2, for any number of ranks", (32, 3), ha="right", color=BLUE)
    figure.savefig(path)


def algorithms(path: Path) -> None:
    """Predicted time of an all-reduce over its size, for each algorithm."""
    figure = Figure(figsize=(9, 4.4), dpi=150, layout="constrained")
    sizes = np.logspace(2, 9, 300)
    styles = {
        "naive": (GREY, ":"),
        "tree": (ORANGE, "--"),
        "ring": (BLUE, "-"),
        "halving_doubling": (GREEN, "-."),
    }
    for axes, p in zip(figure.subplots(1, 2, sharey=True), (8, 7)):
        for name, (colour, style) in styles.items():
            seconds = [cost.of("all_reduce", name, p, n).seconds(ALPHA, BETA, GAMMA) for n in sizes]
            axes.loglog(sizes, seconds, style, color=colour, linewidth=2, label=name)
        axes.set(title=f"{p} ranks", xlabel="bytes of the array", xlim=(1e2, 1e9))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left = figure.axes[0]
    left.set_ylabel("predicted seconds of an all-reduce")
    left.legend(frameon=False, title="algorithm=")
    figure.savefig(path)


def rounding(path: Path) -> None:
    """The largest difference between the weights of two ranks' training and one rank's."""
    figure, axes = _axes()
    for dtype, colour in (("float32", ORANGE), ("float64", BLUE)):
        one, two = (_weights_over_steps(dp, dtype) for dp in (1, 2))
        apart = {s: {n: np.abs(one[s][n] - two[s][n]).max() for n in one[s]} for s in one}
        largest = [max(by_name.values()) for by_name in apart.values()]
        axes.semilogy(list(one), largest, color=colour, linewidth=2, label=dtype)
        others = [max(d for n, d in by.items() if "qkv.bias" not in n) for by in apart.values()]
        axes.semilogy(list(one), others, ":", color=colour, label=f"{dtype}, without qkv.bias")
    axes.axvline(FIRST_STEPS, color="#999999", linewidth=1)
    axes.annotate(
        f"compared: {FIRST_STEPS} steps", (FIRST_STEPS, 1e-18), xytext=(5, 0),
        textcoords="offset points", color="#555555",
    )  # fmt: skip
    axes.set(xlabel="step", ylabel="largest difference of a weight", xlim=(0, 150), ylim=(4e-19, 1))
    axes.set_title("Two ranks against one: rounding, amplified by training")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path)


def glyphs(path: Path) -> None:
    """Digits of the training set and, beside them, of the validation set, a row for each digit."""
    sheets = []
    for split in ("train", "validation"):
        images, labels = draw_glyphs(split, 300)
        rows = [np.concatenate(images[labels == k, ..., 0][:11], axis=1) for k in range(10)]
        sheets += [np.concatenate(rows), np.full((280, 8), 255, np.uint8)]
    sheet = np.concatenate(sheets[:-1], axis=1)
    Image.fromarray(sheet // 16 * 17).save(path, optimize=True)  # 16 greys: a small file


def comm_measured(path: Path) -> None:
    """Time over bytes of each collective, measured and predicted."""
    draw_comm(measured_rows()).savefig(path, metadata={"Source": measured_hash()})


def overlap(path: Path) -> None:
    """The three forms of data parallel in virtual time, on 8 ranks."""
    forms: dict[str, Callable[..., Any]] = {
        "naive (data.py)": DataParallel,
        "in one bucket (bucketed.py)": BucketedDataParallel,
        "overlapped, buckets of 300 KB (overlapped.py)": partial(
            OverlappedDataParallel, bucket_bytes=300 * 1024
        ),
    }
    tokens = np.zeros((1, 16), int)

    def loss(model: GPT) -> Tensor:
        return cross_entropy(model(tokens), tokens)

    def seconds_of(moment: Moment) -> float:
        return moment.nbytes * 4e-9

    timelines = {
        name: in_time(
            watch(form, lambda: GPT(Init(0), 256, 16, 4, 64, 4), loss), seconds_of, 8, ALPHA, 1e-9
        )
        for name, form in forms.items()
    }
    draw_overlap(timelines).savefig(path)


MADE: dict[str, Callable[[Path], None]] = {
    "overlap.png": overlap,
    "ring.png": ring,
    "halving_doubling.png": halving,
    "graph.png": graph,
    "busiest.png": busiest,
    "algorithms.png": algorithms,
    "rounding.png": rounding,
    "glyphs.png": glyphs,
    "comm_measured.png": comm_measured,
}


def _axes() -> tuple[Figure, Any]:
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    return figure, axes


def _weights_over_steps(dp: int, dtype: str) -> dict[int, dict[str, np.ndarray]]:
    """step -> the weights after it, of a tiny GPT that is trained on dp ranks."""
    steps = 150
    config = Config(
        dp=dp, dtype=dtype, steps=steps, batch=8, block=32, layers=1, d=32, heads=2, warmup=10
    )

    def work(group: Group) -> dict[int, dict[str, np.ndarray]]:
        trainer, kept = Trainer(group, config), {}
        for step in range(1, steps + 1):
            trainer.train_step()
            if step <= FIRST_STEPS or step % 2 == 0:
                kept[step] = trainer.weights()
        return kept

    return minipar.run(work, dp)[0]
