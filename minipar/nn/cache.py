r"""What attention remembers of the positions before: their keys and values.

                           0                  length                block
    keys    [b, h, block, c]  │ ● ● ● ● ● ● ● ● │ · · · · · · · · · · │
    values  [b, h, block, c]  │ ● ● ● ● ● ● ● ● │ · · · · · · · · · · │
                                                  ↑ the next positions are written here

A position looks at itself and at those before it, and never at later ones. So its key and its value
stay what they are when the text grows: they are computed once, and kept. Who reads one more
position computes one row, where without a cache all rows would be computed again.

Letters: b batch items, h heads of this rank, c channels of a head, t new positions, s all so far.
"""

from __future__ import annotations

from minipar.array import Array, array_module, describe
from minipar.errors import ShapeMismatch


class KeyValues:
    """The keys and values of one attention layer, in memory that is there from the beginning."""

    def __init__(self, b: int, h: int, block: int, c: int, like: Array) -> None:
        """Empty, with room for `block` positions.  like: an array of the same dtype and place."""
        self._both = array_module(like).empty_like(like, shape=(2, b, h, block, c))
        self.length = 0

    @property
    def nbytes(self) -> int:
        """2·b·h·block·c numbers, however many are filled."""
        return self._both.nbytes

    @property
    def so_far(self) -> tuple[Array, Array]:
        """The keys and the values that there are, as views [b, s, h, c]."""
        keys, values = self._both[:, :, :, : self.length].swapaxes(2, 3)
        return keys, values

    def extend(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Write those of t more positions; what there is then, as views.

        k, v: [b, t, h, c]   ->   [b, s, h, c] each.  Raises: ShapeMismatch, before it writes.
        """
        _, b, h, block, c = self._both.shape
        start, t = self.length, k.shape[1]
        if k.shape != (b, t, h, c) or v.shape != k.shape or start + t > block:
            raise ShapeMismatch(
                f"key/value cache: {describe(k)} and {describe(v)} come after {start} positions; "
                f"there is room for [{b}, {block - start}, {h}, {c}]. A full cache is emptied, and "
                "filled with the end of the text."
            )
        self.length = start + t
        for kept, new in zip(self._both, (k, v)):
            kept[:, :, start : self.length] = new.swapaxes(1, 2)
        return self.so_far

    def forget(self) -> None:
        self.length = 0
