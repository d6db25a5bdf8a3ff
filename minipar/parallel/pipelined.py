r"""A model that is trained as a pipeline: each rank holds a stage of it.

    pipeline = Pipeline(model, group, loss, "1f1b")
    strategy = PipelineParallel(pipeline, make_optimizer)

    strategy.zero_grad()
    mean = pipeline.train(micro_batches(x, y, draw, m))        forward and backward of all of them
    strategy.sync_gradients()
    strategy.clip(max_norm)
    strategy.step()

What of the model lies on other ranks has its shape here and no memory. Inside `whole()` all is
there. Checkpoints do not know of stages: names and numbers are those of the whole model.

How the weights are trained from there is pipeline_strategy.py.

Letters: s stages, m micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import numpy as np

from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.comm.wiring import even_cuts
from minipar.errors import SharedMemoryFull, UsageError
from minipar.nn import Module
from minipar.parallel.agreement import check_same_form
from minipar.parallel.flat import nothing
from minipar.parallel.parcel import Mail, mapped, slots_for
from minipar.parallel.passes import MEASURED, Loss, Measure, Part
from minipar.parallel.pipeline import StageRun
from minipar.parallel.schedule import Program, forward_only, named
from minipar.parallel.schedule_check import check
from minipar.parallel.stages import Stage, balanced, bytes_of, pieces_of
from minipar.random import Draw
from minipar.spans import hold
from minipar.tensor import Tensor, no_grad


class Pipeline:
    """This rank's stage of the model, and how micro-batches go through it."""

    def __init__(
        self,
        model: Module,
        group: Group,
        loss: Loss,
        schedule: str | Callable[[int, int], list[Program]] = "1f1b",
        cuts: Sequence[int] | None = None,
        recompute: bool = False,
    ) -> None:
        """Gives all stages the weights of rank 0, and lets go of what lies elsewhere.  Collective.

        schedule: a name (`schedule.NAMES`), or a function of (stages, micros).
        cuts:     where the pieces of the model are cut (`stages.balanced`); None: by the bytes of
                  the parameters.
        Raises:   UsageError; ReplicasDiffer if the ranks have built other models.
                  ScheduleError comes with the first step of so many micro-batches.
        """
        check_same_form(model, group)
        if cuts is None:
            cuts = balanced(bytes_of(pieces_of(model)), group.size)
        self.model, self.group, self.loss, self.recompute = model, group, loss, recompute
        self.stage = Stage(model, group, cuts)
        self._schedule = schedule
        self._programs: dict[int, Program] = {}  # of this stage, by the number of micro-batches
        for x in model.parameters():
            group.broadcast(x.data, out=x.data)
        self._let_go()
        self._slots: Array | None = None
        self.complete: Callable[[Tensor], Tensor] = lambda output: output  # if it is cut, to whole
        self.last: StageRun | None = None  # what the last step was like
        self.no_sync: Callable[[], AbstractContextManager[None]] = nullcontext  # while a chunk has
        # a backward to come; a strategy puts it there that sends in the last one

    def train(self, parts: Sequence[Part]) -> float:
        """Forward and backward; the gradients are on the weights.  Collective.

        Returns: the sum of the losses by their shares, on every rank.
        """
        m = len(parts)
        new = m not in self._programs
        if new:
            self._programs[m] = self._checked(m)
        self.last = run = self._run(parts)
        run.carry_out(self._programs[m])
        if new:
            self._make_room(run.mail)
        return self._told(run.total())

    def evaluate(self, x: Any, y: Any) -> tuple[float, Array | None]:
        """The loss on every rank, and on the last one what the model gives.  Collective."""
        chunks, s = self.stage.chunks, self.group.size
        run = self._run([Part(x, y, None)])
        program = forward_only(s, 1)[self.group.rank]
        with no_grad():
            run.carry_out([a._replace(chunk=c) for c in range(len(chunks)) for a in program])
        return self._told(run.total()), mapped(_array, run.output)

    def measure(self, batches: Iterable[tuple[Any, Array]], of: Measure) -> Array:
        """Σ of(output, y) over the batches, found on the last stage, on every rank.  Collective."""
        total = np.zeros(MEASURED)
        for x, y in batches:
            output = self.evaluate(x, y)[1]
            if output is not None:
                total += of(self.complete(Tensor(output)), y)
        return self.group.broadcast(total, self.group.size - 1)

    @contextmanager
    def whole(self) -> Iterator[Module]:
        """The model with all its weights; what is changed inside, on all ranks alike, counts."""
        here = self.stage.owned | self.stage.borrowed
        for name, x in self.model.named_parameters():
            if name not in here:
                x.data = array_module(x.data).empty(x.shape, x.dtype)
            self.group.broadcast(x.data, self.stage.users[name][0], out=x.data)
        try:
            yield self.model
        finally:
            self._let_go()

    def _run(self, parts: Sequence[Part]) -> StageRun:
        xp = array_module(*(x.data for x in self.model.parameters()))
        mail = Mail(self.group, xp, self._slots)
        run = StageRun(self.stage, mail, parts, self.loss, self.recompute)
        run.no_sync = self.no_sync
        return run

    def _make_room(self, mail: Mail) -> None:
        """Have slots for the largest parcels of this step; if memory is short, go on without."""
        largest = int(self.group.all_reduce(np.array(mail.largest), "max"))
        if largest > (0 if self._slots is None else self._slots.shape[-1]) and mail.xp is np:
            with suppress(SharedMemoryFull):
                self._slots = slots_for(largest, self.group)
                hold("buffers", self._slots)

    def _checked(self, m: int) -> Program:
        """What this stage does with m micro-batches, of a schedule that can be run."""
        s, chunks = self.group.size, len(self.stage.chunks)
        made = self._schedule
        programs = made(s, m) if callable(made) else named(made, s, m, chunks)
        found = check(programs)
        if (len(programs), found.micros, found.chunks) != (s, m, chunks):
            raise UsageError(
                f"the schedule is for {len(programs)} stages, {found.micros} micro-batches and "
                f"{found.chunks} chunks; here are {s}, {m} and {chunks}."
            )
        return programs[self.group.rank]

    def _told(self, total: float) -> float:
        """What the last stage has found."""
        return float(self.group.broadcast(np.array(total), self.group.size - 1))

    def _let_go(self) -> None:
        here = self.stage.owned | self.stage.borrowed
        for name, x in self.model.named_parameters():
            if name not in here:
                x.data, x.grad = nothing(x.data), None


