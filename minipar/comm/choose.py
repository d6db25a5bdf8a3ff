"""Which algorithm a collective takes if the caller names none.

A pure function of what all ranks know alike, so that they cannot disagree: no clock, no setting.
Where ranks have memory in common, they use it. Else small arrays go where there are few rounds,
large ones where each rank sends few bytes. The limit was read off measurements of the process
backend with 2 to 4 ranks, rounded to a power of 4.

The local backend takes what adds up in the same order as the process backend does, but with
messages that can be watched; so both give the same bits.
"""

from __future__ import annotations

from types import MappingProxyType

SMALL_BYTES = 256 * 1024

# op: for small arrays, for large ones
MESSAGES = MappingProxyType(
    {
        "barrier": ("dissemination", "dissemination"),
        "broadcast": ("tree", "ring"),
        "reduce": ("tree", "ring"),
        "all_reduce": ("tree", "ring"),  # as few rounds as halving_doubling, or fewer
        "gather": ("tree", "tree"),  # as few bytes as any, and fewer rounds
        "scatter": ("tree", "tree"),  # one for all sizes, since only the root knows the size
        "all_gather": ("halving_doubling", "ring"),
        "reduce_scatter": ("halving_doubling", "ring"),
        "all_to_all": ("pairwise", "pairwise"),
    }
)
MEMORY = MappingProxyType(
    {
        "barrier": ("direct", "direct"),
        "broadcast": ("direct", "direct"),
        "reduce": ("tree", "tree"),
        "all_reduce": ("flat", "direct"),
        "gather": ("tree", "tree"),
        "scatter": ("tree", "tree"),
        "all_gather": ("direct", "direct"),
        "reduce_scatter": ("direct", "direct"),
        "all_to_all": ("direct", "direct"),
    }
)
WATCHED = MappingProxyType(
    {
        **MESSAGES,
        "broadcast": ("tree", "tree"),  # all bytes go through one memory: only their total counts
        "reduce": ("tree", "tree"),
        "reduce_scatter": ("ring", "ring"),
    }
)
GPUS = MappingProxyType(
    dict.fromkeys(MESSAGES, ("native", "native")) | {"scatter": MESSAGES["scatter"]}
)
TABLES = MappingProxyType({"process": MEMORY, "local": WATCHED, "nccl": GPUS})


def choose(op: str, nbytes: int, ranks: int, medium: str) -> str:
    """The name of the algorithm.

    nbytes: of the whole array (of all pieces), as in `cost`; the same on every rank.
    medium: the backend; "hosts" for ranks that have no memory in common for these arrays.
    """
    small, large = TABLES.get(medium, MESSAGES)[op]
    if ranks == 2 and op in ("broadcast", "reduce"):
        return small  # the ring saves bytes only from 3 ranks on
    return small if nbytes <= SMALL_BYTES else large
