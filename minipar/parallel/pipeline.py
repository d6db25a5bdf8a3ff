r"""The executor of pipeline schedules: one loop that carries out whatever actions a stage is given.

    stage 0    F0  F1  B0  F2  B1  ...       F   take x from before, compute y, give it on
                 \ /  \ /                    B   take dy from behind, backward, give dx back
    stage 1       F0 B0 F1 ...               I   as B, but what serves only the weights is put off
                                             W   and done here

Between F and B a stage keeps x, y, and the graph behind y: those are its stored activations. With
recomputation it keeps x alone, and B begins with the forward pass again (Huang et al. 2019, section
2.3), while the gradient is still on its way. The loss of a micro-batch counts with its share of the
batch, so that the losses add up to the mean over the batch, and the gradients on the weights to the
gradient of that mean. The executor sends nothing for the weights. It says which backward of a chunk
is the last, so that a strategy can send while that one runs.

With several chunks a stage holds several parts of the model: its chunk c is part c·s + stage. What
leaves the last stage goes on to the next chunk of the first.

Letters: s stages, m a micro-batch, c a chunk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from minipar.ambient import grad_enabled
from minipar.array import Array, array_module
from minipar.comm.group import Group
from minipar.graph import leaves
from minipar.nn import Module
from minipar.parallel.parcel import Mail, leaves_of, mapped
from minipar.parallel.passes import Loss, Part
from minipar.parallel.schedule import Action, Program
from minipar.random import Draw
from minipar.spans import hold, span
from minipar.tensor import Tensor, no_grad, record

KIND = MappingProxyType({"F": "forward", "B": "backward", "I": "backward", "W": "backward"})


class Span(NamedTuple):
    """When an action was carried out, in ns of a clock of this process."""

    action: Action
    begin: int
    end: int
    waited: int  # of that, for what other stages send


class Chunks(Protocol):
    """What of a model lies on a stage: for each chunk, the pieces that it is made of."""

    @property
    def chunks(self) -> Sequence[Sequence[Module]]: ...

    def __call__(self, c: int, x: Any, draw: Draw | None) -> Any:
        """What the pieces of chunk c make of x, one after another."""


class StageRun:
    """One step of one stage."""

    def __init__(
        self,
        stage: Chunks,
        mail: Mail,
        parts: Sequence[Part],
        loss: Loss,
        recompute: bool = False,
    ) -> None:
        """parts: all of them on every stage; the first one reads their x, the last one their y."""
        self.stage, self.mail, self.group, self.parts = stage, mail, mail.group, parts
        self.no_sync: Callable[[], AbstractContextManager[None]] = nullcontext  # see `alone`
        self.loss, self.recompute = loss, recompute
        self.kept: dict[tuple[int, int], Any] = {}  # (m, c) -> x and y, or None for y
        self.put_off: dict[tuple[int, int], Callable[[], None]] = {}
        self.peak = 0  # of what was stored: kept or put off
        self.losses: list[Array] = []  # on the last stage
        self.output: Any = None  # there, in evaluation
        self.spans: list[Span] = []

    def carry_out(self, program: Program) -> None:
        """Raises: what an action raises, with a note that names the action."""
        phases = {"F": self.forward, "B": self.backward, "I": self.inputs, "W": self.weights}
        hold("buffers", [(part.x, part.y) for part in self.parts])
        last = {action.chunk: n for n, action in enumerate(program) if action.phase in "BW"}
        for n, action in enumerate(program):
            begin, waited = time.perf_counter_ns(), self.mail.waited
            held = self.no_sync() if n < last.get(action.chunk, 0) else nullcontext()
            seen = span(KIND[action.phase], str(action), action.micro)
            with naming(action, self.group, len(self.parts)), held, seen:
                phases[action.phase](action.micro, action.chunk)
            end, waited = time.perf_counter_ns(), self.mail.waited - waited
            self.spans.append(Span(action, begin, end, waited))
            self.peak = max(self.peak, len(self.kept) + len(self.put_off))
        self.mail.finish()

    def total(self) -> float:
        """Of the losses. A GPU is waited for here, when all of its work has been given to it."""
        return sum((float(loss) for loss in self.losses), 0.0)

    # -- the phases ---------------------------------------------------------------------------

    def forward(self, m: int, c: int) -> None:
        before, behind = self.neighbours(c)
        x = self.parts[m].x if before is None else self.mail.take(before[1], ("F", m, c))
        hold("activations", x)
        with no_grad() if self.recompute else nullcontext():
            y = self.compute(x, m, c)
        if behind is None:
            self.losses.append(y.data)
        else:
            given = self.as_if_kept(y, x, c) if self.recompute else y
            self.mail.post(behind[1], ("F", m, behind[0]), given)
        if grad_enabled.get():
            self.kept[m, c] = x, None if self.recompute else y
            hold("activations", self.kept[m, c])

    def backward(self, m: int, c: int) -> None:
        self.go_back(m, c)

    def inputs(self, m: int, c: int) -> None:
        self.put_off[m, c] = self.go_back(m, c, inputs_first=True)

    def weights(self, m: int, c: int) -> None:
        self.put_off.pop((m, c))()

    # -- what they are made of ----------------------------------------------------------------

    def neighbours(self, c: int) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """(chunk, stage) of the part before this one, and of that behind; None at the ends."""
        s = self.group.size
        part, parts = c * s + self.group.rank, len(self.stage.chunks) * s
        before = None if part == 0 else divmod(part - 1, s)
        return before, None if part == parts - 1 else divmod(part + 1, s)

    def compute(self, x: Any, m: int, c: int) -> Any:
        """What the chunk makes of x; on the last part of the model, the loss and its share."""
        part = self.parts[m]
        y = self.stage(c, x, part.draw)
        if self.neighbours(c)[1] is not None:
            return y
        if not grad_enabled.get():
            self.output = y
        loss = self.loss(y, part.y)
        return loss if part.share == 1 else loss * part.share

    def as_if_kept(self, y: Any, x: Any, c: int) -> Any:
        """y, made without a graph, as it looks with one: its tensors want a gradient."""
        weights = (w for piece in self.stage.chunks[c] for w in piece.parameters())
        wanted = grad_enabled.get() and any(
            isinstance(t, Tensor) and t.requires_grad for t in (*leaves_of(x), *weights)
        )
        return mapped(lambda t: Tensor(t.data, wanted) if isinstance(t, Tensor) else t, y)

    def go_back(self, m: int, c: int, inputs_first: bool = False) -> Callable[[], None]:
        """Backward through a chunk; what is left to do if only the inputs' gradients are wanted."""
        before, behind = self.neighbours(c)
        x, y = self.kept.pop((m, c))
        if self.recompute:
            y = self.compute(x, m, c)
        dy = None if behind is None else self.mail.take(behind[1], ("B", m, c))
        hold("buffers", dy)
        rest = backward_through(y, dy, list(leaves_of(x)) if inputs_first else None)
        if before is not None:
            dx = mapped(lambda t: t.grad if isinstance(t, Tensor) else None, x)
            self.mail.post(before[1], ("B", m, before[0]), dx)
        return rest


