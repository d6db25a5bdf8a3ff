"""`minipar verify`: every way of sharing the work against its definition, in numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import listed, verb


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "verify",
        "compare every strategy with one rank, or with its serial definition",
        "minipar verify --quick\n  minipar verify --strategies zero1,1f1b+tp,dp+1f1b+tp",
        _verify,
    )
    parser.add_argument(
        "--strategies", metavar="LIST", default="", help="names; layouts with + (default: all)"
    )
    parser.add_argument(
        "--backends", metavar="LIST", default="local,process", help="(default: local,process)"
    )
    parser.add_argument(
        "--ranks", metavar="LIST", default="", help="(default: 1,2,3,4; with --quick: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="2 ranks; pairs: under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _verify(arguments: argparse.Namespace) -> int:
    from minipar import verify
    from minipar.comm.launch import check

    backends = listed(arguments.backends)
    for backend in backends:
        check(1, backend)
    rows = verify.verify(
        listed(arguments.strategies) or None,
        backends,
        [_number(text) for text in listed(arguments.ranks)] or None,
        arguments.quick,
    )
    right: list[bool] = []
    kept = _noting(rows, right)
    for line in map(json.dumps, kept) if arguments.json else verify.table(kept):
        print(line, flush=True)
    return 0 if all(right) else 1


def _noting(rows: Iterator[dict[str, Any]], right: list[bool]) -> Iterator[dict[str, Any]]:
    for row in rows:
        right.append(row["ok"])
        yield row


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise UsageError(f"--ranks {text}: a number of ranks, or several with commas: 2,4.")
    return int(text)
