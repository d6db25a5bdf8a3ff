"""A table of clicks from a text file: CSV as of Criteo and Avazu, read row by row.

    label    0 or 1
    numeric  x -> sign(x)·log(1 + |x|), for counts are long-tailed; missing: not a number
    category any text -> hash(field, text) mod table; missing: the id of the empty text

An id needs no list of all texts, which would not fit where there are millions; now and then two
texts share an id (Weinberger et al. 2009). The hash is BLAKE2, the same on every machine and in
every process; Python's own hash() of a text is another one in each process.

Letters: n rows, k numbers and f ids in a row.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from minipar.errors import UsageError

GUESSED_FROM = 1000  # rows
LABELS = ("label", "click", "clicked", "target", "y")


class Layout(NamedTuple):
    """What stands in which column; columns that are not named here are passed over."""

    label: str = "label"
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of all columns, for a file whose first line does not name them
    delimiter: str = ","
    table: int = 2**14  # ids in each categorical field

    @property
    def tables(self) -> tuple[int, ...]:
        return (self.table,) * len(self.categorical)


_COUNTS = tuple(f"I{n}" for n in range(1, 14))
_TEXTS = tuple(f"C{n}" for n in range(1, 27))
CRITEO = Layout("label", _COUNTS, _TEXTS, ("label", *_COUNTS, *_TEXTS), "\t")
AVAZU = Layout(
    label="click",
    categorical=(
        *("hour", "C1", "banner_pos", "site_id", "site_domain", "site_category"),
        *("app_id", "app_domain", "app_category", "device_id", "device_ip", "device_model"),
        *("device_type", "device_conn_type", *(f"C{n}" for n in range(14, 22))),
    ),
)


class Columns(NamedTuple):
    """Where the columns of a layout stand in a file."""

    width: int
    label: int
    numeric: tuple[tuple[str, int], ...]
    categorical: tuple[tuple[str, int], ...]


def read_table(
    path: Path, layout: Layout | None = None, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Layout]:
    """dense float32 [n, k] (NaN: missing), ids int32 [n, f], click float32 [n], and the layout.

    layout: None guesses it.  rows: the most that are read.  Only numbers are kept, 4 bytes each.
    Cost: 1 µs a field.  Raises: UsageError with the line and the column.
    """
    layout = layout or guess_layout(path)
    dense, ids, click = array("f"), array("i"), array("f")
    with _rows(path, layout.delimiter) as lines:
        columns = find_columns(layout.names or next(lines)[1], layout, str(path))
        for line, fields in islice(lines, rows):
            numbers, codes, y = parse(fields, columns, layout, f"{path}, line {line}")
            dense.extend(numbers)
            ids.extend(codes)
            click.append(y)
    n = len(click)
    if n < 2:
        raise UsageError(f"{path} has {n} rows of data; two are the least that can be divided.")
    return (
        np.frombuffer(dense, np.float32).reshape(n, len(columns.numeric)),
        np.frombuffer(ids, np.int32).reshape(n, len(columns.categorical)),
        np.frombuffer(click, np.float32),
        layout,
    )


def parse_lines(
    lines: Iterable[str], layout: Layout
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """A batch of lines of a stream: x = (dense float32, ids int64) and y float32.  Missing: 0."""
    columns = find_columns(layout.names, layout, "a stream")
    fields = csv.reader(lines, delimiter=layout.delimiter, strict=True)
    rows = [parse(row, columns, layout, f"row {n} of a batch") for n, row in enumerate(fields)]
    n = len(rows)
    dense = np.array([numbers for numbers, _, _ in rows], np.float32).reshape(n, -1)
    ids = np.array([codes for _, codes, _ in rows], np.int64).reshape(n, -1)
    return (np.nan_to_num(dense, copy=False), ids), np.array([y for _, _, y in rows], np.float32)


def find_columns(header: Iterable[str], layout: Layout, where: str) -> Columns:
    """Where the columns of the layout stand in this header."""
    at = {name.strip(): n for n, name in enumerate(header)}
    missing = [n for n in (layout.label, *layout.numeric, *layout.categorical) if n not in at]
    if missing:
        raise UsageError(f"{where} has no column {', '.join(missing)}; it has {', '.join(at)}.")
    return Columns(
        len(at),
        at[layout.label],
        tuple((name, at[name]) for name in layout.numeric),
        tuple((name, at[name]) for name in layout.categorical),
    )


def parse(
    fields: list[str], columns: Columns, layout: Layout, where: str
) -> tuple[list[float], list[int], float]:
    """The numbers, the ids and the label of one row."""
    if len(fields) != columns.width:
        raise UsageError(
            f"{where} has {len(fields)} fields, expected are {columns.width}; it was cut off, or "
            f"the fields are not divided by {layout.delimiter!r}."
        )
    label = fields[columns.label].strip()
    if label not in ("0", "1"):
        raise UsageError(f"{where}, column {layout.label}: the label is {label!r}, not 0 or 1.")
    numbers = [_number(fields[at], name, where) for name, at in columns.numeric]
    codes = [stable_hash(name, fields[at], layout.table) for name, at in columns.categorical]
    return numbers, codes, float(label)


def stable_hash(field: str, text: str, table: int) -> int:
    """An id in 0 .. table-1: that of this text in this field, everywhere and forever."""
    key = f"{field}\0{text.strip()}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") % table


def _number(text: str, name: str, where: str) -> float:
    if not text.strip():
        return math.nan
    try:
        x = float(text)
    except ValueError:
        x = math.inf
    if math.isinf(x):
        raise UsageError(f"{where}, column {name}: {text!r} is no number.")
    return math.copysign(math.log1p(abs(x)), x)


def guess_layout(path: Path) -> Layout:
    """Criteo's or Avazu's; otherwise by the names in the first line and the first rows.

    The label is a column called label, click, clicked, target or y. A column of which all values
    are numbers is numeric, any other one categorical.
    """
    with _open(path) as file:
        first = file.readline()
    delimiter = "\t" if first.count("\t") > first.count(",") else ","
    with _rows(path, delimiter) as lines:
        header = [name.strip() for name in next(lines)[1]]
        rows = [fields for _, fields in islice(lines, GUESSED_FROM)]
    if len(header) == len(CRITEO.names) and header[0] in ("0", "1"):
        return CRITEO._replace(delimiter=delimiter)
    if {AVAZU.label, *AVAZU.categorical} <= set(header):
        return AVAZU._replace(delimiter=delimiter)
    label = next((name for name in header if name.lower() in LABELS), None)
    if label is None:
        raise UsageError(
            f"{path}: no column of the first line is called {', '.join(LABELS[:-1])} or "
            f"{LABELS[-1]}; it has {', '.join(header[:8])}. Rename one, or pass a Layout."
        )
    numeric = [
        name
        for n, name in enumerate(header)
        if name != label and all(_is_number(row[n]) for row in rows if n < len(row))
    ]
    others = [name for name in header if name not in numeric and name != label]
    if not numeric and not others:
        raise UsageError(f"{path} has no column but {label}; pass a table with something to see.")
    return Layout(label, tuple(numeric), tuple(others), delimiter=delimiter)


def _is_number(text: str) -> bool:
    try:
        return not text.strip() or not math.isinf(float(text))
    except ValueError:
        return False


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    """The text of a file, .gz or not; bytes that are no UTF-8 become ids like all others."""
    try:
        start = gzip.open if path.suffix == ".gz" else open
        with start(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is damaged: {error}. Fetch it again.") from error


@contextmanager
def _rows(path: Path, delimiter: str) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """The rows of a file that are not empty, each with the number of its line."""

    def rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num}: {error}.") from error

    with _open(path) as file:
        found = rows(file)
        first = next(found, None)
        if first is None:
            raise UsageError(f"{path} is empty; pass a table with a label in each row.")
        yield chain([first], found)