def backward_through(y: Any, dy: Any, first: Collection[Any] | None = None) -> Callable[[], None]:
    """Carry dy back from all tensors of y at once.

    y: a tensor, or a tree of them.  dy: alike, of arrays and None; None altogether if y is a loss.
    first: leaves whose gradients alone are wanted now; the callable returned finds the others.
    """
    tensors = list(leaves_of(y))
    grads = [None] * len(tensors) if dy is None else list(leaves_of(dy))
    pairs = [
        (t, dz)
        for t, dz in zip(tensors, grads, strict=True)
        if isinstance(t, Tensor) and t.requires_grad and (dz is not None or dy is None)
    ]
    if not pairs:
        return lambda: None
    root = pairs[0][0] if dy is None else joined(*zip(*pairs))
    if first is None:
        return root.backward(defer=())
    ids = set(map(id, first))
    return root.backward(defer=[x for x in leaves(root._node or root) if id(x) not in ids])


def joined(tensors: Sequence[Tensor], grads: Sequence[Array]) -> Tensor:
    """A number whose backward() gives each tensor its gradient."""
    xp, dtype = array_module(tensors[0].data), tensors[0].dtype

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return [grad.copy() for grad in grads]  # as the engine may add to what it is given

    return record(xp.zeros((), dtype), tensors, vjp)


@contextmanager
def naming(action: Action, group: Group, micros: int) -> Iterator[None]:
    """Say in what goes wrong inside which action of which stage it was."""
    try:
        yield
    except Exception as error:
        where = f"in stage {group.rank} of {group.size}, action {action}"
        note = f"{where}: micro-batch {action.micro} of {micros}"
        if hasattr(error, "add_note"):  # Python 3.11
            error.add_note(note)
        elif error.args and isinstance(error.args[0], str):
            error.args = (f"{error.args[0]}\n{note}", *error.args[1:])
        raise
