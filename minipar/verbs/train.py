"""`minipar train`: options become a `Config`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import verb

TRAIN_HELP = (
    ("dp", "N", "data-parallel replicas: ranks that share each batch"),
    ("pp", "N", "pipeline: stages, each on a rank, in each replica"),
    ("tp", "N", "tensor parallel: ranks that share each layer, in each replica and stage"),
    ("backend", "NAME", "process: a process for each rank; local: threads taking turns; mpi; nccl"),
    ("share_gpu", "", "nccl: several ranks on one GPU; slow, to try things out"),
    ("data", "PATH", "your own: texts, MNIST or CIFAR files, a CSV (default: see docs/data.md)"),
    ("steps", "N", "optimizer steps"),
    ("batch", "N", "examples per step, over all ranks"),
    ("block", "N", "text: length of a sequence, in bytes"),
    ("layers", "N", "number of layers (not resnet)"),
    ("d", "N", "width of the model (not resnet)"),
    ("heads", "N", "attention heads (gpt, vit)"),
    ("patch", "N", "pixels along a patch (vit)"),
    ("size", "NAME", "resnet-8, -20, -18, -34, -50, -101, or separable-20"),
    ("dropout", "P", "probability that an activation is dropped"),
    ("optimizer", "NAME", "adamw, sgd (with momentum) or adagrad"),
    ("momentum", "X", "momentum of sgd"),
    ("lr", "X", "learning rate at its highest, after the warm-up"),
    ("warmup", "N", "steps of linear warm-up"),
    ("min_lr", "X", "learning rate at the end of the cosine"),
    ("weight_decay", "X", "weight decay, of adamw on matrices only"),
    ("clip", "X", "clip the gradient to this norm"),
    ("dtype", "NAME", "float32 or float64"),
    ("precision", "NAME", "compute in float16 or bfloat16, with weights in float32"),
    ("device", "NAME", "cpu, or cuda: the GPU of each rank"),
    ("seed", "N", "seed of all random numbers"),
    ("save_every", "N", "steps between checkpoints; 0: only at the end"),
    ("save_in_background", "", "write checkpoints beside training, from copies"),
    ("on_save_error", "NAME", "a checkpoint that cannot be written: stop, or continue without"),
    ("eval_every", "N", "steps between evaluations; 0: only at the end"),
    ("eval_batches", "N", "batches of an evaluation, always the same ones"),
    ("timeout_s", "S", "the longest that a rank waits for another, in seconds"),
    ("accumulate", "N", "micro-batches, one after another, in each rank's part of a batch"),
    ("zero", "N", "shard over ranks: 1 optimizer state, 2 and gradients, 3 and parameters"),
    ("bucket_mb", "MB", "gradients are reduced in buckets of this size; 0: one by one"),
    ("overlap", "", "reduce each bucket while backward still runs"),
    ("local_steps", "N", "local SGD: steps that replicas make on their own"),
    ("compress", "NAME", "gradients travel as float16, int8, top-k or powersgd"),
    ("check_every", "N", "steps between comparisons of all replicas; 0: never"),
    ("sequence_parallel", "", "tensor parallel: share what lies between the layers, too"),
    ("microbatches", "N", "pipeline: parts of a replica's rows (default: four for each stage)"),
    ("schedule", "NAME", "pipeline: naive, gpipe, 1f1b, interleaved or zero-bubble"),
    (
        "chunks",
        "N",
        "pipeline: pieces of the model on each stage (default: interleaved 2, else 1)",
    ),
    ("balance", "NAME", "pipeline: cut the model by bytes of parameters, or by measured time"),
    ("recompute", "", "pipeline: keep only what enters a stage, and compute the rest again"),
    ("ps", "NAME", "parameter servers: sync, async or ssp (bounded staleness)"),
    ("servers", "S", "parameter servers: ranks that hold the weights and the optimizer"),
    ("workers", "W", "parameter servers: ranks that compute"),
    ("staleness", "N", "ssp: steps that a worker may be ahead of the slowest"),
    ("prefetch", "", "parameter servers: ask for the next weights early"),
    ("on_worker_loss", "NAME", "ps sync: a lost worker is an error, or drop: go on without it"),
    ("snapshot_every", "N", "updates between a server's snapshots, from which it starts again"),
    ("slow_worker", "R:Fx", "a drill: rank R is F times as slow as it could be, like 1:5x"),
    ("kill_worker", "R@stepN", "a drill: rank R dies after its step N, like 1@step50"),
    (
        "memory_limit",
        "SIZE",
        "what a rank may take, like 500MB (default: what is free, by the ranks)",
    ),
    ("trace", "", "record what every rank does; see minipar timeline"),
    ("check", "", "look for arrays that are changed while backward still needs them"),
)


def add(verbs: Any) -> None:
    parser = verb(verbs, "train", "train a model", "minipar train gpt --dp 2 --steps 300", _train)
    from minipar.config import Config, option, option_types
    from minipar.recipes import RECIPES

    models = f"{', '.join(RECIPES)}, or your own: FILE.py:CLASS"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=models)
    kinds = option_types()
    for name, metavar, text in TRAIN_HELP:
        default = _default(name, Config(), RECIPES)
        silent = default in ("None", "False", "", "none") or "(default" in text
        how: dict[str, Any] = {"type": kinds[name], "metavar": metavar}
        parser.add_argument(
            f"--{option(name)}",
            dest=name,
            default=argparse.SUPPRESS,
            help=text if silent else f"{text} (default: {default})",
            **({"action": argparse.BooleanOptionalAction} if kinds[name] is bool else how),
        )
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on from the last checkpoint of RUN")
    parser.add_argument("--log-dir", metavar="DIR", help="one file per rank of what it prints")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    parser.add_argument("--nnodes", type=int, metavar="K", help="number of hosts (docs/hosts.md)")
    parser.add_argument("--node-rank", type=int, metavar="I", help="which of them this is, from 0")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="an address and port of host 0")
    parser.add_argument("-n", "--ranks", type=int, metavar="N", help="several hosts: ranks on this")


def _default(name: str, config: Any, recipes: Any) -> str:
    """The default of an option, and the models that have another."""
    others = [f"{m} {r.defaults[name]}" for m, r in recipes.items() if name in r.defaults]
    return ", ".join([str(getattr(config, name)), *others])


def _train(arguments: argparse.Namespace) -> int:
    from minipar import training_hosts, training_job, training_mpi
    from minipar.ranks import RanksFailed

    a, fields = arguments, {name for name, _, _ in TRAIN_HELP}
    given = {name: value for name, value in vars(a).items() if name in fields}
    if a.model is not None:
        given["model"] = a.model
    elif a.resume is None:
        raise UsageError("say what to train: minipar train gpt (see --help), or --resume RUN.")
    meeting = training_hosts.asked_for(a.nnodes, a.node_rank, a.rendezvous, a.ranks, given)
    places = {"out": a.out, "resume": a.resume, "log_dir": a.log_dir}
    try:
        if meeting is not None:
            result = training_hosts.execute(meeting, given, **places)
        elif training_mpi.wanted(given):
            result = training_mpi.execute(given, **places)
        else:
            result = training_job.train(**places, **given)
    except RanksFailed as failed:
        return failed.exit_code
    if result is not None:  # of rank 0 alone, where ranks are started elsewhere
        print(json.dumps(result.summary) if a.json else result)
    return 0 if result is None or result.ok else 1
