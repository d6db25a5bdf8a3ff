"""The command line: `minipar VERB ...`, or `python -m minipar VERB ...`.

Each verb is a function from parsed arguments to an exit code. 0 means that what was asked for
worked; 1 that a rank failed; 2 that the question was wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any, NoReturn

from minipar import __version__
from minipar.errors import MiniparError, UsageError

EXAMPLES = """examples:
  minipar train gpt --dp 2                 train a small GPT on two processes of this machine
  minipar run -n 4 script.py               run a script of your own on four ranks
  minipar doctor                           what this machine offers
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Parse, run the verb, turn minipar's own errors into one message, and exit."""
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            raise UsageError(_unknown(unknown[0], arguments.options))
        code = arguments.verb(arguments)
    except MiniparError as error:
        print(f"minipar: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as where:
        print(f"minipar: interrupted{where}", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as in `minipar ... | head`
        sys.stderr.close()
        code = 1
    except OSError as error:  # no space, no permission, no such folder: its text says which file
        print(f"minipar: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _unknown(word: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.partition("=")[0], options, n=1)
    return f"there is no option {word}; " + (f"is it {near[0]}?" if near else "see --help.")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, options and their meaning on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minipar",
        description="Parallel training of neural networks by hand.",
        epilog=EXAMPLES,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minipar {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in (_add_train, _add_run, _add_doctor, _add_bench, _add_tutorials):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, does: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.set_defaults(verb=run, options=parser._option_string_actions.keys())
    return parser


# -- train ------------------------------------------------------------------------------------

TRAIN_HELP = (
    ("dp", "N", "data-parallel replicas: ranks that share each batch"),
    ("backend", "NAME", "process: a process for each rank; local: threads taking turns; mpi"),
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
    ("seed", "N", "seed of all random numbers"),
    ("save_every", "N", "steps between checkpoints; 0: only at the end"),
    ("eval_every", "N", "steps between evaluations; 0: only at the end"),
    ("eval_batches", "N", "batches of an evaluation, always the same ones"),
    ("timeout_s", "S", "the longest that a rank waits for another, in seconds"),
    ("check", "", "look for arrays that are changed while backward still needs them"),
)


def _add_train(verbs: Any) -> None:
    parser = _verb(verbs, "train", "train a model", "minipar train gpt --dp 2 --steps 300", _train)
    from minipar.config import Config, option, option_types
    from minipar.recipes import RECIPES

    models = f"{', '.join(RECIPES)}, or your own: FILE.py:CLASS"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=models)
    kinds = option_types()
    for name, metavar, text in TRAIN_HELP:
        default = _default(name, Config(), RECIPES)
        how: dict[str, Any] = {"type": kinds[name], "metavar": metavar}
        parser.add_argument(
            f"--{option(name)}",
            dest=name,
            default=argparse.SUPPRESS,
            help=text if default in ("None", "False") else f"{text} (default: {default})",
            **({"action": "store_true"} if kinds[name] is bool else how),
        )
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/MODEL-N)")
    parser.add_argument("--resume", metavar="RUN", help="go on from the last checkpoint of RUN")
    parser.add_argument("--log-dir", metavar="DIR", help="one file per rank of what it prints")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")


def _default(name: str, config: Any, recipes: Any) -> str:
    """The default of an option, and the models that have another."""
    others = [f"{m} {r.defaults[name]}" for m, r in recipes.items() if name in r.defaults]
    return ", ".join([str(getattr(config, name)), *others])


def _train(arguments: argparse.Namespace) -> int:
    from minipar import training_job, training_mpi

    fields = {name for name, _, _ in TRAIN_HELP}
    given = {name: value for name, value in vars(arguments).items() if name in fields}
    if arguments.model is not None:
        given["model"] = arguments.model
    elif arguments.resume is None:
        raise UsageError("say what to train: minipar train gpt (see --help), or --resume RUN.")
    if training_mpi.wanted(given):
        if arguments.log_dir is not None:
            raise UsageError("--log-dir is not for mpi; mpirun has --output for that.")
        return training_mpi.execute(given, arguments.out, arguments.resume, arguments.json)
    job = training_job.prepare(given, out=arguments.out, resume=arguments.resume)
    return training_job.execute(job, as_json=arguments.json, log_dir=arguments.log_dir)


# -- run --------------------------------------------------------------------------------------


def _add_run(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "run",
        "run a script on N ranks; it gets its group from minipar.init()",
        "minipar run -n 4 tutorials/02_all_reduce.py",
        _run,
    )
    parser.add_argument(
        "-n",
        "--ranks",
        type=int,
        metavar="N",
        help="number of ranks on this host (default: 2, or mpirun's)",
    )
    parser.add_argument("--nnodes", type=int, metavar="K", help="number of hosts of the job")
    parser.add_argument("--node-rank", type=int, metavar="I", help="which of them this is, from 0")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="an address and port of host 0")
    parser.add_argument(
        "--backend", metavar="NAME", help="process, local or mpi (default: process, or mpirun's)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="longest wait for a rank (default: 300)",
    )
    parser.add_argument("--log-dir", metavar="DIR", help="one file per rank of what it prints")
    parser.add_argument(
        "--no-check", action="store_true", help="mpi: native collectives without comparing calls"
    )
    parser.add_argument("script", help="a Python file")
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the script itself")
    rest.required = False


def _run(arguments: argparse.Namespace) -> int:
    from minipar.comm import script
    from minipar.comm.hosts import plan

    for word in set(arguments.arguments) & set(arguments.options):
        print(f"minipar: {word} stands after the script, so it goes to the script", file=sys.stderr)
    meeting = plan.asked_for(
        arguments.nnodes,
        arguments.node_rank,
        arguments.rendezvous,
        2 if arguments.ranks is None else arguments.ranks,
        arguments.timeout,
        os.environ,
    )
    if meeting is None and arguments.ranks is None:
        meeting = plan.found(arguments.backend, arguments.timeout, os.environ)
    return script.run_script(
        arguments.script,
        arguments.arguments,
        arguments.ranks if meeting is None else meeting.ranks,
        backend=arguments.backend,
        timeout_s=arguments.timeout,
        log_dir=arguments.log_dir,
        check_native=not arguments.no_check,
        meeting=meeting,
    )


# -- doctor, bench, tutorials -----------------------------------------------------------------


def _add_doctor(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "doctor",
        "say what this machine offers, and what is missing",
        "minipar doctor",
        _doctor,
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _doctor(arguments: argparse.Namespace) -> int:
    from minipar import doctor

    findings = doctor.examine()
    print(
        json.dumps(doctor.as_dict(findings), indent=1) if arguments.json else doctor.table(findings)
    )
    return 0


def _add_bench(verbs: Any) -> None:
    example = "minipar bench train --model gpt-256\n  minipar bench comm --ops all_reduce --ranks 4"
    parser = _verb(verbs, "bench", "measure, beside what else is installed", example, None)
    whats = parser.add_subparsers(metavar="WHAT", required=True)
    _add_bench_train(whats)
    _add_bench_comm(whats)


def _add_bench_train(whats: Any) -> None:
    parser = _verb(
        whats,
        "train",
        "time a training step, beside torch's",
        "minipar bench train --model gpt-256 --threads 1",
        _bench_train,
    )
    parser.add_argument(
        "--model", metavar="LIST", default="gpt-256", help="names or all (default: gpt-256)"
    )
    parser.add_argument(
        "--threads", metavar="LIST", default="1", help="BLAS threads, as 1,2 (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument("--against", default="torch", help="torch, or nothing ('')")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")


def _bench_train(arguments: argparse.Namespace) -> int:
    from minipar.bench import train

    engines = ("minipar", *_listed(arguments.against))
    models = train.models(_listed(arguments.model))
    if not arguments.json:
        print(train.HEAD, flush=True)
    for model, threads in product(models, map(_threads, _listed(arguments.threads))):
        for row in train.bench_train(model, engines, threads, arguments.rounds):
            print(json.dumps(row) if arguments.json else train.line(row), flush=True)
    return 0


def _threads(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--threads {text}: a number, or several with commas.")
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
    parser = _verb(
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
        ops=_listed(arguments.ops) or comm.OPS,
        sizes=[comm.bytes_of(text) for text in _listed(arguments.sizes)],
        algorithms=_listed(arguments.algorithms),
        against=_listed(arguments.against),
        rounds=arguments.rounds,
        backend=arguments.backend,
        memory=arguments.memory,
        pythons=_listed(arguments.peer_python),
    )
    rows: list[dict[str, Any]] = []
    arriving = comm.kept(comm.bench_comm(plan), rows)
    for line in map(json.dumps, arriving) if arguments.json else comm_table.lines(arriving):
        print(line, flush=True)
    if arguments.figure:
        from minipar.trace.comm_figure import draw_comm

        draw_comm(rows).savefig(arguments.figure)
    return 0


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _add_tutorials(verbs: Any) -> None:
    parser = _verb(
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
