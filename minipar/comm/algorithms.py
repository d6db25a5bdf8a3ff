"""Which algorithms there are for each collective, under the names that `algorithm=` takes.

All functions of one collective are called alike: (link, buf) for broadcast, reduce and all_reduce;
(link, buf, cuts) for gather, scatter, all_gather and reduce_scatter, where piece c of the flat buf
is buf[cuts[c]:cuts[c + 1]]; (link, rows, received) for all_to_all; (link) for barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from minipar.array import Array
from minipar.comm import collectives as ring
from minipar.comm import direct, halving_doubling, naive, tree
from minipar.comm.agreed import agreed
from minipar.comm.choose import choose
from minipar.comm.mpi import native as mpi_native
from minipar.comm.nccl import native as nccl_native
from minipar.comm.wiring import Link, pieces
from minipar.errors import UsageError

Algorithm = Callable[..., Array]
Choice = str | Algorithm | None  # what `algorithm=` takes: a name, a function, or no wish


def _ring_all_gather(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    ring.ring_all_gather(link, pieces(buf, cuts))


def _ring_reduce_scatter(link: Link, buf: Array, cuts: Sequence[int]) -> None:
    ring.ring_reduce_scatter(link, pieces(buf, cuts))


ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = MappingProxyType(
    {
        "barrier": {
            "naive": naive.naive_barrier,
            "tree": tree.tree_barrier,
            "dissemination": ring.dissemination_barrier,
            "direct": direct.direct_barrier,
        },
        "broadcast": {
            "naive": naive.naive_broadcast,
            "tree": tree.tree_broadcast,
            "ring": ring.ring_broadcast,
            "halving_doubling": halving_doubling.halving_doubling_broadcast,
            "direct": direct.direct_broadcast,
        },
        "reduce": {
            "naive": naive.naive_reduce,
            "tree": tree.tree_reduce,
            "ring": ring.ring_reduce,
            "halving_doubling": halving_doubling.halving_doubling_reduce,
        },
        "all_reduce": {
            "naive": naive.naive_all_reduce,
            "tree": tree.tree_all_reduce,
            "ring": ring.ring_all_reduce,
            "halving_doubling": halving_doubling.halving_doubling_all_reduce,
            "direct": direct.direct_all_reduce,
            "flat": direct.flat_all_reduce,
        },
        "gather": {"naive": naive.naive_gather, "tree": tree.tree_gather},
        "scatter": {"naive": naive.naive_scatter, "tree": tree.tree_scatter},
        "all_gather": {
            "naive": naive.naive_all_gather,
            "tree": tree.tree_all_gather,
            "ring": _ring_all_gather,
            "halving_doubling": halving_doubling.halving_doubling_all_gather,
            "direct": direct.direct_all_gather,
        },
        "reduce_scatter": {
            "naive": naive.naive_reduce_scatter,
            "tree": tree.tree_reduce_scatter,
            "ring": _ring_reduce_scatter,
            "halving_doubling": halving_doubling.halving_doubling_reduce_scatter,
            "direct": direct.direct_reduce_scatter,
        },
        "all_to_all": {
            "naive": naive.naive_all_to_all,
            "pairwise": ring.pairwise_all_to_all,
            "direct": direct.direct_all_to_all,
        },
    }
)

BY_MPI: Mapping[str, Algorithm]
BY_NCCL: Mapping[str, Algorithm]
BY_MPI, BY_NCCL = (
    MappingProxyType({op: agreed(run, ring.dissemination_barrier) for op, run in by.items()})
    for by in (mpi_native.NATIVE, nccl_native.NATIVE)
)

# These can put the result elsewhere.
LEAVES_BUF_ALONE = frozenset({direct.direct_reduce_scatter, BY_NCCL["reduce_scatter"]})


@lru_cache(maxsize=1024)
def pick(op: str, algorithm: Choice, nbytes: int, ranks: int, medium: str) -> tuple[str, Algorithm]:
    """The algorithm for a call: its name and its function.

    algorithm: a name, None for what `choose` says, or a function that is called as those above.
    nbytes:    of the whole array, as in `cost`.
    Raises:    UsageError for a name that this collective does not have.
    """
    if callable(algorithm):
        return getattr(algorithm, "__name__", type(algorithm).__name__), algorithm
    name = choose(op, nbytes, ranks, medium) if algorithm is None else algorithm
    if name == "native":
        return name, _native(op, medium)
    known = ALGORITHMS[op]
    if name not in known:
        raise UsageError(f"{op} has no algorithm {name!r}; it has {', '.join(known)}")
    return name, known[name]


def _native(op: str, medium: str) -> Algorithm:
    found = {"mpi": BY_MPI, "nccl": BY_NCCL}.get(medium, {}).get(op)
    if found is None:
        here = (
            "these arrays go by messages" if medium == "hosts" else f"this is the {medium} backend"
        )
        raise UsageError(
            f"{op}: algorithm='native' is MPI's own, or NCCL's for arrays of a GPU, and {here}: "
            "start the script with mpirun or --backend nccl, or take one of "
            f"{', '.join(ALGORITHMS[op])}"
        )
    return found
