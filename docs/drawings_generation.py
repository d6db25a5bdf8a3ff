"""The figures of generation.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import minipar
from minipar.array import Array
from minipar.comm.group import Group
from minipar.models import GPT, Reader
from minipar.parallel.generation import StageReader
from minipar.parallel.mesh import Mesh
from minipar.parallel.tensor_layers import TensorKit
from minipar.trace.cache_figure import draw_filling, draw_holders

BLOCKS, HEADS = 4, 4
SIZES = {"block": 8, "layers": BLOCKS, "d": 64, "heads": HEADS}  # small beside the token table
CUT = {"pp": 2, "tp": 2}
IDS = np.array([[3, 1, 4, 1, 5]])


def keys_of(reader: Reader) -> dict[int, list[Array]]:
    """By block, for each head that is here, the keys that the reader has."""
    return {n - 1: list(past.so_far[0][0].swapaxes(0, 1)) for n, past in reader.past.items()}


def keys_on_rank(group: Group) -> dict[int, list[Array]]:
    mesh = Mesh(group, **CUT)
    weights = GPT(minipar.Init(), vocab=16, **SIZES).state_dict()
    model = GPT(minipar.Init(), vocab=16, **SIZES, kit=TensorKit(mesh.tp))
    reader = StageReader(model, mesh, weights)
    reader.next(IDS, lambda logits: 0)
    return keys_of(reader.reader)


def holders() -> dict[tuple[int, int], int]:
    """(block, head) -> the rank whose cache has the keys that one rank would have for it."""
    alone = Reader(GPT(minipar.Init(), vocab=16, **SIZES))
    alone.read(IDS)
    whole = keys_of(alone)
    return {
        (block, head): rank
        for rank, found in enumerate(minipar.run(keys_on_rank, 4))
        for block, keys in found.items()
        for own in keys
        for head in range(HEADS)
        if np.allclose(own, whole[block][head], atol=1e-6)
    }


def filling(path: Path) -> None:
    draw_filling().savefig(path)


def heads(path: Path) -> None:
    draw_holders(holders(), BLOCKS, HEADS).savefig(path)


MADE: dict[str, Callable[[Path], None]] = {"cache_filling.png": filling, "cache_heads.png": heads}
