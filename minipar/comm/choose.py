"""Which algorithm a collective takes if the caller names none.

A pure function of what all ranks know alike, so that they cannot disagree: no clock, no setting.
Small arrays go where there are few rounds, large ones where each rank sends few bytes. The limit
was read off measurements of the process backend with 2 to 4 ranks, rounded to a power of 4.
"""

from __future__ import annotations

from types import MappingProxyType

SMALL_BYTES = 256 * 1024
ONE_HOST = ("local", "process")  # all links are the same memory

# op: for small arrays, for large ones
TABLE = MappingProxyType(
    {
        "barrier": ("dissemination", "dissemination"),
        "broadcast": ("tree", "ring"),
        "reduce": ("tree", "ring"),
        "all_reduce": ("tree", "ring"),  # as few rounds as halving_doubling, or fewer
        "gather": ("tree", "tree"),  # as few bytes as any, and fewer rounds
        "scatter": ("tree", "tree"),  # one for all sizes, since only the root knows the size
        "all_gather": ("halving_doubling", "ring"),
        "reduce_scatter": ("halving_doubling", "ring"),
        "all_to_all": ("direct", "direct"),
    }
)


def choose(op: str, nbytes: int, ranks: int, backend: str) -> str:
    """The name of the algorithm.

    nbytes: of the whole array (of all pieces), as in `cost`; the same on every rank.
    """
    small, large = TABLE[op]
    if op in ("broadcast", "reduce") and (backend in ONE_HOST or ranks == 2):
        return small  # where all bytes go through one memory, only their total counts
    return small if nbytes <= SMALL_BYTES else large
