"""`minipar checkpoint`: show what is in one, or convert it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from minipar.verbs.verb import verb


def add(verbs: Any) -> None:
    example = (
        "minipar checkpoint show runs/gpt-1 --verify\n"
        "  minipar checkpoint convert runs/gpt-1 whole\n"
        "  minipar checkpoint convert runs/gpt-1 in_parts --layout dp=2,tp=2"
    )
    parser = verb(verbs, "checkpoint", "show a checkpoint, or convert it", example, None)
    whats = parser.add_subparsers(metavar="WHAT", required=True)
    show = verb(
        whats, "show", "what is in a checkpoint", "minipar checkpoint show runs/gpt-1", _show
    )
    show.add_argument("folder", metavar="DIR", help="a checkpoint, or a run folder: its last one")
    show.add_argument("--verify", action="store_true", help="compare the hashes of all files")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    convert = verb(
        whats,
        "convert",
        "write a checkpoint in another layout, or as a file of GPT-2",
        "minipar checkpoint convert runs/gpt-1 gpt2.safetensors",
        _convert,
    )
    convert.add_argument("source", metavar="SRC", help="a checkpoint, a run folder, .safetensors")
    convert.add_argument("target", metavar="DST", help="a new folder, or FILE.safetensors")
    convert.add_argument(
        "--layout", metavar="SIZES", help="as dp=2,pp=1,tp=2,zero=0 (default: whole arrays)"
    )


def _show(arguments: argparse.Namespace) -> int:
    from minipar import checkpoint_job

    found = checkpoint_job.described(arguments.folder, arguments.verify)
    print(json.dumps(found) if arguments.json else checkpoint_job.in_words(found))
    return 1 if found["problems"] else 0


def _convert(arguments: argparse.Namespace) -> int:
    from minipar import checkpoint_job

    layout = checkpoint_job.layout_of(arguments.layout) if arguments.layout else None
    print(checkpoint_job.convert(arguments.source, arguments.target, layout))
    return 0
