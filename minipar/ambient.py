"""The only state that is not passed as an argument: three values, each its own per rank.

Ranks may be threads of one process, so these are context variables and not globals: a switch to
another rank inside `with no_grad():` does not leak into that rank. `launch` gives every rank a
context of its own. A test holds that no other module keeps mutable state.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

grad_enabled: ContextVar[Any] = ContextVar("grad_enabled", default=True)  # or False, or see checks
recorder: ContextVar[Any] = ContextVar("recorder", default=None)  # an events.Recorder, or None
world: ContextVar[Any] = ContextVar("world", default=None)  # the Group of all ranks, or None
