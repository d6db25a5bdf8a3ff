"""Pairs of calls that do not go together: what rank 0 does, and what the others do."""

from pathlib import Path

import numpy as np

from minipar.errors import CommError

F4 = np.ones(4, np.float32)


def nothing(group):
    pass


def rows(group, n=4):
    return np.ones((group.size, n), np.float32)


# fmt: off
PAIRS = {
    "left out by rank 0": (
        nothing,
        lambda g: g.all_reduce(F4),
    ),
    "left out by the others": (
        lambda g: g.all_reduce(F4),
        nothing,
    ),
    "broadcast left out by the root": (
        nothing,
        lambda g: g.broadcast(F4),
    ),
    "broadcast left out by the others": (
        lambda g: g.broadcast(F4),
        nothing,
    ),
    "reduce left out by the root": (
        nothing,
        lambda g: g.reduce(F4),
    ),
    "barrier left out": (
        lambda g: g.barrier(),
        nothing,
    ),
    "other collective": (
        lambda g: g.all_reduce(F4),
        lambda g: g.all_gather(F4),
    ),
    "barrier for broadcast": (
        lambda g: g.barrier(),
        lambda g: g.broadcast(F4),
    ),
    "reduce for gather": (
        lambda g: g.reduce(F4),
        lambda g: g.gather(F4),
    ),
    "scatter for all_to_all": (
        lambda g: g.scatter(rows(g)),
        lambda g: g.all_to_all(rows(g)),
    ),
    "receive for all_reduce": (
        lambda g: g.recv(1),
        lambda g: g.all_reduce(F4),
    ),
    "shape of all_reduce": (
        lambda g: g.all_reduce(F4),
        lambda g: g.all_reduce(F4[:3]),
    ),
    "shape of broadcast": (
        lambda g: g.broadcast(F4),
        lambda g: g.broadcast(F4[:3]),
    ),
    "shape of gather": (
        lambda g: g.gather(F4),
        lambda g: g.gather(F4[:3]),
    ),
    "shape of all_gather": (
        lambda g: g.all_gather(F4),
        lambda g: g.all_gather(F4[:3]),
    ),
    "shape of reduce_scatter": (
        lambda g: g.reduce_scatter(F4),
        lambda g: g.reduce_scatter(F4[:3]),
    ),
    "shape of all_to_all": (
        lambda g: g.all_to_all(rows(g)),
        lambda g: g.all_to_all(rows(g, 3)),
    ),
    "shape, same size": (
        lambda g: g.all_reduce(F4),
        lambda g: g.all_reduce(F4.reshape(2, 2)),
    ),
    "dtype, same size": (
        lambda g: g.all_reduce(F4),
        lambda g: g.all_reduce(np.ones(4, np.int32)),
    ),
    "dtype": (
        lambda g: g.reduce(F4),
        lambda g: g.reduce(np.ones(4)),
    ),
    "large and small": (
        lambda g: g.all_reduce(np.ones(1 << 20)),
        lambda g: g.all_reduce(F4),
    ),
    "op of all_reduce": (
        lambda g: g.all_reduce(F4, op="sum"),
        lambda g: g.all_reduce(F4, op="max"),
    ),
    "op of reduce": (
        lambda g: g.reduce(F4, op="sum"),
        lambda g: g.reduce(F4, op="mean"),
    ),
    "op of reduce_scatter": (
        lambda g: g.reduce_scatter(F4, op="min"),
        lambda g: g.reduce_scatter(F4, op="max"),
    ),
    "root of broadcast": (
        lambda g: g.broadcast(F4, root=0),
        lambda g: g.broadcast(F4, root=1),
    ),
    "root of broadcast, turned round": (
        lambda g: g.broadcast(F4, root=1),
        lambda g: g.broadcast(F4, root=0),
    ),
    "root of reduce": (
        lambda g: g.reduce(F4, root=0),
        lambda g: g.reduce(F4, root=1),
    ),
    "root of reduce, turned round": (
        lambda g: g.reduce(F4, root=1),
        lambda g: g.reduce(F4, root=0),
    ),
    "root of gather": (
        lambda g: g.gather(F4, root=0),
        lambda g: g.gather(F4, root=1),
    ),
    "root of gather, turned round": (
        lambda g: g.gather(F4, root=1),
        lambda g: g.gather(F4, root=0),
    ),
    "root of scatter": (
        lambda g: g.scatter(rows(g), root=0),
        lambda g: g.scatter(rows(g), root=1),
    ),
    "algorithm": (
        lambda g: g.all_reduce(F4, algorithm="ring"),
        lambda g: g.all_reduce(F4, algorithm="naive"),
    ),
}
# fmt: on


def work(group, pair, where, folder):
    """The pair, in the middle of a program or at its end; how it ended goes to a file."""
    path = Path(folder, str(group.rank))
    path.write_text("neither returned nor raised")
    group.all_reduce(F4)
    try:
        PAIRS[pair][group.rank > 0](group)
        if where == "middle":
            group.all_reduce(np.ones(7))
        path.write_text("returned")
    except CommError as error:
        path.write_text(str(error))
        raise


def skipped(group, how):
    """Rank 0 skips a call, and its next one of the same shape takes its place, unseen."""
    group.all_reduce(F4)
    if group.rank > 0:
        group.all_reduce(F4)  # SKIPPED
    group.all_reduce(F4)  # IN ITS PLACE
    if how == "fails later" and group.rank == 1:
        raise ValueError("something else")
    group.all_reduce(F4)
    if how == "mismatch":
        group.all_reduce(np.ones(9))
    group.barrier()


def branches(group, fails):
    """Calls on different lines that are meant so, also in a subgroup."""
    pair = group.subgroup([group.size - 1, 0])
    if group.rank == 0:
        group.broadcast(F4)  # THE ROOT
        pair.broadcast(F4, root=1)
    else:
        group.broadcast(np.zeros(4, np.float32))  # THE OTHERS
        if pair is not None:
            pair.broadcast(np.zeros(4, np.float32), root=1)
    group.barrier()
    if fails:
        raise ValueError("why")
    return True


COLLECTIVES = (
    "barrier",
    "broadcast",
    "reduce",
    "all_reduce",
    "gather",
    "scatter",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
)


def random_program(group, seed, length=8):
    """Random collectives, of which one rank leaves out one; all of them if seed is negative."""
    dice = np.random.default_rng(abs(seed))
    who, left_out = dice.integers(group.size), dice.integers(length)
    for i in range(length):
        call, n = str(dice.choice(COLLECTIVES)), int(dice.choice([0, 1, 3, 50_000]))
        root = int(dice.integers(group.size))
        if seed < 0 or group.rank != who or i != left_out:
            arguments = [] if call == "barrier" else [rows(group, n)]
            with_root = call in ("broadcast", "reduce", "gather", "scatter")
            getattr(group, call)(*arguments, **({"root": root} if with_root else {}))
