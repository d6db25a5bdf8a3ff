"""A model as a chain of pieces, so that it can be cut between any two of them.

    GPT      embedding ─ block ─ block ─ ... ─ block ─ head
    pieces   [   0         1       2             n      n+1 ]          x = piece(x, draw), in turn

A model that can be cut has a method `pieces()` that returns them. A piece is a module; where a part
of a model is none, a `Piece` makes one of a function and of what it computes with. It holds these,
and does not own them: a parameter has the name that it has in the model, and two pieces may hold
the same one (the embedding and the head of GPT do).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from minipar.nn.module import Module
from minipar.random import Draw


class Piece(Module):
    """call(x, draw), a function that computes with the modules and tensors in `parts`."""

    def __init__(self, call: Callable[[Any, Draw | None], Any], *parts: Any) -> None:
        self.call, self.parts = call, parts

    def __call__(self, x: Any, draw: Draw | None = None) -> Any:
        return self.call(x, draw)


class Sequential(Module):
    """Layers, one after another: modules or functions, of x alone or of x and the draw."""

    def __init__(self, *layers: Callable[..., Any]) -> None:
        self.layers = layers

    def __call__(self, x: Any, draw: Draw | None = None) -> Any:
        return chain(self.pieces(), x, draw)

    def pieces(self) -> list[Piece]:
        return [Piece(_taking_draw(layer), layer) for layer in self.layers]


def chain(pieces: Iterable[Callable[..., Any]], x: Any, draw: Draw | None) -> Any:
    """What comes out of the last piece."""
    for piece in pieces:
        x = piece(x, draw)
    return x


def _taking_draw(layer: Callable[..., Any]) -> Callable[..., Any]:
    takes = "draw" in inspect.signature(layer).parameters
    return layer if takes else partial(_of_x_alone, layer)


def _of_x_alone(layer: Callable[..., Any], x: Any, draw: Draw | None) -> Any:
    return layer(x)
