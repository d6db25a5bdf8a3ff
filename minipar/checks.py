"""Checks of the graph that cost time, for when a gradient is wrong and nobody knows why.

    with minipar.checks():
        loss = model(x)
        weight.data += 1          # the mistake: a vjp still needs the old weight
        loss.backward()           # GraphError: names the op, its line, and what was changed

A vjp keeps arrays from the forward pass in its closure. Inside `checks()` each gets a checksum when
it is recorded, which is compared when backward arrives there. Outside, nothing of this file runs.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minipar.ambient import grad_enabled
from minipar.array import Array, array_module, describe, is_array, to_numpy
from minipar.errors import GraphError
from minipar.graph import Node
from minipar.labels import Labels
from minipar.tensor import Tensor


@contextmanager
def checks() -> Iterator[None]:
    """Check everything that is recorded inside, up to its backward (which may come later).

    Found are: an array that a vjp keeps, changed in place; a vjp that writes into dz, or that
    returns an array which it keeps.  Raises (in backward): GraphError.
    And a shard or a partial sum that is used as the whole (labels.py).  Raises: LabelMismatch.
    Cost: reads all kept arrays twice.
    """
    token = grad_enabled.set(_Checker())
    try:
        yield
    finally:
        grad_enabled.reset(token)


class _Checker:
    """As the value of `grad_enabled`, gets every node that is recorded."""

    def __init__(self) -> None:
        self.labels = Labels()

    def watch(self, node: Node) -> None:
        """Put a vjp into the node that checks, then does what the old one did."""
        self.labels.pass_on(node)
        vjp, made_by = node.vjp, str(node)
        kept = list(_kept(vjp))
        before = [_checksum(value) for _, value in kept]

        @functools.wraps(vjp)
        def checked(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
            for (name, value), old in zip(kept, before):
                if _checksum(value) != old:
                    raise GraphError(
                        f"backward of {made_by}: its {name}, {describe(_array(value))}, has been "
                        "changed in place since the forward pass, so the gradient would be wrong. "
                        "Usual causes: optimizer.step() or x.data[...] = before backward()."
                    )
            seen = _checksum(dz)
            results = vjp(dz, wanted)
            if _checksum(dz) != seen:
                raise GraphError(
                    f"backward of {made_by}: its vjp has written into dz, which others may see. "
                    "Compute into a new array: dx = dz * 2, not dz *= 2."
                )
            for name, value in kept:
                if any(g is not None and _same(g, _array(value)) for g in results):
                    raise GraphError(
                        f"backward of {made_by}: its vjp returns {name}, which it also keeps; the "
                        "engine may add to it in place. Return a copy."
                    )
            return results

        node.vjp = checked


def _kept(vjp: Any) -> Iterator[tuple[str, Any]]:
    """(name, array or tensor) of what the closure holds, also in tuples and lists."""
    names, cells = vjp.__code__.co_freevars, vjp.__closure__ or ()
    for name, cell in zip(names, cells):
        value = cell.cell_contents
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Tensor) or is_array(part):
                yield name, part


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else value


def _checksum(value: Any) -> int:
    array = _array(value)
    return zlib.crc32(np.ascontiguousarray(to_numpy(array)).tobytes()) if is_array(array) else 0


def _same(g: Any, array: Array) -> bool:
    return type(g) is type(array) and array_module(g).may_share_memory(g, array)
