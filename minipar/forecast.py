"""What a run will need of memory, by rank, before anything large is there.

    needs, in MB    weights  gradients  optimizer  activations  buffers   step   Python    all
    stage 0            12.3       12.3       24.6         80.1      3.2  132.5     40.1  172.6

weights, gradients, optimizer    from the shapes, by the formulas of `cost`: nothing is allocated
activations                      from one row (trial.py): rows of a micro-batch, times how many
                                 of them the schedule keeps
buffers                          what passes through: the largest gradient of an activation, units
                                 and buckets of ZeRO, what travels between stages
whole                            a rank builds the model before it lets go of what is not its own,
                                 and puts all weights together to compare or to save them: then no
                                 activations are there, so the larger one of the two counts
Python                           interpreter, modules and data, as they are in the launcher; with
                                 --device cuda all of this is about the GPU, and 0

A rank that is like another (replicas; tp ranks, up to padding) has no line of its own.

Letters: n bytes of a rank's trained parameters in float32 (or --dtype), k·n of optimizer state, p
replicas, w what --precision makes of a number (a half).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from minipar import cost
from minipar.comm.group import Group
from minipar.comm.host_memory import available_bytes, in_words, parsed_bytes, resident_bytes
from minipar.comm.local import LocalWorld
from minipar.comm.local_transport import LocalTransport
from minipar.comm.segment import segment_bytes
from minipar.comm.started import under_mpi
from minipar.config import Config
from minipar.device_memory import free_memory
from minipar.errors import UsageError
from minipar.nn import ONE_RANK, Embedding, Module
from minipar.parallel.sharded import BUCKET_BYTES
from minipar.parallel.sharded_parameters import listed, split_parameters
from minipar.parallel.stages import users_of
from minipar.parallel.tensor_layers import TensorKit
from minipar.recipes import build_model
from minipar.strategies import chunks_of
from minipar.trial import Trial, cuts_of

DRAWN = 4  # float64 numbers for each number of the largest weight, while it is drawn


class Need(NamedTuple):
    """Bytes of a rank."""

    name: str
    ranks: int  # that are alike
    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    whole: int  # beside weights, gradients and optimizer, when the model is built or put together
    python: int

    @property
    def held(self) -> int:
        return self.weights + self.gradients + self.optimizer

    @property
    def step(self) -> int:
        return self.held + self.activations + self.buffers

    @property
    def all(self) -> int:
        return max(self.step, self.held + self.whole) + self.python


class Part(NamedTuple):
    """What a rank has of the parameters, in bytes."""

    own: int  # trained by it
    other: int  # frozen, or of another stage, which uses them too
    largest: int  # parameter


def forecast(config: Config, train: Any, trial: Trial | None = None) -> list[Need]:
    """A Need for each kind of rank.  trial: None leaves out what only a row can tell."""
    c, model = config, hollow(config, train)
    built = sum(x.data.nbytes for x in model.parameters())
    largest = max((x.data.size for x in model.parameters()), default=0)
    drawn = 8 * DRAWN * largest * c.tp
    whole = built * c.tp if c.pp * c.tp > 1 or c.zero == 3 else built
    python = 0 if c.device != "cpu" else _python(c, train)  # which is not on the GPU
    if c.ps != "none":
        return _of_servers(c, model, trial, python, built + drawn)
    needs = []
    for stage, part in enumerate(parts_of(c, model)):
        weights, gradients, optimizer = _kept(c, part)
        activations, passing = _of_row(c, trial, stage)
        buffers = passing + _buffers(c, model, part)
        name = f"stage {stage}" if c.pp > 1 else "each rank"
        extra = max(built + drawn - weights - gradients - optimizer, whole)
        needs.append(
            Need(name, c.dp * c.tp, weights, gradients, optimizer, activations, buffers,
                 max(0, extra), python)
        )  # fmt: skip
    return needs


def _python(c: Config, train: Any) -> int:
    """Of a rank. Threads share a process, but each of them loads the data for itself."""
    resident = resident_bytes()
    if c.backend != "local":
        return resident
    ranks = local_ranks(c)
    data = sum(getattr(array, "nbytes", 0) for array in vars(train).values())
    return (resident + (ranks - 1) * data) // ranks


def hollow(config: Config, train: Any) -> Module:
    """The model as the first rank along tp has it; its large weights take no memory."""
    c = config
    if c.tp == 1:
        return build_model(c, train, ONE_RANK, hollow=True)
    group = Group(LocalTransport(LocalWorld(c.tp), 0))  # nothing is sent
    return build_model(c, train, TensorKit(group, c.sequence_parallel), hollow=True)


def parts_of(c: Config, model: Module) -> list[Part]:
    """What each stage holds; one stage, if there is no pipeline."""
    named = dict(model.named_parameters())
    users = {name: [0] for name in named}
    if c.pp > 1:
        users = users_of(model, cuts_of(c, model), c.pp)
    found = []
    for stage in range(c.pp):
        here = [(x, users[name][0] == stage) for name, x in named.items() if stage in users[name]]
        own = [x.data.nbytes for x, mine in here if mine and x.requires_grad]
        other = sum(x.data.nbytes for x, mine in here if not (mine and x.requires_grad))
        found.append(Part(sum(own), other, max(own, default=0)))
    return found


def states_of(c: Config) -> int:
    """k: arrays of optimizer state for each parameter."""
    return {"adamw": 2, "adagrad": 1}.get(c.optimizer, 1 if c.momentum else 0)


def width_of(c: Config) -> float:
    """w: what is computed in 16 bits is half as wide; the optimizer keeps masters in 32 then."""
    return 1.0 if c.precision == "float32" else 0.5


def _kept(c: Config, part: Part) -> tuple[int, int, int]:
    """weights, gradients, optimizer: which of them ZeRO shards."""
    n, p, k, w = part.own, c.dp, states_of(c), width_of(c)
    sizes = w * n, w * n, k * n + (n if w < 1 else 0)
    shards = [p if c.zero >= stage else 1 for stage in (3, 2, 1)]
    weights, gradients, optimizer = (round(size / s) for size, s in zip(sizes, shards))
    other = round(w * part.other)
    return weights + other, gradients + (other if c.pp > 1 else 0), optimizer


def rows_of_micro(c: Config) -> float:
    return c.batch / c.places / c.micros


def _of_row(c: Config, trial: Trial | None, stage: int) -> tuple[int, int]:
    """Activations of a stage, and the gradients of them that are there at once."""
    if trial is None:
        return 0, 0
    rows, v = rows_of_micro(c), chunks_of(c) if c.pp > 1 else 1
    kept = [trial.kept[chunk * c.pp + stage] for chunk in range(v)]
    stored = 1.0
    if c.pp > 1:
        stored = cost.of_schedule(c.schedule, c.pp, c.micros, v)[1][stage]
    inside, entering = sum(k.inside for k in kept), sum(k.entering for k in kept)
    fixed = sum(k.fixed for k in kept)
    largest = max(k.largest for k in kept)
    if c.pp > 1 and c.recompute:
        one = max(k.inside for k in kept)
        return round(rows * (stored * entering + one)) + fixed, round(rows * largest)
    return round(stored * (rows * (inside + entering) + fixed)), round(rows * largest)


def _buffers(c: Config, model: Module, part: Part) -> int:
    """What a strategy needs for a moment, or for good, beside weights, gradients and state."""
    n, t, p = part.own, part.largest, c.dp
    found = 0.0
    if c.zero == 2:
        found += cost.zero2_passing(min(BUCKET_BYTES, n), t)
    elif c.zero == 3:
        units = split_parameters(model, listed(model))
        *sizes, rest = (sum(x.data.nbytes for _, x in unit) for unit in units)
        found += cost.zero3_passing(max(sizes, default=0), t, min(rest, n))
    elif c.local_steps > 1:
        found += (1 + states_of(c)) * n
    elif c.compress != "none":
        found += n
    elif p > 1:
        found += t
    if width_of(c) < 1:  # gradients in 32 bits, to be summed up and for the masters
        found += n
    if c.backend == "process" and c.ranks > 1:
        found += segment_bytes(c.ranks) / c.ranks
    return round(found)


def _of_servers(
    c: Config, model: Module, trial: Trial | None, python: int, building: int
) -> list[Need]:
    tables = {id(m.weight) for m in model.modules() if isinstance(m, Embedding) and m.sparse}
    every = list(model.parameters())
    n = sum(x.data.nbytes for x in every)
    dense = sum(x.data.nbytes for x in every if id(x) not in tables)
    activations, passing = _of_row(c, trial, 0)
    state = states_of(c) * n // c.servers
    worker = Need("worker", c.workers, dense, dense, 0, activations, passing + dense, n, python)
    server = Need("server", c.servers, n // c.servers, 0, state, 0, dense, building, python)
    return [worker, server]


# -- what there is ----------------------------------------------------------------------------


def local_ranks(c: Config) -> int:
    """How many ranks share this host's memory."""
    place = under_mpi(os.environ) if c.backend == "mpi" else None
    return c.ranks if place is None else place.local_size


