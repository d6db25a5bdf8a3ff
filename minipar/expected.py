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
from minipar.expected_shards import Sent, owned, zero_sent
from minipar.forecast import Part, hollow, local_ranks, parts_of, rows_of_micro, states_of, width_of
from minipar.nn import Embedding, Module
from minipar.parallel.ballot import with_room
from minipar.parallel.buckets import lay_out
from minipar.parallel.compress import COMPRESSORS
from minipar.parallel.parcel import LABEL_BYTES
from minipar.parallel.sharding import Replicated, sharding
from minipar.parallel.stages import users_of
from minipar.strategies import chunks_of
from minipar.tensor import Tensor
from minipar.trial import Trial, cuts_of


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
    elif c.dp > 1:
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
    trained = owned(c, model, stage)
    if c.zero:
        return zero_sent(c, model, stage, width_of(c))
    if c.local_steps > 1:
        whole = (1 + states_of(c)) * n
        return Sent(cost.local_sgd_bytes(p, whole, c.local_steps), 2 * (p - 1) / c.local_steps)
    if c.compress != "none":
        told = 8 * (p - 1) * (1 + len(trained))  # how many rows there were, and what was used
        return Sent(_compressed(c, trained) + told, 3 * (p - 1))
    sizes: list[float] = [x.data.nbytes for x in trained]
    if c.bucket_mb:
        bucket = c.bucket_mb * 2**20 / width_of(c)  # 16 bits are summed up in 32
        layout, _ = with_room(lay_out(trained, bucket), p + len(trained))
        sizes = [k * dtype.itemsize for k, dtype in layout.buckets]
    return _plus([all_reduce_sent(p, size, c.backend) for size in sizes])


def _compressed(c: Config, trained: Sequence[Tensor]) -> float:
    how: Any = COMPRESSORS[c.compress]()
    numbers = sum(x.data.size for x in trained)
    itemsize = trained[0].dtype.itemsize  # also of 16 bits: all-reduces sum them up in 32
    if c.compress == "float16":
        return cost.float16_bytes(c.dp, numbers)
    if c.compress == "int8":
        return cost.int8_bytes(c.dp, numbers, how.block)
    if c.compress == "top-k":
        return cost.top_k_bytes(
            c.dp, max(1, round(how.keep * numbers)), int(itemsize * width_of(c))
        )
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
    whole = _summed(c, n, calls)
    if gpt:
        numbers = [all_reduce_sent(p, size, c.backend) for size in (m, 2 * m)]
        whole = _plus([whole, *numbers])
    step = Sent(whole.nbytes * c.micros, whole.messages * c.micros)
    if c.sequence_parallel:
        summed = _replicated(model)
        step = _plus([step, all_reduce_sent(p, summed, c.backend)])
    return Sent(step.nbytes / c.pp, step.messages / c.pp)


def _summed(c: Config, n: float, calls: float) -> Sent:
    """An all-reduce, or, under sequence parallel, a reduce-scatter and an all-gather.

    Of 16 bits, what is summed up goes in 32, and what is gathered as it is.
    """
    one = all_reduce_sent(c.tp, n, c.backend)
    if c.sequence_parallel:
        reduced = cost.tensor_pair_sent(c.tp, n) / 4
        one = Sent((1 + width_of(c)) * reduced, 2 * (c.tp - 1))
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
