"""The gradient of a table: rows with one id added up, always in the same order (embedding.cu)."""

from __future__ import annotations

from minipar.cuda.source import Array, contiguous, launch, width

WARPS = 8


def sum_to_table(ids: Array, rows: Array, n: int) -> Array:
    """What `segments.sum_to_table` gives.   ids: integers [m]   rows: [m, d] -> [n, d].

    One sort of the ids, and each row is read once; nobody waits.
    """
    import cupy

    rows = contiguous(rows)
    (m, d), table = rows.shape, cupy.zeros((n, rows.shape[1]), rows.dtype)
    if not m:
        return table
    ids = ids.astype("int64", copy=False)
    order = cupy.argsort(ids, kind="stable")
    w = width(d, rows, table)
    kernel = ("embedding", "sum_runs", rows.dtype, w)
    launch(kernel, (m, -(-d // (32 * w))), (32, WARPS), ids[order], order, rows, table, m, d)
    return table
