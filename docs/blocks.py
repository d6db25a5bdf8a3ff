"""The blocks of the pages: each a function that gives text; docs/make.py puts it in its place."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

import minipar
from minipar import Group, cost, ops
from minipar.bench import comm_table, overhead
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.choose import choose
from minipar.data.click_model import NUMBERS, TABLES, ClickModel
from minipar.events import recording
from minipar.models import GPT, MLP, ResNet, ViT, WideDeep
from minipar.parallel import checkpoint
from minipar.parallel.data import DataParallel
from minipar.random import Init
from minipar.trace.chunks import chunk_snapshots, chunk_text

DOCS = Path(__file__).resolve().parent
FIGURES = DOCS / "figures"
MEASURED = FIGURES / "comm_measured.json"  # what `minipar bench comm --json` printed
TRAINED = FIGURES / "train_measured.json"  # what `minipar bench train --json` printed
MARKS = re.compile(r"^\[rank \d\] +[~^]+\n", re.MULTILINE)  # under a source line, since Python 3.11
MB = 2**20
ALPHA, BETA, GAMMA = 5e-6, 1 / 10e9, 1 / 20e9  # the example machine of the pages


def cost_table() -> str:
    """The ring all-reduce in messages, bytes and predicted time."""
    rows = [
        "| ranks | array | messages | sent by each rank | added | predicted |",
        "|" + "---:|" * 6,
    ]
    for p in (2, 4, 8):
        for n in (1024, MB, 100 * MB):
            c = cost.ring_all_reduce(p, n)
            seconds = c.seconds(ALPHA, BETA, GAMMA)
            rows.append(
                f"| {p} | {_size(n)} | {c.messages} | {_size(c.sent)} | {_size(c.added)} "
                f"| {_time(seconds)} |"
            )
    return "\n".join(rows)


def data_parallel_table() -> str:
    """What each form of data parallel sends in a step, for a GPT of 25 million weights."""
    n, gradients, bucket = 100 * MB, 100, 4 * MB
    rows = [
        "| ranks | sent by each rank | messages, naive | messages, in buckets of 4 MB "
        "| naive takes | in buckets |",
        "|" + "---:|" * 6,
    ]
    for p in (2, 4, 8, 64):
        calls = gradients, n // bucket
        costs = [cost.ring_all_reduce(p, n / k) for k in calls]
        messages = [str(k * c.messages) for k, c in zip(calls, costs)]
        times = [_time(k * c.seconds(ALPHA, BETA, GAMMA)) for k, c in zip(calls, costs)]
        sent = _size(cost.data_parallel_bytes(p, n))
        rows.append(f"| {p} | {sent} | {' | '.join(messages + times)} |")
    return "\n".join(rows)


def naive_against_ring() -> str:
    """Bytes that were really sent: all through rank 0, and round the ring."""
    n = 64 * 840 * 8  # float64; 840 can be divided by 2 to 8, and the ring is for large arrays
    head = (
        "| ranks | busiest rank, through rank 0 | busiest rank, ring | all ranks together, each |"
    )
    rows = [head, "|" + "---:|" * 4]
    for p in (2, 4, 8):
        naive, ring = (_bytes_sent(p, n // 8, algorithm) for algorithm in ("naive", "ring"))
        assert sum(naive) == sum(ring)
        rows.append(f"| {p} | {max(naive) / n:g} n | {max(ring) / n:g} n | {sum(ring) / n:g} n |")
    return "\n".join(rows)


def formulas(op: str) -> str:
    """Every algorithm of one collective: its formula, and what that is for 7 and 8 ranks."""
    rows = ["| `algorithm=` | takes | 7 ranks | 8 ranks |", "|---|---|---|---|"]
    for algorithm in ALGORITHMS[op]:
        text = getattr(cost, f"{algorithm}_{op}").__doc__
        rows.append(f"| `{algorithm}` | {text} | {_counts(op, algorithm, 7)} "
                    f"| {_counts(op, algorithm, 8)} |")  # fmt: skip
    return "\n".join(rows)


def choices() -> str:
    """What is taken if no algorithm is named, by what the ranks have in common."""
    kinds = {"process, one host": "process", "hosts, mpi": "hosts", "local": "local"}
    rows = [
        f"| call | {' | '.join(kinds)} |",
        "|---" * (1 + len(kinds)) + "|",
    ]
    for op in ALGORITHMS:
        cells = []
        for medium in kinds.values():
            small, large = (choose(op, nbytes, 8, medium) for nbytes in (0, 1 << 30))
            cells.append(f"`{small}`" if small == large else f"`{small}`, `{large}`")
        rows.append(f"| `{op}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def op_tables() -> str:
    """All ops, by file: from the first line of each docstring, and its words after "Keeps"."""
    files: dict[str, list[str]] = {}
    for name in ops.__all__:
        op = getattr(ops, name)
        module = sys.modules[op.__module__]
        idea = (module.__doc__ or "").split("\n")[0]
        head = f"\n### {module.__name__.rpartition('.')[2]}.py\n\n{idea}\n"
        rows = files.setdefault(head, ["| op | computes | keeps |", "|---|---|---|"])
        rows.append(f"| `{name}{_arguments(op)}` | {_formula(op)} | {_keeps(op)} |")
    return "\n".join("\n".join([head, *rows]) for head, rows in sorted(files.items())).lstrip()


def ring_steps(ranks: str) -> str:
    """The states of the ring as text."""
    return _fenced(chunk_text(chunk_snapshots("all_reduce", "ring", int(ranks))))


def example(name: str, backend: str, *options: str) -> str:
    """The source of docs/examples/NAME.py, and the answer to it."""
    return f"{source(name)}\n\n{answer(name, backend, *options)}"


def source(name: str) -> str:
    """The source of docs/examples/NAME.py."""
    return _fenced((DOCS / "examples" / f"{name}.py").read_text().rstrip(), "python")


def answer(name: str, backend: str, *options: str) -> str:
    """What `minipar run` on 2 ranks says to docs/examples/NAME.py."""
    command = ["run", "-n", "2", "--backend", backend, *options, f"{name}.py"]
    return _fenced(f"$ minipar {' '.join(command)}\n{_said(command)}")


def script(name: str) -> str:
    """The source of docs/examples/NAME.py, and what plain `python NAME.py` prints."""
    said = _said([f"{name}.py"], program=())
    return f"{source(name)}\n\n{_fenced(f'$ python {name}.py' + chr(10) + said)}"


def own_model_trained() -> str:
    """What the report of the model on the page says on every machine."""
    options = "--backend local --dp 2 --steps 400 --lr 0.05 --dtype float64"
    with tempfile.TemporaryDirectory() as folder:
        command = f"train own_model.py:Rings {options} --out {folder}/run"
        lines = _said(command.split()).splitlines()
    return _fenced("\n".join(line for line in lines if line.startswith("validation")))


def memory_refused() -> str:
    """What a launcher says that gets too little shared memory (here: a limit of 1 MB)."""
    command = ["run", "-n", "4", "failure.py"]
    return _fenced(f"$ ulimit -f 1024; minipar {' '.join(command)}\n{_said(command, limit=MB)}")


def measured(*ops: str) -> str:
    """The stored measurements of these calls, as `minipar bench comm` prints them."""
    rows = [row for row in measured_rows() if "fit" in row or row["op"] in ops]
    return _fenced("\n".join(comm_table.lines(rows)))


def trained() -> str:
    """The stored measurements of training steps, minipar's by torch's."""
    rows = [json.loads(line) for line in TRAINED.read_text(encoding="utf-8").splitlines()]
    lines = [
        "| model | threads | minipar | torch | step time | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    of_torch = {(r["model"], r["threads"]): r for r in rows if r["engine"] == "torch"}
    for row in rows:
        peer = of_torch.get((row["model"], row["threads"]))
        if row["engine"] == "minipar" and peer is not None:
            lines.append(
                f"| {row['model']} | {row['threads']} "
                f"| {row['step_ms']:.3g} ms, {row['peak_mb']:.0f} MB "
                f"| {peer['step_ms']:.3g} ms, {peer['peak_mb']:.0f} MB "
                f"| {row['ratio']:.2f} × | {row['memory_ratio']:.2f} × |"
            )
    return "\n".join(lines)


def op_overhead() -> str:
    """The stored measurements of single ops."""
    rows = [json.loads(line) for line in TRAINED.read_text(encoding="utf-8").splitlines()]
    return _fenced("\n".join(overhead.line(row) for row in rows if "over_us" in row))


def manifest() -> str:
    """A checkpoint with one array."""
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder, "step-000500")
        checkpoint.save(step, {"model/out.bias": np.arange(4, dtype=np.float32)}, {"step": 500})
        content = json.loads((step / "manifest.json").read_text())
    text = json.dumps(content, indent=1)
    text = re.sub(r"\[\s+(\d+)\s+\]", r"[\1]", text)
    text = re.sub(r'("sha256": ".{8})[^"]*', r"\1...", text)
    return _fenced(text, "json")


def floors() -> str:
    """The table of tests/test_floors.py as a picture, the highest floor on top."""
    table = runpy.run_path(str(DOCS.parent / "tests/test_floors.py"))
    lines = []
    for number in range(max(table["FLOORS"].values()), -1, -1):
        here = [name for name, floor in table["FLOORS"].items() if floor == number]
        if number == table["MEETING_FLOOR"] - 1:
            lines.append(f"    {' here the towers meet ':─^86}")
        towers = number < table["MEETING_FLOOR"]
        right = [n for n in here if towers and (n.startswith(("comm.", "cost.")) or n == "events")]
        left = textwrap.wrap(_modules(set(here) - set(right)), 40 if towers else 86)
        rows = zip_longest(left, textwrap.wrap(_modules(right), 46), fillvalue="")
        for n, (a, b) in enumerate(rows):
            lines.append(f"{'' if n else number:>2}  {a:42s}{b}".rstrip())
    lines.append(f"    {'AUTOGRAD TOWER':42s}COMMUNICATION TOWER")
    return _fenced("\n".join(lines))


def _modules(names: Iterable[str]) -> str:
    """As paths, packages with a slash; in the text they part at two spaces."""
    root = Path(minipar.__file__).parent
    paths = [name.replace(".", "/") for name in sorted(names)]
    return "  ".join(p + "/" * root.joinpath(p).is_dir() for p in paths)


def model_sizes() -> str:
    """The parameters of each model, and the bytes that a rank sends to average their gradients."""
    text, images = np.zeros((1, 16), int), np.zeros((1, 28, 28, 1), np.float32)
    models: dict[str, tuple[Callable[[Init], Any], Callable[[int], Any]]] = {
        "`MLP`": (MLP, lambda rank: text),
        "`GPT`": (GPT, lambda rank: text),
        "`ViT`": (ViT, lambda rank: images),
        "`ResNet`": (partial(ResNet, channels=1), lambda rank: images),
        "`WideDeep`, `sparse=False`": (partial(_wide_deep, sparse=False), _clicks),
        "`WideDeep`, 128 rows a rank": (partial(_wide_deep, sparse=True), _clicks),
    }
    head = "| model | parameters | in float32 | sent by each of 4 ranks in a step |"
    rows = [head, "|---|" + "---:|" * 3]
    for name, (make, batch) in models.items():
        n = sum(x.data.size for x in make(Init()).parameters())
        rows.append(f"| {name} | {n:,} | {_size(4 * n)} | {_size(_sent_in_a_step(make, batch))} |")
    return "\n".join(rows)


def less_bytes() -> str:
    """What the ways to say less send in a step, as a part of the bytes of GPT's gradients."""
    shapes = [x.shape for x in GPT(Init()).parameters()]
    c = sum(math.prod(shape) for shape in shapes)
    n, k = 4 * c, math.ceil(0.01 * c)
    ways: dict[str, Callable[[int], float]] = {
        "data parallel": lambda p: cost.ring_all_reduce(p, n).sent,
        "central, rank 0": lambda p: (p - 1) * n,
        "local SGD, k = 8": lambda p: cost.local_sgd_bytes(p, n, 8),
        "local SGD, k = 8, AdamW": lambda p: cost.local_sgd_bytes(p, 3 * n, 8),
        "float16": lambda p: cost.float16_bytes(p, c),
        "int8, block of 256": lambda p: cost.int8_bytes(p, c, 256),
        "top-k, 1 %": lambda p: cost.top_k_bytes(p, k, 4),
        "PowerSGD, r = 2": lambda p: cost.power_sgd_bytes(p, shapes, 2, 4),
    }
    ranks = (2, 4, 16, 64)
    rows = [f"| {c:,} numbers | {' | '.join(f'{p} ranks' for p in ranks)} |", "|---|" + "---:|" * 4]
    for name, sent in ways.items():
        rows.append(f"| {name} | {' | '.join(f'{sent(p) / n:.3g}' for p in ranks)} |")
    return "\n".join(rows)