def allowed_bytes(c: Config, here: int | None = None) -> tuple[int | None, str]:
    """What a rank may take, and why; None: nobody knows.  here: ranks on this host."""
    ranks = here or local_ranks(c)
    if c.memory_limit:
        return parsed_bytes(c.memory_limit), f"--memory-limit {c.memory_limit}"
    if c.device == "cuda":
        found = free_memory()
        if found is None:
            return None, ""
        each = math.ceil(ranks / found.gpus)
        why = f"{in_words(found.nbytes)} are free on the GPU, for {each} of the ranks"
        return found.nbytes // each, why
    free = available_bytes()
    if free is None:
        return None, ""
    free += resident_bytes()  # the launcher's own, of which `python` is told, too
    return free // ranks, f"{in_words(free)} are free here, for {ranks} ranks"


def refuse_if_too_large(c: Config, needs: Sequence[Need], here: int | None = None) -> None:
    """Raises: UsageError if one of the ranks will need more than it may take."""
    allowed, why = allowed_bytes(c, here)
    if allowed is None:
        return
    for need in needs:
        if need.all > allowed:
            raise UsageError(
                f"{need.name} would need {in_words(need.all)} ({_most_of(need)}), and may take "
                f"{in_words(allowed)}: {why}. Share the model (--zero, --tp, --pp), keep less of "
                "it (--accumulate, --recompute), or take a smaller one, or a smaller --batch."
            )


def _most_of(need: Need) -> str:
    columns = {name: getattr(need, name) for name in COLUMNS}
    largest = sorted(columns, key=columns.__getitem__)[-2:][::-1]
    return ", ".join(f"{name} {in_words(columns[name])}" for name in largest)


COLUMNS = ("weights", "gradients", "optimizer", "activations", "buffers", "whole", "python")


def table(needs: Sequence[Need]) -> str:
    """For people: a line for each kind of rank."""
    lines = [f"{'memory':14s}" + "".join(f"{name:>12s}" for name in (*COLUMNS, "all"))]
    for need in needs:
        many = "" if need.ranks == 1 else f" ({need.ranks})"
        sizes = (in_words(getattr(need, name)) for name in (*COLUMNS, "all"))
        lines.append(f"{need.name + many:14s}" + "".join(f"{size:>12s}" for size in sizes))
    return "\n".join(lines)


def as_dicts(needs: Sequence[Need]) -> list[dict[str, Any]]:
    return [{**need._asdict(), "all": need.all} for need in needs]
