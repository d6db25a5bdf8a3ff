"""Adding up the rows that share an id, each time in the same order.

    ids     3  1  3  3  1           sorted      1  1  │  3  3  3
    rows    a  b  c  d  e                       b  e  │  a  c  d
                                    sums       b + e  │ a + c + d

The gradient of a table is such a sum, and so is that of an index that names an element twice. After
a stable sort each id's rows are a run. NumPy's `add.reduceat` adds up runs one row after the other.
A GPU has nothing of this kind: its atomic additions come in any order, so that a sum of floats is
never the same twice, and CuPy's `add.reduceat` takes differences of one running sum over all rows,
in which small rows after large ones are lost. There the runs are added up by doubling:

    step 1      a   a+b     b+c       c+d           each row adds the one before it,
    step 2      a   a+b   a+b+c   a+b+c+d           then the one two places before, then four, ...

if that belongs to the same id. After ⌈log₂ m⌉ steps the last row of each run holds its sum.

Letters: m rows, k ids that occur, n ids that can occur.
Paper: Hillis & Steele 1986.
"""

from __future__ import annotations

from minipar.array import Array, array_module, on_host


def sum_by_id(ids: Array, rows: Array) -> tuple[Array, Array]:
    """The ids that occur, rising, and the sum of each one's rows.   [m], [m, ...] -> [k], [k, ...].

    Sums are made in float32 at least.
    Cost: m log m for the order and three passes over the rows; on a GPU 3 ⌈log₂ m⌉ passes, and the
    host waits, because k must be known.
    """
    if not len(ids):
        return ids, rows
    xp = array_module(rows)
    ids, runs = _sorted(ids, rows)
    edges = xp.flatnonzero(ids[1:] != ids[:-1])  # the last row of each run but the last
    if on_host(rows):
        begins = xp.concatenate([xp.zeros(1, edges.dtype), edges + 1])
        found, sums = ids[begins], xp.add.reduceat(runs, begins, axis=0)
    else:
        ends = xp.concatenate([edges, xp.full(1, len(ids) - 1, edges.dtype)])
        found, sums = ids[ends], _sums_so_far(ids, runs)[ends]
    return found, sums.astype(rows.dtype, copy=False)


def sum_to_table(ids: Array, rows: Array, n: int) -> Array:
    """Row i of the result is the sum of the rows with id i.   [m], [m, ...] -> [n, ...].

    As `sum_by_id`, except that nobody waits for a GPU. The ids must be in 0 .. n - 1.
    """
    xp = array_module(rows)
    if on_host(rows) or not len(ids):
        found, sums = sum_by_id(ids, rows)
        table = xp.zeros((n, *rows.shape[1:]), rows.dtype)
        table[found] = sums
        return table
    ids, runs = _sorted(ids, rows)
    every = xp.arange(n, dtype=ids.dtype)
    last = xp.searchsorted(ids, every, side="right") - 1  # -1: neither it nor any before it occurs
    sums = xp.where(_column(ids[last] == every, runs), _sums_so_far(ids, runs)[last], 0)
    return sums.astype(rows.dtype, copy=False)


def _sorted(ids: Array, rows: Array) -> tuple[Array, Array]:
    """By id, equal ones in the order in which they came; half precision becomes single."""
    order = array_module(rows).argsort(ids, kind="stable")
    wide = rows if rows.dtype.itemsize >= 4 else rows.astype("float32")
    return ids[order], wide[order]


def _sums_so_far(ids: Array, rows: Array) -> Array:
    """For each row the sum of its run up to there; ids are sorted, rows are used up."""
    xp, step = array_module(rows), 1
    while step < len(ids):
        same = ids[step:] == ids[:-step]
        rows[step:] += xp.where(_column(same, rows), rows[:-step], 0)
        step *= 2
    return rows


def _column(mask: Array, rows: Array) -> Array:
    """One bool for each row, shaped so that it broadcasts along the row."""
    return mask.reshape(-1, *(1,) * (rows.ndim - 1))