def zero_formulas() -> str:
    """What each stage sends, keeps, and lets through."""
    rows = ["| | sent by a rank in a step | kept by a rank | passes through |", "|---|---|---|---|"]
    data_parallel = cost.data_parallel_bytes.__doc__
    rows.append(f"| data parallel | {data_parallel} | {cost.zero0_kept.__doc__} | |")
    for stage in (1, 2, 3):
        parts = (getattr(cost, f"zero{stage}_{what}", None) for what in ("sent", "kept", "passing"))
        rows.append(f"| stage {stage} | {' | '.join(f.__doc__ if f else '' for f in parts)} |")
    return "\n".join(rows)


def zero_sizes() -> str:
    """The most that a rank holds of GPT-2, by the formulas."""
    d, b = 768, 4  # features; bytes of a number
    t = 50257 * d * b
    u, r = (12 * d * d + 13 * d) * b, t + (1024 + 2) * d * b
    n, k = 12 * u + r, 2
    stages = {
        "data parallel": lambda p: cost.zero0_kept(p, n, k),
        "stage 1": lambda p: cost.zero1_kept(p, n, k),
        "stage 2": lambda p: cost.zero2_kept(p, n, k) + cost.zero2_passing(t, t),
        "stage 3": lambda p: cost.zero3_kept(p, n, k) + cost.zero3_passing(u, t, r),
    }
    ranks = (1, 2, 4, 8, 16, 64)
    rows = [f"| | {' | '.join(f'{p} ranks' for p in ranks)} |", "|---|" + "---:|" * len(ranks)]
    rows[0] = rows[0].replace("1 ranks", "1 rank", 1)
    for name, held in stages.items():
        rows.append(f"| {name} | {' | '.join(f'{held(p) / MB:,.0f} MB' for p in ranks)} |")
    return "\n".join(rows)


