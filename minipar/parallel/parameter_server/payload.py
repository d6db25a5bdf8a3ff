"""Values of keys as the arrays of a message, and back.

    keys of a shard     up.weight   up.bias   norm.weight  │  deep.weight (a table)
    messages            [ bundle ]  [ bundle            ]  │  ids [k]   rows [k, d]

What is not given is left out; how many rows of each key are given stands in the head. Dense values
may be written with fewer bytes (`compress`); rows of tables are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minipar import sparse
from minipar.array import Array, describe
from minipar.errors import ShapeMismatch, UsageError
from minipar.parallel.compress.quantized import Code, Float16, Int8
from minipar.parallel.flat import pack
from minipar.parallel.parameter_server.keys import Key, Shard
from minipar.sparse import RowGradient

Values = dict[int, Any]  # by the key's place in the shard: an array, or a RowGradient
CODES = ("none", "float16", "int8")


def code_of(number: int) -> Code | None:
    """How dense values are written: None is as they are.  Raises: UsageError."""
    if not 0 <= number < len(CODES):
        raise UsageError(f"there is no code {number}; there are {', '.join(CODES)}.")
    return (None, Float16(), Int8())[number]


def counts_of(shard: Shard, values: Mapping[int, Any]) -> list[int]:
    """For the head: so many rows of each key are given."""
    counts = [0] * len(shard.keys)
    for i, value in values.items():
        counts[i] = len(value.ids) if isinstance(value, RowGradient) else shard.keys[i].rows
    return counts


def messages_of(shard: Shard, values: Mapping[int, Any], code: Code | None = None) -> list[Array]:
    """The arrays to send.  values: arrays of dense keys, RowGradients of tables."""
    found = [bundle_of([values[i] for i in given]) for given in _given(shard, values)]
    if code is not None:
        found = [code.encode(_padded(vector, code.block)) for vector in found]
    for i in shard.tables:
        if i in values and len(values[i].ids):
            found += [values[i].ids, values[i].rows]
    return found


def values_of(
    shard: Shard, counts: Sequence[int], messages: Sequence[Array], code: Code | None = None
) -> Values:
    """What messages_of sent.  Raises: UsageError, ShapeMismatch, which name the key."""
    _check_counts(shard, counts)
    given = [i for i in shard.dense if counts[i]]
    values: Values = {}
    left = iter(messages)
    for bundle in _given(shard, given):
        keys = [shard.keys[i] for i in bundle]
        vector = _next(left, keys)
        if code is not None:
            vector = _decoded(vector, keys, code)
        values |= zip(bundle, parts_of(vector, keys))
    for i in shard.tables:
        if counts[i]:
            key = shard.keys[i]
            values[i] = rows_of(key, _next(left, [key]), _next(left, [key]))
    if next(left, None) is not None:
        raise UsageError("more arrays came than its head announced.")
    return values


def bundle_of(arrays: Sequence[Array]) -> Array:
    """One vector: a lone array as it is, several as a copy."""
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0]).reshape(-1)
    return pack(arrays)


def parts_of(vector: Array, keys: Sequence[Key]) -> list[Array]:
    """The arrays that bundle_of made one: views of it.  Raises: ShapeMismatch."""
    n = sum(key.size for key in keys)
    if vector.shape != (n,) or vector.dtype != keys[0].dtype:
        raise ShapeMismatch(
            f"{_named(keys)} came as {describe(vector)}, expected {keys[0].dtype}[{n}]."
        )
    starts = np.cumsum([0, *(key.size for key in keys)])
    return [vector[a : a + key.size].reshape(key.shape) for a, key in zip(starts, keys)]


def rows_of(key: Key, ids: Array, rows: Array) -> RowGradient:
    """Rows in any order, those with the same id added up.  Raises: ShapeMismatch, UsageError."""
    check_ids(key, ids)
    if rows.shape != (len(ids), *key.shape[1:]) or rows.dtype != key.dtype:
        raise ShapeMismatch(
            f"{key.name}: {len(ids)} ids came with rows {describe(rows)}, expected "
            f"{key.dtype}[{len(ids)}, {key.shape[1]}]."
        )
    if (ids[1:] > ids[:-1]).all():
        return RowGradient(ids, rows, key.shape)
    return RowGradient.of(ids, rows, key.shape)


def check_ids(key: Key, ids: Array) -> None:
    """ids: rows of this key, counted from its first.  Raises: ShapeMismatch, UsageError."""
    if ids.ndim != 1 or ids.dtype != np.int64:
        raise ShapeMismatch(f"{key.name}: ids are int64[k], not {describe(ids)}.")
    low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    if low < 0 or high >= key.rows:
        raise UsageError(
            f"{key.name}: the ids run from {low + key.start} to {high + key.start}, the rows of "
            f"this key from {key.start} to {key.stop - 1}."
        )


def not_finite(values: Mapping[int, Any]) -> int | None:
    """The first key that has NaN or infinity."""
    for i, g in values.items():
        x = sparse.values(g).reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            total = x @ x  # half the time of isfinite; what is finite may overflow here
        if not np.isfinite(total) and not np.isfinite(x).all():
            return i
    return None


# -- what they share --------------------------------------------------------------------------


def _given(shard: Shard, values: Any) -> Iterator[list[int]]:
    """The keys in each bundle of which any is there."""
    for bundle in shard.bundles:
        given = [i for i in bundle if i in values]
        if given:
            yield given


def _check_counts(shard: Shard, counts: Sequence[int]) -> None:
    if len(counts) != len(shard.keys):
        raise UsageError(
            f"unknown key: {len(counts)} keys were named, this server has {len(shard.keys)}."
        )
    for i in shard.dense:
        if counts[i] not in (0, shard.keys[i].rows):
            raise ShapeMismatch(
                f"{shard.keys[i].name}: {counts[i]} rows were announced, expected "
                f"{shard.keys[i].rows}."
            )


def _next(left: Iterator[Array], keys: Sequence[Key]) -> Array:
    array = next(left, None)
    if array is None:
        raise UsageError(f"{_named(keys)} was announced, but did not come.")
    return array


def _padded(vector: Array, block: int) -> Array:
    return vector if block == 1 else np.pad(vector, (0, -len(vector) % block))


def _decoded(coded: Array, keys: Sequence[Key], code: Code) -> Array:
    n = sum(key.size for key in keys)
    like = code.encode(np.zeros(-(-n // code.block) * code.block, keys[0].dtype))
    if (coded.shape, coded.dtype) != (like.shape, like.dtype):
        raise ShapeMismatch(
            f"{_named(keys)} came as {describe(coded)}, expected {describe(like)}, compressed."
        )
    return code.decode(coded, keys[0].dtype)[:n]


def _named(keys: Sequence[Key]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{keys[0].name}{more}"
