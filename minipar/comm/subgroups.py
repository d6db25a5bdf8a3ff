"""Who is in which group after a split, and which number tells the groups' messages apart.

Every message carries the number of its group, so two groups that share a pair of ranks must not
have the same one, though nobody has a view of all groups. Each rank counts how many splits it has
seen. In a split all ranks of the parent exchange their counts, and go on from the highest plus 1:

    serial = 1 + highest count in the parent       number = serial · (ranks of the world) + lowest
                                                                          world rank of the group

All members compute the same number from the same table. And no two groups have the same:
- two groups with a rank in common have different serials, since that rank's count had reached the
  serial of the first when the second was made, and the second's is higher;
- two groups without a rank in common have different lowest ranks.
The world has number 0: serial 0, lowest rank 0.
"""

from __future__ import annotations

from operator import index

import numpy as np

from minipar.errors import UsageError


class Serials:
    """The highest serial that the groups of one rank have: they all share this object."""

    def __init__(self) -> None:
        self.highest = 0


def entry(color: int | None, key: int, serials: Serials) -> np.ndarray:
    """A rank's line in the table that the ranks of the parent exchange.  Raises: UsageError."""
    try:
        line = [
            color is not None,
            0 if color is None else index(color),
            index(key),
            serials.highest,
        ]
    except TypeError:
        raise UsageError(
            f"split: color and key are integers, not {color!r} and {key!r}; color may be None"
        ) from None
    return np.array(line, np.int64)


def members(table: np.ndarray, rank: int) -> list[int]:
    """The ranks of the parent that are in the group of `rank`, in order; empty for color None.

    table: [p, 4], the entries of all ranks.
    """
    inside, color, key, _ = table.T
    if not inside[rank]:
        return []
    same = np.flatnonzero(inside.astype(bool) & (color == color[rank]))
    return sorted((int(r) for r in same), key=lambda r: (key[r], r))


def group_number(table: np.ndarray, lowest: int, world: int, serials: Serials) -> int:
    """The new group's number, as above; counts the split.  lowest: its lowest world rank."""
    serials.highest = int(table[:, 3].max()) + 1
    return serials.highest * world + lowest