def _wide_deep(init: Init, sparse: bool) -> WideDeep:
    return WideDeep(init, TABLES, NUMBERS, sparse=sparse)


def _clicks(rank: int) -> tuple[np.ndarray, np.ndarray]:
    rows = ClickModel().rows(128 * rank, 128)
    return rows.dense, rows.ids


def _sent_in_a_step(make: Callable[[Init], Any], batch: Callable[[int], Any]) -> int:
    """By the rank that sends most, while four of them average their gradients."""

    def work(group: Group) -> int:
        model = make(Init())
        parallel = DataParallel(model, group)
        model(batch(group.rank)).sum().backward()
        with recording() as log:
            parallel.sync_gradients()
        return sum(event.nbytes for event in log)

    return max(minipar.run(work, 4))


BLOCKS: dict[str, Callable[..., str]] = {
    f.__name__: f
    for f in (
        cost_table,
        data_parallel_table,
        formulas,
        choices,
        op_tables,
        naive_against_ring,
        ring_steps,
        example,
        source,
        answer,
        script,
        own_model_trained,
        memory_refused,
        measured,
        trained,
        op_overhead,
        manifest,
        floors,
        less_bytes,
        model_sizes,
        zero_formulas,
        zero_sizes,
    )
}


def _arguments(op: Callable[..., Any]) -> str:
    """Names and defaults, without the annotations."""
    bare = []
    for p in inspect.signature(op).parameters.values():
        text = p.name if p.default is p.empty else f"{p.name}={_name(p.default)}"
        bare.append(f"*{text}" if p.kind is p.VAR_POSITIONAL else text)
    return f"({', '.join(bare)})"


