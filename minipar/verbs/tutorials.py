"""`minipar tutorials`: list them, or copy them."""

from __future__ import annotations

import argparse
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import verb


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "tutorials",
        "list the tutorials, or copy them",
        "minipar tutorials copy my_folder",
        _tutorials,
    )
    parser.add_argument("action", nargs="?", choices=["list", "copy"], default="list")
    parser.add_argument("folder", nargs="?", help="where to copy them")


def _tutorials(arguments: argparse.Namespace) -> int:
    from minipar import tutorial_files

    if arguments.action == "list":
        print(tutorial_files.listing())
        return 0
    if arguments.folder is None:
        raise UsageError("say where to copy the tutorials: minipar tutorials copy FOLDER.")
    print("\n".join(map(str, tutorial_files.copy(arguments.folder))))
    return 0
