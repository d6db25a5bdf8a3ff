"""Where a value was made: the op, and the line of the user's program that called it.

Every recorded value keeps its origin, so that an error about it can say which line to look at. It
costs a tenth of a microsecond: a code object and a position in it; the line is worked out when
somebody asks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

HERE = Path(__file__).parent
INNER = frozenset(
    [str(path) for part in ("nn", "ops") for path in HERE.joinpath(part).glob("*.py")]
    + [str(HERE / "spans.py")]  # around the __call__ of every module
)

Origin = tuple[CodeType, int]


def caller() -> Origin:
    """The nearest frame that belongs neither to an op nor to a layer; to be called by `record`."""
    frame = sys._getframe(2)
    code = frame.f_code
    while code.co_filename in INNER and frame.f_back is not None:
        frame = frame.f_back
        code = frame.f_code
    return code, frame.f_lasti


def place(origin: Origin) -> str:
    """file:line, as short as it is clear."""
    code, position = origin
    line = code.co_firstlineno
    for start, stop, number in code.co_lines():
        if start <= position < stop and number is not None:
            line = number
    path = code.co_filename
    near = os.path.relpath(path) if os.path.isabs(path) else path
    return f"{path if near.startswith('..') else near}:{line}"


def op_name(vjp: Any) -> str:
    """The op whose vjp this is: the function that it was defined in."""
    return getattr(vjp, "__qualname__", "?").split(".<locals>.")[-2:][0]