def micro_batches(
    x: Any, y: Any, draw: Draw, m: int, weigh: Callable[[Any], float] = len
) -> list[Part]:
    """A batch cut into m micro-batches, as equal as can be; their shares add up to 1.

    x, y:  arrays or tensors [rows, ...], or tuples, lists or dicts of them.
    weigh: over how much the loss of some y is a mean: its rows, or the tokens that count.
    Raises: UsageError if there are fewer rows than micro-batches.
    """
    rows = draw.rows
    if not 1 <= m <= len(rows):
        raise UsageError(f"{len(rows)} rows cannot be cut into {m} micro-batches.")
    parts = []
    for start, stop in zip(cuts := even_cuts(len(rows), m), cuts[1:]):
        some_x, some_y = (mapped(partial(_rows, start, stop), tree) for tree in (x, y))
        own = Draw(draw.seed, draw.step, rows[start:stop])
        parts.append(Part(some_x, some_y, own, weigh(some_y)))
    total = sum(part.share for part in parts)
    return [part._replace(share=part.share / total) for part in parts]


def _array(leaf: Any) -> Any:
    return leaf.data if isinstance(leaf, Tensor) else leaf


def _rows(start: int, stop: int, leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return Tensor(leaf.data[start:stop])
    return None if leaf is None else leaf[start:stop]
