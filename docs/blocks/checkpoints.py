"""Blocks of checkpoints.md: a manifest, and what `minipar checkpoint` says."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
from drawings_checkpoints import written

from blocks.text import fenced, said
from minipar.parallel import checkpoint


def manifest() -> str:
    """A checkpoint with one array."""
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder, "step-000500")
        checkpoint.save(step, {"model/out.bias": np.arange(4, dtype=np.float32)}, {"step": 500})
        content = json.loads((step / "manifest.json").read_text())
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[\s+(\d+)\s+\]", r"[\1]", text)
    text = re.sub(r'("sha256": ".{8})[^"]*', r"\1...", text)
    return fenced(text, "json")


def boxes_of(name: str, *layout: str) -> str:
    """The files of an array that the ranks of a layout write."""
    sizes = {axis: int(n) for axis, n in (word.split("=") for word in layout)}
    found = written(**sizes).arrays[name]
    lines = [f"{name}   {' x '.join(map(str, found.shape))}   {', '.join(layout)}", ""]
    for shard in found.shards:
        rows, columns = (f"{a:3d} to {b:3d}" for a, b in zip(*shard.box))
        lines.append(f"rows {rows}   columns {columns}   rank {shard.rank}   {shard.file}")
    return fenced("\n".join(lines))


def shown() -> str:
    """What `minipar checkpoint show` says of a small one, and of one with a flipped bit."""
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder, "step-000500")
        x = np.arange(12, dtype=np.float32).reshape(3, 4)
        arrays = {
            "model/out.weight": x,
            "optimizer/out.weight/m": x,
            "optimizer/step": np.array(7),
        }
        meta = {"step": 500, "seed": 0, "layout": {"dp": 1, "pp": 1, "tp": 1, "zero": 0}}
        meta["data"] = {"epoch": 2, "batch": 14, "rows": 16}
        checkpoint.save(step, arrays, meta)
        whole = said(["checkpoint", "show", str(step)])
        path = step / "model/out.weight.npy"
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        damaged = said(["checkpoint", "show", str(step), "--verify"]).splitlines()[-1]
    text = "\n".join(
        ["$ minipar checkpoint show step-000500", whole, "",
         "$ minipar checkpoint show step-000500 --verify      # after a bit was flipped", damaged]
    )  # fmt: skip
    return fenced(text.replace(f"{folder}/", ""))


BLOCKS = (manifest, boxes_of, shown)
