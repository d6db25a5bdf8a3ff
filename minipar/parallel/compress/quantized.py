r"""Fewer bytes a number: gradients travel as float16, or as int8 with a scale.

A ring adds up on the way, but codes cannot be added up. So each rank becomes responsible for a
piece of the vector:

    code all numbers; piece j goes to rank j           all_to_all
    decode, add up the p copies of the own piece       in the model's own dtype
    code the total; everybody gets it                  all_gather

This is the all-reduce in two halves, as a ring does it, with twice a rounding: of what each rank
has, and of the total.

Letters: n numbers in the vector, w numbers in a piece, p ranks.
Left out on purpose: random rounding, which would make the int8 unbiased (Alistarh et al. 2017).
"""

from __future__ import annotations

from typing import Protocol

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.parallel.flat import pack, unpack


class Code(Protocol):
    """How numbers are written with few bytes."""

    block: int  # numbers that are coded together

    def encode(self, x: Array) -> Array:
        """x: [..., w], w a multiple of block."""

    def decode(self, coded: Array, dtype: object) -> Array:
        """[..., w] from what encode gave."""


def add_up_coded(arrays: list[Array], group: Group, code: Code) -> None:
    """The sum of the arrays over all ranks, coded on its way there and back; in place."""
    x = pack(arrays)
    xp, n, p = array_module(x), x.size, group.size
    w = -(-n // (p * code.block)) * code.block  # whole blocks, so that they are the same for all p
    pieces = xp.zeros((p, w), x.dtype)
    pieces.reshape(-1)[:n] = x
    own = code.decode(group.all_to_all(code.encode(pieces)), x.dtype).sum(axis=0)
    total = code.decode(group.all_gather(code.encode(own)), x.dtype)
    unpack(total.reshape(-1), arrays)


class Float16:
    """Half of float32's bytes: 2(p-1)/p · 2n out of each rank, n rounded up to a multiple of p.

    A number has 11 significant bits then. One above 65504 becomes infinite (and training ends with
    Diverged), one below 6e-8 becomes 0.
    """

    block = 1

    def encode(self, x: Array) -> Array:
        return x.astype("float16")

    def decode(self, coded: Array, dtype: object) -> Array:
        return coded.astype(dtype)

    def add_up(self, arrays: list[Array], group: Group) -> None:
        add_up_coded(arrays, group, self)


class Int8:
    """A quarter: integers from -127 to 127, and for each block of numbers a scale in float32.

        scale = max |x| / 127        code = x / scale, rounded

    2(p-1) · b · (block + 4) bytes out of each rank, where b = ceil(n / (p · block)) blocks are a
    piece. A number is off by at most half a scale: the larger a block, the more a single large
    number blurs the small ones around it.
    """

    def __init__(self, block: int = 256) -> None:
        self.block = block

    def encode(self, x: Array) -> Array:
        """uint8 [..., blocks, block + 4]; the last 4 bytes are the scale."""
        xp = array_module(x)
        x = x.reshape(*x.shape[:-1], -1, self.block)
        scale = (abs(x).max(axis=-1, keepdims=True) / 127).astype("float32")
        codes = xp.rint(x / xp.where(scale == 0, 1, scale)).astype("int8")
        return xp.concatenate([codes.view("uint8"), scale.view("uint8")], axis=-1)

    def decode(self, coded: Array, dtype: object) -> Array:
        scale = array_module(coded).ascontiguousarray(coded[..., -4:]).view("float32")
        x = coded[..., :-4].view("int8").astype(dtype) * scale.astype(dtype)
        return x.reshape(*x.shape[:-2], -1)

    def add_up(self, arrays: list[Array], group: Group) -> None:
        add_up_coded(arrays, group, self)
