"""The figure of checkpoints.md, drawn from checkpoints that are written for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import minipar
from minipar.config import Config
from minipar.parallel.checkpoint import Checkpoint
from minipar.trace.block_figure import COLOURS, INK
from minipar.trace.figures import new_figure
from minipar.training import Trainer

LAYOUTS = {
    "1 rank": {},
    "tp 2": {"tp": 2},
    "dp 4, ZeRO 3": {"dp": 4, "zero": 3},
    "tp 2, dp 2, ZeRO 1": {"tp": 2, "dp": 2, "zero": 1},
}
ARRAYS = {
    "q, k and v:\nweight": "model/blocks.0.attention.qkv.weight",
    "mlp up:\nweight": "model/blocks.0.mlp.up.weight",
    "mlp up:\nm of AdamW": "optimizer/blocks.0.mlp.up.weight/m",
    "mlp down:\nweight": "model/blocks.0.mlp.down.weight",
}
SMALL = Config(layers=1, d=8, heads=2, block=8, batch=4, steps=1, optimizer="adamw")


def written(**layout: Any) -> Checkpoint:
    """What the ranks of a layout write."""
    config = replace(SMALL, **layout)
    with tempfile.TemporaryDirectory() as folder:
        minipar.run(_write, config.ranks, args=(config, Path(folder, "c")))
        return Checkpoint(Path(folder, "c"))


def _write(group: minipar.Group, config: Config, folder: Path) -> None:
    Trainer(group, config).save_at(folder, {})


def boxes(path: Path) -> None:
    figure = new_figure()
    figure.set_size_inches(10, 5.2)
    rows = figure.subplots(len(ARRAYS), len(LAYOUTS), height_ratios=(1, 1, 1, 1.6))
    for column, (title, layout) in enumerate(LAYOUTS.items()):
        found = written(**layout)
        for row, (label, name) in enumerate(ARRAYS.items()):
            axes = rows[row][column]
            _array(axes, found.arrays[name])
            if not row:
                axes.set_title(title, fontsize=11, color=INK)
            if not column:
                axes.set_ylabel(label, fontsize=10, color=INK, rotation=0, ha="right", va="center")
    handles = [_patch(colour) for colour in COLOURS]
    names = [f"rank {rank}" for rank in range(len(COLOURS))]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def _array(axes: Any, entry: Any) -> None:
    height, width = entry.shape
    for shard in entry.shards:
        (y, x), (h, w) = shard.box.start, shard.box.shape
        box = _patch(COLOURS[shard.rank])
        box.set_bounds(x, y, w, h)
        axes.add_patch(box)
    axes.set(xlim=(-0.2, width + 0.2), ylim=(height + 0.2, -0.2), xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)


def _patch(colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.2)


MADE: dict[str, Callable[[Path], None]] = {"checkpoint_boxes.png": boxes}
