"""`minipar generate`: let a trained GPT go on with a text."""

from __future__ import annotations

import argparse
import os
from typing import Any

from minipar.verbs.verb import verb


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "generate",
        "let a trained gpt write, on one rank or on many",
        "minipar generate --checkpoint runs/gpt-1 --prompt 'def ' --tokens 200\n"
        "  minipar generate --checkpoint runs/gpt-1 --prompt 'def ' --tp 2 --pp 2",
        _generate,
    )
    parser.add_argument(
        "--checkpoint", metavar="DIR", required=True, help="a run folder, or a checkpoint in it"
    )
    parser.add_argument("--prompt", metavar="TEXT", required=True, help="what it goes on with")
    for name, default, text in (
        ("tokens", 200, "bytes to write"),
        ("seed", 0, "of the draws: the same seed gives the same text in every layout"),
        ("tp", 1, "ranks that share each layer"),
        ("pp", 1, "stages, each with some of the layers"),
    ):
        parser.add_argument(
            f"--{name}", type=int, metavar="N", default=default, help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        default=0.7,
        help="below 1 more cautious, 0 always the likeliest (default: 0.7)",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest bytes")
    parser.add_argument(
        "--backend", metavar="NAME", help="local or process (default: process, for one rank local)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, and nothing else")


def _generate(arguments: argparse.Namespace) -> int:
    from minipar import generation_job

    a = arguments
    prompt = os.fsencode(a.prompt)  # the bytes as they were typed
    request = generation_job.Request(prompt, a.tokens, a.temperature, a.top_k, a.seed, a.pp, a.tp)
    backend = a.backend or ("process" if request.ranks > 1 else "local")
    return generation_job.execute(a.checkpoint, request, backend, a.json)
