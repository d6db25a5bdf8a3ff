"""`minipar bench`: training steps, collectives and kernels, beside what else is installed."""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import listed, verb


def add(verbs: Any) -> None:
    example = "minipar bench train --model gpt-256\n  minipar bench comm --ops all_reduce --ranks 4"
    parser = verb(verbs, "bench", "measure, beside what else is installed", example, None)
    whats = parser.add_subparsers(metavar="WHAT", required=True)
    _add_bench_train(whats)
    _add_bench_generate(whats)
    _add_bench_comm(whats)
    _add_bench_kernels(whats)
    _add_bench_ps(whats)
    _add_bench_trace(whats)


def _add_bench_train(whats: Any) -> None:
    parser = verb(
        whats,
        "train",
        "time a training step, beside torch's",
        "minipar bench train --model gpt-256 --threads 1\n"
        "  minipar bench train --model mlp --ranks 2 --strategy dp,bucketed,overlapped",
        _bench_train,
    )
    parser.add_argument(
        "--model",
        metavar="LIST",
        default="gpt-256",
        help="names, or all, or op: the overhead of single ops (default: gpt-256)",
    )
    parser.add_argument(
        "--threads", metavar="LIST", default="1", help="BLAS threads, as 1,2 (default: 1)"
    )
    parser.add_argument(
        "--ranks", type=int, default=1, metavar="N", help="from 2 on: in parallel (default: 1)"
    )
    parser.add_argument(
        "--strategy",
        metavar="LIST",
        default="bucketed",
        help="with ranks: dp,bucketed,overlapped,zero1,zero2,zero3,tp,tp-overlap,sequence,naive,"
        "gpipe,1f1b,zero-bubble,ps-sync,ps-async,alone",
    )
    parser.add_argument(
        "--epoch",
        type=int,
        default=0,
        metavar="ROWS",
        help="with ranks: time epochs of so many rows",
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument(
        "--against",
        metavar="LIST",
        default="torch",
        help="torch, or nothing (''); with ranks also torch-zero1,torch-fsdp,products",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, or cuda: gpt-124m and gpt-256 (default: cpu)"
    )
    parser.add_argument("--save", metavar="FILE", help="with --device cuda: the rows as JSON")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _bench_train(arguments: argparse.Namespace) -> int:
    from minipar.bench import overhead, train

    if arguments.device == "cuda":
        return _bench_device(arguments)
    if listed(arguments.model) == ["op"]:
        for row in overhead.overhead():
            print(json.dumps(row) if arguments.json else overhead.line(row), flush=True)
        return 0
    if arguments.device != "cpu":
        raise UsageError(f"--device is cpu or cuda, not {arguments.device!r}.")
    if arguments.ranks < 1 or arguments.rounds < 1:
        raise UsageError("bench train needs at least 1 rank and 1 round.")
    if arguments.epoch < 0:
        raise UsageError(f"--epoch is a number of rows, from 1 on, not {arguments.epoch}.")
    if arguments.ranks > 1:
        return _bench_ranks(arguments)
    if arguments.epoch:
        raise UsageError("--epoch times ranks: say how many with --ranks, from 2 on.")
    engines = ("minipar", *listed(arguments.against))
    models = train.models(listed(arguments.model))
    numbers = [_threads(text) for text in listed(arguments.threads)]
    if not arguments.json:
        print(train.HEAD, flush=True)
    for model, threads in product(models, numbers):
        for row in train.bench_train(model, engines, threads, arguments.rounds):
            print(json.dumps(row) if arguments.json else train.line(row), flush=True)
    return 0


def _add_bench_generate(whats: Any) -> None:
    parser = verb(
        whats,
        "generate",
        "time writing a token, with and without a cache, beside torch's",
        "minipar bench generate --model gpt-256 --threads 1,2",
        _bench_generate,
    )
    parser.add_argument(
        "--model", metavar="NAME", default="gpt-256", help="gpt-256 or gpt-128 (default: gpt-256)"
    )
    parser.add_argument(
        "--engines",
        metavar="LIST",
        default="cached,uncached,torch-cached",
        help="(default: cached,uncached,torch-cached)",
    )
    parser.add_argument(
        "--threads", metavar="LIST", default="1", help="BLAS threads, as 1,2 (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _bench_generate(arguments: argparse.Namespace) -> int:
    from minipar.bench import generate

    a = arguments
    numbers = [_threads(text) for text in listed(a.threads)]
    generate.check(a.model, listed(a.engines), a.rounds)
    if not a.json:
        print(generate.HEAD, flush=True)
    for threads in numbers:
        for row in generate.bench_generate(a.model, listed(a.engines), threads, a.rounds):
            print(json.dumps(row) if a.json else generate.line(row), flush=True)
    return 0


def _bench_device(arguments: argparse.Namespace) -> int:
    from minipar.bench import device

    code, rows = 0, []
    if not arguments.json:
        print(device.HEAD, flush=True)
    engines = ("minipar", *listed(arguments.against))
    for row in device.bench_device(listed(arguments.model), engines):
        rows.append(row)
        print(json.dumps(row) if arguments.json else device.line(row), flush=True)
        code |= row["note"] is not None
    if arguments.save:
        Path(arguments.save).write_text(json.dumps(rows, indent=1) + "\n")
    return code


def _bench_ranks(arguments: argparse.Namespace) -> int:
    from minipar.bench import ranks, train

    strategies, against = listed(arguments.strategy), listed(arguments.against)
    models, code = train.models(listed(arguments.model)), 0
    ranks.check(strategies)
    if not arguments.json:
        print(ranks.HEAD, flush=True)
    order = {"rows": arguments.epoch} if arguments.epoch else ranks.TEN_STEPS
    how = arguments.ranks, arguments.rounds, order
    for model in models:
        for row in ranks.bench_ranks(model, strategies, against, *how):
            print(json.dumps(row) if arguments.json else ranks.line(row), flush=True)
            if row["engine"] == "minipar" and row["step_ms"] is None:
                code = 1  # a peer may be missing; our own should have run
    return code


def _threads(text: str) -> int:
    return _number("--threads", text)


def _number(option: str, text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise UsageError(f"{option} {text}: a number from 1 on, or several with commas.")
    return int(text)


COMM_HELP = (
    ("--ops", "LIST", "", "calls, with commas: all_reduce,send_recv,... (default: all)"),
    ("--sizes", "LIST", "8,64K,1M,16M,64M", "bytes of the whole array"),
    ("--algorithms", "LIST", "default", "default, all, or names: ring,tree"),
    ("--against", "LIST", "gloo,openmpi", "peers, or nothing ('')"),
    ("--peer-python", "LIST", "", "other Pythons, in which the peers may be installed"),
    ("--backend", "NAME", "process", "how minipar's ranks talk: process, local or mpi"),
    ("--memory", "NAME", "private", "of minipar's arrays: private, or shared (group.empty)"),
)


def _add_bench_comm(whats: Any) -> None:
    parser = verb(
        whats,
        "comm",
        "time the collectives, beside gloo, OpenMPI and the prediction",
        "minipar bench comm --ranks 2 --ops all_reduce --sizes 64K,16M --algorithms all",
        _bench_comm,
    )
    for option, metavar, default, text in COMM_HELP:
        shown = f"{text} (default: {default})" if default else text
        parser.add_argument(option, metavar=metavar, default=default, help=shown)
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="ranks (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--figure", metavar="FILE", help="draw measured over predicted")


def _bench_comm(arguments: argparse.Namespace) -> int:
    from minipar.bench import comm, comm_table

    plan = comm.Plan(
        ranks=arguments.ranks,
        ops=listed(arguments.ops) or comm.OPS,
        sizes=[comm.bytes_of(text) for text in listed(arguments.sizes)],
        algorithms=listed(arguments.algorithms),
        against=listed(arguments.against),
        rounds=arguments.rounds,
        backend=arguments.backend,
        memory=arguments.memory,
        pythons=listed(arguments.peer_python),
    )
    rows: list[dict[str, Any]] = []
    arriving = comm.kept(comm.bench_comm(plan), rows)
    for line in map(json.dumps, arriving) if arguments.json else comm_table.lines(arriving):
        print(line, flush=True)
    if arguments.figure:
        from minipar.trace.comm_figure import draw_comm

        draw_comm(rows).savefig(arguments.figure)
    return 0


def _add_bench_kernels(whats: Any) -> None:
    example = "minipar bench kernels --against torch"
    parser = verb(whats, "kernels", "time the kernels on a GPU", example, _bench_kernels)
    text = "torch, or nothing (''); default: torch"
    parser.add_argument("--against", metavar="LIST", default="torch", help=text)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _bench_kernels(arguments: argparse.Namespace) -> int:
    from minipar.bench import kernels

    torch = "torch" in listed(arguments.against)
    found = kernels.machine(torch)
    print(json.dumps(found) if arguments.json else ", ".join(found.values()), flush=True)
    for row in kernels.bench_kernels(torch):
        print(json.dumps(row) if arguments.json else kernels.line(row), flush=True)
    return 0


def _add_bench_ps(whats: Any) -> None:
    parser = verb(
        whats,
        "ps",
        "time pulls and pushes between a worker and a parameter server",
        "minipar bench ps --size 16M --rows 1000",
        _bench_ps,
    )
    parser.add_argument("--size", metavar="BYTES", default="16M", help="of weights (default: 16M)")
    parser.add_argument("--rows", type=int, default=1000, help="of a table (default: 1000)")
    parser.add_argument("--times", type=int, default=50, help="of which the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _bench_ps(arguments: argparse.Namespace) -> int:
    from minipar.bench import server_rank
    from minipar.bench.comm import bytes_of

    if min(arguments.times, arguments.rows) < 1 or arguments.rows > server_rank.TABLE_ROWS:
        raise UsageError(f"bench ps takes 1 time or more, and 1 to {server_rank.TABLE_ROWS} rows.")
    size = bytes_of(arguments.size)
    if size < 4:
        raise UsageError(f"--size {arguments.size}: bytes of weights, from 4 on, such as 16M.")
    rows = server_rank.bench_ps(size, arguments.rows, arguments.times)
    for line in map(json.dumps, rows) if arguments.json else server_rank.lines(rows):
        print(line, flush=True)
    return 0


def _add_bench_trace(whats: Any) -> None:
    parser = verb(
        whats,
        "trace",
        "time training steps with --trace, beside the same without",
        "minipar bench trace --model gpt-128,gpt-256 --ranks 1,2",
        _bench_trace,
    )
    parser.add_argument(
        "--model",
        metavar="LIST",
        default="gpt-128",
        help="gpt-64,gpt-128,gpt-256 (default: gpt-128)",
    )
    parser.add_argument("--ranks", metavar="LIST", default="1,2", help="replicas (default: 1,2)")
    parser.add_argument("--rounds", type=int, default=100, help="interleaved pairs (default: 100)")
    parser.add_argument("--backend", metavar="NAME", default="process", help="(default: process)")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _bench_trace(arguments: argparse.Namespace) -> int:
    from minipar.bench import tracing
    from minipar.comm.launch import check

    a = arguments
    numbers = [_number("--ranks", text) for text in listed(a.ranks)]
    tracing.check(listed(a.model), a.rounds)
    check(1, a.backend)
    if not a.json:
        print(tracing.HEAD, flush=True)
    for model, ranks in product(listed(a.model), numbers):
        row = tracing.bench_trace(model, ranks, a.rounds, a.backend)
        print(json.dumps(row) if a.json else tracing.line(row), flush=True)
    return 0
