"""What ranks are doing, as text: a column for each rank, values, and arrays in chunks.

rank 0                   rank 1 <                 rank 2
ring.py:14               ring.py:15               ring.py:15
group.send(part, r)      part = group.recv(l)     part = group.recv(l)
sent 24 B to 1           got 24 B from 0          begins all_reduce #0
waits for rank 2         is here                  waits for rank 1
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

import minipar
from minipar.array import is_array, to_numpy
from minipar.comm.wiring import even_cuts
from minipar.tensor import Tensor

PACKAGE = str(Path(minipar.__file__).parent) + os.sep
NARROWEST, WIDEST = 24, 44  # a column
WHOLE = 16  # arrays of up to so many elements are shown whole
SOME = 3  # elements from each end of larger ones


class Row(NamedTuple):
    """What is shown of one rank."""

    rank: int
    here: bool  # whether it is the one that runs
    place: str  # file:line; empty if it has not begun or has returned
    line: str
    last: str  # its last communication
    now: str  # what it waits for


def columns(rows: Sequence[Row], width: int) -> str:
    """The ranks side by side, in as many blocks as the width asks for."""
    wide = min(WIDEST, max(NARROWEST, width // max(1, len(rows))))
    per = max(1, width // wide)
    blocks = [rows[i : i + per] for i in range(0, len(rows), per)]
    return "\n\n".join(_block(block, wide) for block in blocks)


def _block(rows: Sequence[Row], wide: int) -> str:
    heads = [f"rank {row.rank}{' <' if row.here else ''}" for row in rows]
    lines = [heads, *zip(*(row[2:] for row in rows))]
    return "\n".join("".join(_cut(text, wide) for text in line).rstrip() for line in lines)


def _cut(text: str, wide: int) -> str:
    text = text if len(text) < wide - 1 else text[: wide - 4] + "..."
    return text.ljust(wide)


def users_frame(frame: FrameType | None, script: str) -> FrameType | None:
    """The innermost frame that is not minipar's or Python's own: the user's line."""
    found = None
    while frame is not None:
        path = frame.f_code.co_filename
        if path == script:
            return found or frame
        if found is None and not path.startswith((PACKAGE, "<frozen", sys.prefix, sys.base_prefix)):
            found = frame
        frame = frame.f_back
    return None


def place_of(frame: FrameType) -> tuple[str, str]:
    """file:line and the text of that line."""
    path, line = frame.f_code.co_filename, frame.f_lineno
    return f"{os.path.basename(path)}:{line}", linecache.getline(path, line).strip()


def value_text(value: Any) -> str:
    """A value in a line: arrays by dtype, shape and some elements, small ones whole."""
    if isinstance(value, Tensor):
        return f"Tensor {value_text(value.data)}"
    if not is_array(value):
        text = repr(value)
        return text if len(text) <= 200 else text[:197] + "..."
    array = to_numpy(value)
    head = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    flat = array.reshape(-1)
    if array.size <= WHOLE:
        return f"{head} {_numbers(flat)}"
    return f"{head} {_numbers(flat[:SOME])} ... {_numbers(flat[-SOME:])}"


def _numbers(flat: np.ndarray) -> str:
    return " ".join(f"{x:.6g}" if flat.dtype.kind in "fc" else str(x) for x in flat.tolist())


def chunks_text(arrays: Sequence[Any], parts: np.ndarray | None = None) -> str:
    """The same array on all ranks, cut into as many chunks as there are ranks; a line for each.

    parts: int64 [ranks, chunks]: bit q is set if rank q has contributed to it (trace/chunks).
    """
    p = len(arrays)
    flat = [None if a is None else np.asarray(to_numpy(_plain(a))).reshape(-1) for a in arrays]
    cells = [["", *(f"chunk {c}" for c in range(p))]]
    for r, array in enumerate(flat):
        cuts = even_cuts(0 if array is None else len(array), p)
        texts = [
            "-" if array is None else _chunk(array[cuts[c] : cuts[c + 1]], r, c, parts)
            for c in range(p)
        ]
        cells.append([f"rank {r}", *texts])
    widths = [max(len(row[c]) for row in cells) for c in range(p + 1)]
    return "\n".join(
        "  ".join(text.ljust(n) for text, n in zip(row, widths)).rstrip() for row in cells
    )


def _plain(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


def _chunk(chunk: np.ndarray, r: int, c: int, parts: np.ndarray | None) -> str:
    numbers = (
        _numbers(chunk)
        if len(chunk) <= SOME
        else f"{_numbers(chunk[:2])} .. {_numbers(chunk[-1:])}"
    )
    if parts is None:
        return numbers
    p = len(parts)
    who = "".join(str(q) if int(parts[r, c]) >> q & 1 else "." for q in range(p))
    return f"{who}  {numbers}"
