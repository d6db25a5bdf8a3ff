"""What a step should cost in a layout: bytes by axis, bubble, seconds; by the formulas of `cost`.

    seconds = max(path, work / cores) + what is sent

    path    the slowest stage, all micro-batches: forward and backward by the rows, and the bubble
    work    the same of all ranks together, if they are more than the cores
    sent    α for each message and β for each byte, along each axis

Formulas say what a layout does to these. What they start from is measured before the first step: a
row through the model on one core (trial.py), α and β between the ranks (ledger.py).

Letters: p ranks of an axis, n bytes, m micro-batches, s stages, k·n of optimizer state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minipar import cost
from minipar.comm.choose import choose
from minipar.comm.environment import usable_cores
from minipar.config import Config
from minipar.forecast import Part, hollow, local_ranks, parts_of, rows_of_micro, states_of, width_of
from minipar.nn import Embedding, Module
from minipar.parallel.ballot import with_room
from minipar.parallel.buckets import lay_out
from minipar.parallel.compress import COMPRESSORS
from minipar.parallel.parcel import LABEL_BYTES
from minipar.parallel.sharded import BUCKET_BYTES
from minipar.parallel.sharded_parameters import listed, split_parameters
from minipar.parallel.sharding import Replicated, sharding
from minipar.parallel.stages import users_of
from minipar.strategies import chunks_of
from minipar.tensor import Tensor
from minipar.trial import Trial, cuts_of


class Sent(NamedTuple):
    """Out of a rank in a step, the mean over the ranks."""

    nbytes: float
    messages: float


class Expected(NamedTuple):
    """`path_s` and `work_s` are None where a row on a CPU in float32 says nothing about them."""

    sent: dict[str, Sent]  # by axis; what has no formula is left out
    bubble: float  # part of a pipeline's time
    path_s: float | None
    work_s: float | None
    cores: int

    def seconds(self, links: Mapping[str, float]) -> float | None:
        """Of a step.  links: alpha and beta."""
        if self.path_s is None or self.work_s is None:
            return None
        sending = sum(
            links["alpha"] * s.messages + links["beta"] * s.nbytes for s in self.sent.values()
        )
        return max(self.path_s, self.work_s / self.cores) + sending


def expected(config: Config, train: Any, trial: Trial) -> Expected:
    """train: the training data, whose shape models take."""
    c, model = config, hollow(config, train)
    sent = {}
    if c.ps != "none":
        sent = _ps(c, model)
    elif c.dp > 1 and not _in_any_order(c):
        sent["dp"] = _mean([_dp(c, model, part, stage) for stage, part in _by_stage(c, model)])
    if c.tp > 1 and (found := _tp(c, model, train)) is not None:
        sent["tp"] = found
    if c.pp > 1:
        sent["pp"] = _pp(c, model, trial)
    bubble, path, work = _compute(c, trial)
    cores = 1 if c.backend == "local" else usable_cores()
    if c.device != "cpu" or c.precision != "float32":
        return Expected(sent, bubble, None, None, cores)
    return Expected(sent, bubble, path, work, cores)


def _in_any_order(c: Config) -> bool:
    """Whether bytes depend on what happens to be gathered, or reduced together, and when."""
    chunked = c.zero > 1 and chunks_of(c) > 1
    return c.pp > 1 and (chunked or (c.zero == 3 and c.schedule == "zero-bubble"))


def _by_stage(c: Config, model: Module) -> list[tuple[int, Part]]:
    return list(enumerate(parts_of(c, model)))


def _mean(sent: Sequence[Sent]) -> Sent:
    return Sent(*(sum(x) / len(sent) for x in zip(*sent)))


def _compute(c: Config, trial: Trial) -> tuple[float, float, float]:
    """The bubble, the seconds of the slowest rank, and those of all ranks together."""
    rows, v, bubble = rows_of_micro(c), chunks_of(c) if c.pp > 1 else 1, 0.0
    if c.pp > 1:
        bubble = cost.of_schedule(c.schedule, c.pp, c.micros, v)[0]
    again = 4 / 3 if c.pp > 1 and c.recompute else 1.0  # forward is a third of both
    stages = [
        rows
        * c.micros
        * again
        / c.tp
        * sum(trial.seconds[chunk * c.pp + stage] for chunk in range(v))
        for stage in range(c.pp)
    ]
    sharers = c.pp * c.tp * (c.dp if c.zero else 1)
    update = trial.update_s / (c.servers if c.ps != "none" else sharers)
    here = min(c.workers_in_all, local_ranks(c)) / (c.pp * c.tp)
    work = (sum(stages) * c.tp + update * c.pp * c.tp) * max(1.0, here)
    return bubble, max(stages) / (1 - bubble) + update, work


# -- by axis ----------------------------------------------------------------------------------


def all_reduce_sent(p: int, n: float, backend: str) -> Sent:
    """Of the algorithm that is taken for n bytes: all but one send what the ring does."""
    if choose("all_reduce", int(n), p, backend) == "flat":
        found = cost.flat_all_reduce(p, n)
    else:
        found = cost.ring_all_reduce(p, n)
    return Sent(found.sent, found.messages)


def _dp(c: Config, model: Module, part: Part, stage: int) -> Sent:
    p, n = c.dp, part.own
    trained = _own(c, model, stage)
    if c.zero > 1 and c.pp > 1:
        return _piped(c, model, part, stage)
    if c.zero == 3:
        units = split_parameters(model, listed(model))
        r = min(n, sum(x.data.nbytes for _, x in units[-1]))
        return Sent(cost.zero3_sent(p, n, r), 3 * (p - 1) * len(units))
    if c.zero:
        return Sent(cost.zero1_sent(p, n), 2 * (p - 1))
    if c.local_steps > 1:
        whole = (1 + states_of(c)) * n
        return Sent(cost.local_sgd_bytes(p, whole, c.local_steps), 2 * (p - 1) / c.local_steps)
    if c.compress != "none":
        return Sent(_compressed(c, trained), 2 * (p - 1))
    sizes: list[float] = [x.data.nbytes for x in trained]
    if c.bucket_mb:
        bucket = c.bucket_mb * 2**20 / width_of(c)  # 16 bits are summed up in 32
        layout, _ = with_room(lay_out(trained, bucket), p + len(trained))
        sizes = [k * dtype.itemsize for k, dtype in layout.buckets]
    return _plus([all_reduce_sent(p, size, c.backend) for size in sizes])


def _piped(c: Config, model: Module, part: Part, stage: int) -> Sent:
    """ZeRO 2 and 3 in a stage, where each micro-batch sends."""
    p, n, m = c.dp, part.own, c.micros
    users, named = users_of(model, cuts_of(c, model), c.pp), dict(model.named_parameters())
    lent = {id(named[name]) for name, of in users.items() if of[0] == stage < of[-1]}
    trained = _own(c, model, stage)
    if c.zero == 2:  # a bucket goes once more if a weight is in it that others use
        layout = lay_out(trained, BUCKET_BYTES)
        again = {at.bucket for x, at in zip(trained, layout.places) if id(x) in lent}
        w = sum(k * dtype.itemsize for k, dtype in map(layout.buckets.__getitem__, again))
        return Sent(cost.zero2_piped_sent(p, n, m, w), (m + 1) * (p - 1))
    w = sum(x.data.nbytes for x in trained if id(x) in lent)
    g = 3 if c.recompute else 2
    return Sent(cost.zero3_piped_sent(p, n, m, w, g), (g + 1) * m * (p - 1))


def _own(c: Config, model: Module, stage: int) -> list[Tensor]:
    """What a stage trains; tables with sparse gradients are as dense here as at the worst."""
    named = dict(model.named_parameters())
    users = {name: [0] for name in named}
    if c.pp > 1:
        users = users_of(model, cuts_of(c, model), c.pp)
    return [x for name, x in named.items() if x.requires_grad and users[name][0] == stage]


def _compressed(c: Config, trained: Sequence[Tensor]) -> float:
    how: Any = COMPRESSORS[c.compress]()
    numbers = sum(x.data.size for x in trained)
    itemsize = trained[0].dtype.itemsize
    if c.compress == "float16":
        return cost.float16_bytes(c.dp, numbers)
    if c.compress == "int8":
        return cost.int8_bytes(c.dp, numbers, how.block)
    if c.compress == "top-k":
        return cost.top_k_bytes(c.dp, max(1, round(how.keep * numbers)), itemsize)
    return cost.power_sgd_bytes(c.dp, [x.shape for x in trained], how.rank, itemsize)


def _tp(c: Config, model: Any, train: Any) -> Sent | None:
    """gpt and vit, whose layers are alike; of other models None."""
    if c.model not in ("gpt", "vit"):
        return None
    p, rows = c.tp, rows_of_micro(c)
    e = next(iter(model.parameters())).dtype.itemsize  # also of 16 bits: they are summed up in 32
    t = c.block if c.model == "gpt" else (train.shape[0] // c.patch) * (train.shape[1] // c.patch)
    n, m = rows * t * c.d * e, rows * t * e
    gpt = c.model == "gpt"
    calls: float = 4 * c.layers + (2 if gpt else 0)  # all-reduces of x, a half of them forward
    if c.pp > 1 and c.recompute:
        calls += calls / 2
    whole = _summed(p, n, c.backend, calls, c.sequence_parallel)
    if gpt:
        numbers = [all_reduce_sent(p, size, c.backend) for size in (m, 2 * m)]
        whole = _plus([whole, *numbers])
    step = Sent(whole.nbytes * c.micros, whole.messages * c.micros)
    if c.sequence_parallel:
        summed = _replicated(model)
        step = _plus([step, all_reduce_sent(p, summed, c.backend)])
    return Sent(step.nbytes / c.pp, step.messages / c.pp)


def _summed(p: int, n: float, backend: str, calls: float, sequence: bool) -> Sent:
    """An all-reduce, or, under sequence parallel, a reduce-scatter and an all-gather."""
    one = all_reduce_sent(p, n, backend)
    if sequence:
        one = Sent(cost.tensor_pair_sent(p, n) / 2, 2 * (p - 1))
    return Sent(calls * one.nbytes, calls * one.messages)


def _plus(sent: Sequence[Sent]) -> Sent:
    return Sent(sum(s.nbytes for s in sent), sum(s.messages for s in sent))


def _replicated(model: Module) -> int:
    """Bytes of what every rank has, and uses for its own positions."""
    table = sharding(model)
    return sum(x.data.nbytes for n, x in model.named_parameters() if table[n] == Replicated(True))


def _pp(c: Config, model: Module, trial: Trial) -> Sent:
    """What goes between the parts, and the weights that several stages use."""
    s, m, v = c.pp, c.micros, chunks_of(c)
    x = rows_of_micro(c) * sum(k.entering for k in trial.kept) / (v * s - 1)
    named = dict(model.named_parameters())
    users = users_of(model, cuts_of(c, model), s)
    w = sum((len(stages) - 1) * named[name].data.nbytes for name, stages in users.items())
    nbytes = cost.pipeline_sent(s, m, v, x, LABEL_BYTES, width_of(c) * w)
    return Sent(nbytes, 2 * 2 * (v * s - 1) / s * m)


def _ps(c: Config, model: Module) -> dict[str, Sent]:
    if any(isinstance(m, Embedding) and m.sparse for m in model.modules()):
        return {}
    n = sum(x.data.nbytes for x in model.parameters() if x.requires_grad)
    shrunk = {"float16": 2.0, "int8": 4.0}.get(c.compress, 1.0)
    return {"ps": Sent(cost.worker_sent(n, shrunk), c.servers)}
