"""Every stage of sharding equals one rank, and each mistake that would break it is seen."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import ReplicasDiffer, ShapeMismatch, UsageError
from minipar.events import recording
from minipar.models import WideDeep
from minipar.nn import Linear, Module
from minipar.ops import tanh
from minipar.optim import SGD, Adam, clip_grad_norm
from minipar.parallel import sharded
from minipar.parallel.memory import Peak, held_bytes
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.parallel.slices import Owned, Piece, Slice
from minipar.parallel.units import Unit
from minipar.random import Init
from minipar.tensor import Tensor
from tests.parallel.sharing import (
    STRATEGIES,
    Net,
    adamw,
    difference,
    momentum,
    on_many,
    on_one_rank,
)

EVEN, UNEVEN = (adamw, False), (momentum, True)


@pytest.mark.parametrize("construct", STRATEGIES)
@pytest.mark.parametrize(("make", "uneven"), [EVEN, UNEVEN])
@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_equals_one_rank(construct, make, uneven, p):
    one = on_one_rank(make, uneven)
    states = minipar.run(on_many, p, args=(construct, make, uneven))
    for state in states:
        assert difference(state, one) < 1e-10
        assert difference(state, states[0]) == 0


def in_all_stages(group):
    return [on_many(group, construct, adamw) for construct in STRATEGIES]


@pytest.mark.parametrize("p", [3, *(pytest.param(p, marks=pytest.mark.slow) for p in (2, 4))])
def test_processes_give_the_bits_of_threads(p):
    (local, *_) = minipar.run(in_all_stages, p)
    for stages in minipar.run(in_all_stages, p, backend="process"):
        assert [difference(*pair) for pair in zip(stages, local)] == [0, 0, 0]


@pytest.mark.parametrize("construct", STRATEGIES)
@pytest.mark.parametrize("p", [1, 3])
def test_accumulation_equals_one_rank(construct, p):
    for state in minipar.run(on_many, p, args=(construct, adamw, True, 2)):
        assert difference(state, on_one_rank(adamw, True)) < 1e-10


MOVES = [(Zero1, 2, Zero3, 3), (Zero3, 4, Zero2, 1), (Zero2, 3, Zero1, 4)]


@pytest.mark.parametrize(("before", "p", "after", "q"), MOVES)
def test_a_run_goes_on_in_another_stage_on_other_ranks(before, p, after, q):
    half = minipar.run(on_many, p, args=(before, adamw, False, 1, range(5)))[0]
    assert half.keys() == on_one_rank(adamw).keys()
    for state in minipar.run(on_many, q, args=(after, adamw, False, 1, range(5, 10), half)):
        assert difference(state, on_one_rank(adamw)) < 1e-10


def test_ranks_must_have_the_same_parameters_in_the_same_order():
    def work(group, construct):
        model = Stack(2, 3)
        model.last = Linear(Init(), 2, 2)
        if group.rank:
            model.layers = vars(model).pop("layers")
        construct(model, group, plain)

    for construct in STRATEGIES:
        with pytest.raises(ReplicasDiffer, match=r"layers\.0\.weight"):
            minipar.run(work, 2, args=(construct,))


def test_what_is_loaded_must_fit():
    def work(group, construct, spoil):
        sharing = construct(Net(), group, adamw)
        state = sharing.state_dict()
        spoil(state)
        sharing.load_state_dict(state)

    for construct in STRATEGIES:
        with pytest.raises(UsageError, match=r"unexpected \['x/m'\]"):
            minipar.run(work, 2, args=(construct, lambda state: state.update({"x/m": 0})))
        with pytest.raises(UsageError, match=r"missing \['scale/v'\]"):
            minipar.run(work, 2, args=(construct, lambda state: state.pop("scale/v")))
        with pytest.raises(ShapeMismatch, match=r"scale/v is float64\[2\]"):
            minipar.run(work, 2, args=(construct, lambda s: s.update({"scale/v": np.zeros(2)})))


def test_rows_that_come_too_late_are_an_error():
    def work(group, construct, rows):
        model = Net()
        sharing = construct(model, group, momentum)
        model(Tensor(np.ones((2, 5)))).sum().backward()
        sharing.sync_gradients(rows[group.rank])

    for construct in STRATEGIES[1:]:
        minipar.run(work, 2, args=(construct, (7, 7)))
        with pytest.raises(UsageError, match=r"have \[2.0, 1.0\] rows.* announce\(rows\)"):
            minipar.run(work, 2, args=(construct, (2, 1)))


def test_a_rank_without_rows_counts_for_nothing():
    """It calls no backward at all; the gradient is that of the others."""

    def work(group, construct):
        model = Net()
        sharing = construct(model, group, plain)
        sharing.zero_grad()
        sharing.announce(2.0 * (group.rank > 0))
        if group.rank:
            model(Tensor(np.ones((2, 5)))).sum().backward()
        sharing.sync_gradients(2.0 * (group.rank > 0))
        sharing.step()
        return model.state_dict()

    for construct in STRATEGIES[:2]:
        alone, two = (minipar.run(work, p, args=(construct,))[-1] for p in (2, 3))
        assert difference(alone, two) < 1e-12
        assert np.abs(alone["scale"] - 1) > 1e-3


def plain(named):
    return SGD(named, lr=0.01)


def test_sparse_gradients_become_dense():
    def work(group, construct, sparse):
        model = WideDeep(Init(0, np.float64), (3, 4), numbers=2, hidden=(5,), sparse=sparse)
        sharing = construct(model, group, momentum)
        ids = np.array([[group.rank, 1], [0, 3]])
        for _ in range(2):
            sharing.zero_grad()
            model((np.ones((2, 2)), ids)).sum().backward()
            sharing.sync_gradients()
            sharing.step()
        with sharing.whole():
            return model.state_dict()

    (dense, _) = minipar.run(work, 2, args=(Zero1, False))
    for construct in STRATEGIES:
        for state in minipar.run(work, 2, args=(construct, True)):
            assert difference(state, dense) == 0


# -- mistakes ---------------------------------------------------------------------------------


def state_of_another_slice(patch):
    patch(sharded, "Slice", lambda flat, r, *arrays: Slice(flat, (r + 1) % 3, *arrays))


def last_piece_dropped(patch):
    """By a cut that leaves out what p does not divide."""

    def cut(flat, rank, data, grad):
        made = Slice(flat, rank, data, grad)
        if rank == 2:
            made.pieces.popitem()
        return made

    patch(sharded, "Slice", cut)


def divided_twice(patch):
    def give(self, used):
        self.grad /= 3
        give_gradients(self, used)

    give_gradients = Slice.give_gradients
    patch(Slice, "give_gradients", give)


def norm_of_the_own_slice(patch):
    patch(
        Owned,
        "clip",
        lambda self, most: clip_grad_norm(self.optimizer.parameters.values(), most),
    )


def a_vector_taken_for_a_matrix(patch):
    """So that weight decay spares the wrong ones."""
    patch(sharded, "Slice", lambda *args: _flattened(Slice(*args)))


def _flattened(made):
    for name, (here, there, _) in made.pieces.items():
        flat = Tensor(made.data[here], requires_grad=True)
        made.pieces[name] = Piece(here, there, flat)
    return made


def gathered_no_more(patch):
    patch(Zero1, "step", lambda self: self.optimizer.step())


MISTAKES = (
    state_of_another_slice,
    last_piece_dropped,
    divided_twice,
    norm_of_the_own_slice,
    a_vector_taken_for_a_matrix,
    gathered_no_more,
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake, monkeypatch):
    one = on_one_rank(adamw)
    mistake(monkeypatch.setattr)
    states = minipar.run(on_many, 3, args=(Zero1, adamw))
    assert max(difference(state, one) for state in states) > 1e-6


def dropped_with_the_first_gradient(patch):
    patch(Unit, "_final", lambda self, name, x: self.drop())


def kept_over_the_step(patch):
    patch(Zero3, "_drop_all", lambda self: None)


@pytest.mark.parametrize("mistake", [dropped_with_the_first_gradient, kept_over_the_step])
def test_a_mistake_of_stage_3_is_seen(mistake, monkeypatch):
    one = on_one_rank(adamw)
    mistake(monkeypatch.setattr)
    states = minipar.run(on_many, 3, args=(Zero3, adamw))
    assert not max(difference(state, one) for state in states) < 1e-6  # also if it is nan


# -- bytes ------------------------------------------------------------------------------------

D, LAYERS = 240, 3  # large enough for the ring


class Stack(Module):
    """Equal layers and nothing else."""

    def __init__(self, layers=LAYERS, d=D, dtype=np.float64):
        self.layers = [Linear(Init(0, dtype) / n, d, d, bias=False) for n in range(layers)]

    def __call__(self, x):
        for layer in self.layers:
            x = tanh(layer(x))
        return x


def sent_in_a_step(group, construct):
    model = Stack()
    sharing = construct(model, group, momentum)
    sharing.zero_grad()
    with recording() as log:
        model(Tensor(np.ones((1, D)))).sum().backward()
        sharing.sync_gradients()
        sharing.clip(1.0)
        sharing.step()
    large = [event.nbytes for event in log if event.nbytes > 1000]
    return sum(large), sum(event.nbytes for event in log) - sum(large)


SENT = {Zero1: cost.zero1_sent, Zero2: cost.zero2_sent, Zero3: cost.zero3_sent}


@pytest.mark.parametrize("construct", SENT)
@pytest.mark.parametrize("p", [1, 2, 3, 4])
def test_the_bytes_sent_are_those_of_the_formula(construct, p):
    n = LAYERS * D * D * 8
    for large, small in minipar.run(sent_in_a_step, p, args=(construct,)):
        assert large == SENT[construct](p, n)
        assert small < 500  # whether a parameter was used; the norm


def held(group, construct, layers, d):
    """Between steps, and at most."""
    model = Stack(layers, d)
    sharing = construct(model, group, Adam)
    peak = Peak(model, sharing)
    for _ in range(2):
        sharing.zero_grad()
        model(Tensor(np.ones((1, d)))).sum().backward()
        sharing.sync_gradients()
        sharing.step()
    return held_bytes(model, sharing), peak.nbytes


U = 40 * 40 * 8  # bytes of a layer
MEMORY = {
    Zero1: (cost.zero1_kept, 0),
    partial(Zero2, bucket_bytes=U): (cost.zero2_kept, cost.zero2_passing(U, U)),
    Zero3: (cost.zero3_kept, cost.zero3_passing(U, U)),
}


@pytest.mark.parametrize("construct", MEMORY)
@pytest.mark.parametrize("p", [1, 2, 4])
def test_the_memory_is_that_of_the_formula(construct, p):
    kept, passing = MEMORY[construct]
    n = 12 * U
    for between, peak in minipar.run(held, p, args=(construct, 12, 40)):
        assert between == pytest.approx(kept(p, n, 2), rel=0.01)
        assert peak == pytest.approx(kept(p, n, 2) + passing, rel=0.05)
        if construct is Zero3 and p == 4:
            assert peak <= 0.36 * 4 * n


def traced(group, construct):
    """The most that a process has in all, also for what the calls need themselves."""
    d = 300  # so that what Python's own objects take is small beside it
    held(group, construct, 2, 10)  # imports what it needs
    tracemalloc.start()
    model = Stack(12, d)
    sharing = construct(model, group, Adam)
    for _ in range(2):
        tracemalloc.reset_peak()
        sharing.zero_grad()
        model(Tensor(np.ones((1, d)))).sum().backward()
        sharing.sync_gradients()
        sharing.step()
    return tracemalloc.get_traced_memory()[1], 12 * d * d * 8


def test_a_process_of_stage_3_allocates_what_the_formula_says():
    for most, n in minipar.run(traced, 4, args=(Zero3,), backend="process"):
        formula = cost.zero3_kept(4, n, 2) + cost.zero3_passing(n / 12, n / 12)
        assert most == pytest.approx(formula, rel=0.07)  # a reduce_scatter has slices of its own
        assert most <= 0.36 * 4 * n