def _name(default: Any) -> str:
    """A default as it is written; a function is called by its name."""
    return getattr(default, "__name__", None) or repr(default)


def _formula(op: Callable[..., Any]) -> str:
    """The first line of the docstring, or of that of the definition to which it points."""
    first = (op.__doc__ or "").split("\n")[0]
    points = re.match(r"`(\w+_definition)`", first)
    if points:
        return _formula(vars(sys.modules[op.__module__])[points[1]])
    return first.split("   ")[0].rstrip(".").replace("|", "\\|")


def _keeps(op: Callable[..., Any]) -> str:
    text = " ".join((op.__doc__ or "").split())
    found = re.search(r"Keeps (.+?)(?: until backward|[.;](?: |$))", text)
    if not found:
        raise ValueError(f"The docstring of {op.__name__} does not say what it 'Keeps ...'.")
    return found[1].replace("|", "\\|")


def measured_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]


def measured_hash() -> str:
    return hashlib.sha256(MEASURED.read_bytes()).hexdigest()


def _bytes_sent(p: int, n: int, algorithm: str) -> list[int]:
    def work(group: Group) -> int:
        with recording() as log:
            group.all_reduce(np.ones(n), algorithm=algorithm)
        return sum(event.nbytes for event in log)

    return minipar.run(work, p)


def _said(
    command: list[str], limit: int | None = None, program: Sequence[str] = ("-m", "minipar")
) -> str:
    """What the command says, less the marks that newer tracebacks have.

    limit: the most bytes that a file may have.  program: what Python runs.
    """

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, *program, *command],
        cwd=DOCS / "examples",
        env={**os.environ, "PYTHONPATH": str(DOCS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=set_limit,
    )
    return MARKS.sub("", done.stdout + done.stderr).rstrip()


def _fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def _counts(op: str, algorithm: str, p: int) -> str:
    """A formula's three numbers, in messages and arrays."""
    messages, sent, added = cost.of(op, algorithm, p, 1)
    parts = [f"{messages}α", f"{sent:.3g}nβ" if sent else "", f"{added:.3g}nγ" if added else ""]
    return " + ".join(filter(None, parts))


def _size(n: float) -> str:
    for unit, factor in (("MB", MB), ("KB", 1024)):
        if n >= factor:
            return f"{n / factor:.4g} {unit}"
    return f"{n:g} B"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
