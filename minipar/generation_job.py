"""`minipar generate`: find a checkpoint, start the ranks that share the model, show what it writes.

    runs/gpt-1/                              a run folder: its last checkpoint
    runs/gpt-1/checkpoints/step-001500/      or a checkpoint, wherever it lies

The layout need not be the one in which the model was trained: a rank reads the weights of its
stage, and keeps its shards of them. How ranks write together is parallel/generation.py.
"""

from __future__ import annotations

import codecs
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minipar.comm.group import Group
from minipar.comm.launch import check, function_work, run, run_processes
from minipar.config import Config
from minipar.errors import CheckpointError, UsageError
from minipar.models.generate import check_writing
from minipar.models.reader import write
from minipar.nn import ONE_RANK
from minipar.parallel.checkpoint import Checkpoint
from minipar.parallel.generation import StageReader
from minipar.parallel.mesh import Mesh
from minipar.parallel.parameter_server.tables import Hollow
from minipar.parallel.tensor_layers import TensorKit
from minipar.recipes import find
from minipar.run_folder import RunFolder, config_of

VOCAB = 256  # bytes


class Request(NamedTuple):
    """What is to be written, by how many ranks."""

    prompt: bytes
    tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0
    pp: int = 1
    tp: int = 1

    @property
    def ranks(self) -> int:
        return self.pp * self.tp


def find_checkpoint(path: str | Path) -> tuple[Config, Path]:
    """The config of a run, and its checkpoint, from the folder of either.

    Raises: UsageError if it is neither; CheckpointError if there is none yet, or no config.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}; --checkpoint takes a run, like runs/gpt-1.")
    if (path / "manifest.json").is_file():
        return config_of(Checkpoint(path)), path
    if not (path / "config.json").is_file():
        raise UsageError(f"{path} is neither a run folder nor a checkpoint of one.")
    last = RunFolder(path).latest_checkpoint()
    if last is None:
        raise CheckpointError(f"{path} holds no complete checkpoint yet.")
    return RunFolder(path).config(), last


def check_request(config: Config, request: Request, backend: str) -> None:
    """Raises: UsageError with one sentence about the first thing that cannot work."""
    c, r = config, request
    if c.model != "gpt":
        raise UsageError(
            f"generate writes with gpt, which remembers what it has read; not {c.model}."
        )
    check_writing(r.prompt, r.temperature, r.top_k)
    for name in ("tokens", "pp", "tp"):
        if getattr(r, name) < 1:
            raise UsageError(f"--{name} must be at least 1.")
    if c.heads % r.tp:
        fit = ", ".join(str(n) for n in range(1, c.heads + 1) if c.heads % n == 0)
        raise UsageError(f"--tp {r.tp}: {c.heads} heads cannot be shared out evenly; use {fit}.")
    if r.pp > c.layers + 2:
        raise UsageError(
            f"--pp {r.pp}: a model of {c.layers} layers has {c.layers + 2} pieces, and each stage "
            "needs one at least."
        )
    check(r.ranks, backend)


def execute(path: str, request: Request, backend: str, as_json: bool = False) -> int:
    """Write, and show it; the exit code."""
    config, folder = find_checkpoint(path)
    check_request(config, request, backend)
    args = (config, str(folder), request, not as_json)
    if backend == "local":
        found = run(write_rank, request.ranks, args=args)
    else:
        job = run_processes(function_work(write_rank, args), request.ranks, plain=(0,))
        if job.failure is not None:
            job.failure.show(request.ranks)
            return job.failure.exit_code
        found = job.results
    told = summary(request, found)
    if as_json:
        print(json.dumps({**told, "checkpoint": str(folder), "backend": backend}))
    else:
        print(in_words(told), file=sys.stderr)
    return 0


# -- what a rank runs -------------------------------------------------------------------------


def write_rank(
    group: Group, config: Config, folder: str, request: Request, show: bool
) -> dict[str, Any]:
    """Write as one of the ranks; rank 0 shows it.  Raises: CheckpointError, UsageError."""
    r = request
    reader = open_model(group, config, folder, r.pp, r.tp)
    begun = time.perf_counter()
    tokens = write(reader, r.prompt, r.tokens, r.seed, r.temperature, r.top_k)
    written = [next(tokens)]
    first = time.perf_counter()
    if show and group.rank == 0:
        written += shown(r.prompt, written[0], tokens)
    else:
        written += tokens
    return {
        "tokens": written,
        "prompt_seconds": first - begun,
        "seconds": time.perf_counter() - begun,
        "cache_bytes": reader.nbytes,
    }


def open_model(group: Group, config: Config, folder: str, pp: int = 1, tp: int = 1) -> StageReader:
    """This rank's part of a trained model.  Collective, over pp · tp ranks."""
    mesh, source = Mesh(group, pp=pp, tp=tp), Checkpoint(folder)
    vocab = source.entry("model/token.weight").shape[0]
    if vocab != VOCAB:
        raise UsageError(
            f"{folder}: the model knows {vocab} tokens, and `generate` writes bytes, of which "
            f"there are {VOCAB}. With ids of your own tokenizer use minipar.models.write."
        )
    init = Hollow(config.seed, np.dtype(config.dtype))
    model: Any = find("gpt").build(config, init, None, TensorKit(mesh.tp) if tp > 1 else ONE_RANK)
    return StageReader(model, mesh, Weights(source))


