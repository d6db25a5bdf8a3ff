r"""Tensor parallel: each rank has a part of every matrix, and all of them work on the same rows.

A layer pair is cut so that between its two products nothing needs to be sent:

                 W1: its columns                 W2: its rows
                ┌──────┬──────┐                 ┌─────────────┐
    x ── f ──►  │ r 0  │ r 1  │  ──  gelu  ──►  │    rank 0   │  ──►  partial  ── g ──►  z
                │      │      │                 ├─────────────┤       sums
                └──────┴──────┘                 │    rank 1   │
                                                └─────────────┘

Columns first: each rank has some of the hidden features, complete, so gelu can be applied. Rows
then: each rank multiplies its features by their rows of W2, and the results of all add up to z.

f and g are a conjugate pair: what one does forward, the other does backward. Every rank sends x
through its own columns, so the gradients by x of all add up (f, backward). Every rank has all of z
and the same gradient by it, so nothing is to be done (g, backward).

                             forward            backward
    copy_to_shards     f     nothing            all-reduce
    sum_over_shards    g     all-reduce         nothing
    gather_positions   f     all-gather         reduce-scatter      sequence parallel
    scatter_positions  g     reduce-scatter     all-gather          sequence parallel

Between g and the next f (dropout, the sum x + branch, layer norm) all ranks would compute the same.
Under sequence parallel each has its own positions there, of x [b, t/p, d]. An all-reduce is a
reduce-scatter and an all-gather: so it sends the same bytes, in two places.

Letters: b batch items, t positions, d features; p ranks, r own rank.
Papers: Shoeybi et al. 2019, section 3; for sequence parallel Korthikanti et al. 2022, section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.errors import ShapeMismatch
from minipar.tensor import Tensor, record, shown

POSITIONS, FEATURES = 1, -1  # axes of x [b, t, d]


def copy_to_shards(x: Tensor, group: Group) -> Tensor:
    """f: what every rank has goes to every rank's shard of a layer.   Keeps nothing."""
    return record(x.data, (x,), lambda dz, wanted: (group.all_reduce(dz),))


def sum_over_shards(x: Tensor, group: Group) -> Tensor:
    """g: the sum of what the shards gave.   Keeps nothing."""
    return record(group.all_reduce(x.data), (x,), lambda dz, wanted: (dz,))


def gather_positions(x: Tensor, group: Group) -> Tensor:
    """f of sequence parallel.   [b, t/p, d] -> [b, t, d].   Keeps nothing."""
    return record(_gathered(x.data, group), (x,), lambda dz, wanted: (_summed(dz, group),))


def scatter_positions(x: Tensor, group: Group) -> Tensor:
    """g of sequence parallel: the sum, of this rank's positions.   [b, t, d] -> [b, t/p, d]."""
    check_positions(x, group)
    return record(_summed(x.data, group), (x,), lambda dz, wanted: (_gathered(dz, group),))


def gather_features(x: Tensor, group: Group) -> Tensor:
    """The features of all ranks, where each has its own.   [..., d/p] -> [..., d].   Keeps nothing.

    Backward takes this rank's part out of dz, which must be complete: the same on all ranks.
    """
    xp, k, r = array_module(x.data), x.shape[-1], group.rank
    rows = group.all_gather(x.data)  # [p, ..., d/p]
    whole = xp.concatenate(list(rows), axis=-1)
    return record(whole, (x,), lambda dz, wanted: (dz[..., r * k : (r + 1) * k],))


def own_positions(x: Tensor, group: Group) -> Tensor:
    """Those of this rank.   [b, t, d] -> [b, t/p, d]."""
    check_positions(x, group)
    k = x.shape[1] // group.size
    return x[:, group.rank * k : (group.rank + 1) * k]


def check_positions(x: Tensor, group: Group) -> None:
    """Raises: ShapeMismatch."""
    if x.ndim < 2 or x.shape[1] % group.size:
        raise ShapeMismatch(
            f"sequence parallel: x is {shown(x)}, and its positions (the second axis) cannot be "
            f"shared out evenly among {group.size} ranks. Use another length, or other ranks."
        )


def _gathered(x: Array, group: Group) -> Array:
    """[b, t/p, d] of each rank -> [b, t, d]."""
    xp, (b, k, *rest) = array_module(x), x.shape
    rows = group.all_gather(x)  # [p, b, t/p, d]
    return xp.ascontiguousarray(rows.swapaxes(0, 1)).reshape(b, group.size * k, *rest)


def _summed(x: Array, group: Group) -> Array:
    """[b, t, d] of each rank -> [b, t/p, d], the sum at this rank's positions."""
    return group.reduce_scatter(_by_rank(x, group))[0]


def _by_rank(x: Array, group: Group) -> Array:
    """[b, t, d] -> [p, b, t/p, d]"""
    xp, (b, t, *rest) = array_module(x), x.shape
    return xp.ascontiguousarray(x.reshape(b, group.size, t // group.size, *rest).swapaxes(0, 1))


def overlapped(
    op: Callable[..., Tensor],
    x: Tensor,
    weights: Sequence[Tensor],
    group: Group,
    sequence: bool = False,
) -> Tensor:
    """op(f(x), *weights), where backward sends while it computes.

        dx = dz Wᵀ     dW = xᵀ dz, db = Σ dz
             └─ all-reduce of dx ─┘

    The vjp of the op is called in two halves, as for deferred leaves: for x, then for the weights.
    Keeps what the op keeps.   sequence: which f.
    """
    whole = Tensor(_gathered(x.data, group), x.requires_grad) if sequence else x
    z = op(whole, *weights)
    if z._node is None:
        return z
    both, none = z._node.vjp, (False,) * len(weights)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        handle = None
        dws: Sequence[Array | None] = [None] * len(weights)
        if wanted[0]:
            dx = both(dz, (True, *none))[0]
            if sequence:
                handle = group.reduce_scatter(_by_rank(dx, group), async_op=True)
            else:
                handle = group.all_reduce(dx, async_op=True)
        if any(wanted[1:]):
            dws = both(dz, (False, *wanted[1:]))[1:]
        if handle is None:
            return (None, *dws)
        return (handle.wait()[0] if sequence else handle.wait(), *dws)

    return record(z.data, (x, *weights), vjp)
