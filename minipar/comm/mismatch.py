"""The error of ranks that have parted ways: what each of them called, and where."""

from __future__ import annotations

from functools import lru_cache

from minipar.comm.frame import Call
from minipar.errors import CallMismatch


def mismatch(
    mine: Call,
    theirs: Call,
    rank: int,
    src: int,
    ranks: tuple[int, ...],
    seen: str = "",
    now: Call | None = None,
) -> CallMismatch:
    """Rank `rank` of a group made the call `mine`, and heard from rank `src` about `theirs`.

    ranks: world ranks in group order.  seen: what came and what should have, if calls agree.
    now:   the call that rank is in, if that is a later one.
    """
    now = now or mine
    if not seen:
        if mine[:3] == theirs[:3]:
            seen = f"sent {theirs.signature}, expected {mine.signature}"
        else:
            seen = f"sent {_named(theirs)}, expected {_named(mine)}"
    in_world, src_in_world = world_suffix(ranks, rank), world_suffix(ranks, src)
    return CallMismatch(
        f"rank {rank}/{len(ranks)}{in_world}, {now.op} #{now.sequence}: "
        f"rank {src}{src_in_world} {seen}.\n"
        f"  rank {rank}{in_world} at {mine.site}\n  rank {src}{src_in_world} at {theirs.site}\n"
        "All ranks must make the same calls in the same order, with the same shapes and "
        "dtypes; usual causes: a call inside `if rank == 0:`, or uneven batches."
    )


def _named(call: Call) -> str:
    return f"{call.op} #{call.sequence} {call.signature}".rstrip()


@lru_cache(maxsize=64)
def world_note(ranks: tuple[int, ...]) -> str:
    """A line for messages that name ranks of the world; "" if those of the group are the same."""
    if ranks == tuple(range(len(ranks))):
        return ""
    here = ", ".join(map(str, ranks))
    return f"These are ranks of the world; ranks 0 to {len(ranks) - 1} of this group are {here}"


def world_suffix(ranks: tuple[int, ...], rank: int) -> str:
    """What messages say after a rank of a group that has another number in the world."""
    return "" if ranks[rank] == rank else f" (world rank {ranks[rank]})"