class Weights(Mapping[str, Any]):
    """The weights of the model in a checkpoint, by name; each is read when it is asked for."""

    def __init__(self, source: Checkpoint) -> None:
        self.source = source

    def __getitem__(self, name: str) -> Any:
        return self.source.array(f"model/{name}")

    def __iter__(self) -> Iterator[str]:
        names = (name for name in self.source.arrays if name.startswith("model/"))
        return (name.removeprefix("model/") for name in names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


# -- what the user sees -----------------------------------------------------------------------


def shown(prompt: bytes, first: int, tokens: Iterator[int]) -> list[int]:
    """Print the text while it is written; the tokens after the first."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    print(printable(decode(prompt + bytes([first]))), end="", flush=True)
    rest = []
    for token in tokens:
        rest.append(token)
        print(printable(decode(bytes([token]))), end="", flush=True)
    print(printable(decode(b"", True)))
    return rest


def printable(text: str) -> str:
    """The text without what would move a cursor, or what stdout cannot encode."""
    kept = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return kept.encode(encoding, "backslashreplace").decode(encoding)


def summary(request: Request, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What there is to tell, from what the ranks found."""
    r, own = request, found[0]
    written, after = own["tokens"], own["seconds"] - own["prompt_seconds"]
    return {
        "prompt": r.prompt.decode(errors="replace"),
        "text": bytes(written).decode(errors="replace"),
        "tokens": written,
        "seed": r.seed,
        "temperature": r.temperature,
        "top_k": r.top_k,
        "ranks": r.ranks,
        "pp": r.pp,
        "tp": r.tp,
        "prompt_tokens": len(r.prompt),
        "prompt_seconds": own["prompt_seconds"],
        "seconds": own["seconds"],
        "tokens_per_s": (len(written) - 1) / after if len(written) > 1 else None,
        "cache_bytes": [rank["cache_bytes"] for rank in found],
    }


def in_words(told: dict[str, Any]) -> str:
    """Such as: prompt of 4 in 9 ms; 100 tokens in 0.21 s, 490 tokens/s; cache 262,144 bytes."""
    rate, held = told["tokens_per_s"], told["cache_bytes"]
    each = f"{max(held):,} bytes"
    if len(held) > 1:
        each += f" on a rank, {sum(held):,} on all {len(held)}"
    return (
        f"prompt of {told['prompt_tokens']} in {told['prompt_seconds'] * 1e3:.0f} ms; "
        f"{len(told['tokens'])} tokens in {told['seconds']:.2f} s"
        f"{f', {rate:.0f} tokens/s' if rate else ''}; cache {each}"
    )
