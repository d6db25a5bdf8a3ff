"""Every schedule gives what one rank gives, stores what it should, and says where it failed."""

import itertools
import json
import weakref
from functools import partial

import numpy as np
import pytest

import minipar
from minipar.checks import checks
from minipar.comm.launch import run_threads
from minipar.comm.local import LocalWorld
from minipar.errors import ScheduleError
from minipar.events import recording
from minipar.nn import Linear, Module, Sequential
from minipar.ops import mse
from minipar.parallel import parcel, pipeline
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.schedule import Action, gpipe, interleaved, named, one_f_one_b
from minipar.parallel.schedule_check import check
from minipar.random import Draw, Init
from minipar.tensor import Tensor, record
from tests.parallel.piped import adamw, deep, furthest, momentum, on_one_rank, on_stages

SCHEDULES = ("naive", "gpipe", "1f1b", "zero-bubble")
QUICK = [(1, 2), (2, 5), (3, 3), (4, 8)]
ALL = [(s, m) for s in (1, 2, 3, 4) for m in sorted({1, 2, s, s + 1, 2 * s, 3 * s})]
SLOW = [pytest.param(s, m, marks=pytest.mark.slow) for s, m in ALL if (s, m) not in QUICK]


def rendezvous(fn, stages, *args):
    """`run` on ranks whose sends wait for their receives."""
    results, failed = run_threads(fn, stages, args, LocalWorld(stages, buffer_bytes=0))
    if failed is not None:
        raise failed[1]
    return results


# -- the numbers are those of one rank --------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("stages", "micros"), QUICK + SLOW)
def test_equals_one_rank(schedule, stages, micros):
    for found in rendezvous(on_stages, stages, schedule, micros):
        assert furthest(found, on_one_rank()) < 1e-10


@pytest.mark.parametrize(("stages", "chunks", "micros"), [(2, 2, 4), (1, 3, 2), (3, 2, 3)])
def test_interleaved_equals_one_rank(stages, chunks, micros):
    cuts = [0, *range(7 - stages * chunks, 7)]
    work = partial(on_stages, cuts=cuts)
    for found in rendezvous(work, stages, "interleaved", micros):
        assert furthest(found, on_one_rank()) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [*SCHEDULES, "interleaved"])
@pytest.mark.parametrize("micros", [8, 16, 24])
def test_eight_stages_equal_one_rank(schedule, micros):
    cuts = list(range(17)) if schedule == "interleaved" else None
    work = partial(on_stages, rows=25, build=deep, cuts=cuts)
    for found in minipar.run(work, 8, args=(schedule, micros)):
        assert furthest(found, on_one_rank(25, build=deep)) < 1e-10


@pytest.mark.parametrize("schedule", ["gpipe", "zero-bubble"])
def test_recomputation_changes_no_number(schedule):
    stages = minipar.run(on_stages, 3, args=(schedule, 4))
    again = minipar.run(partial(on_stages, recompute=True), 3, args=(schedule, 4))
    assert all(furthest(a, b) == 0 for a, b in zip(stages, again))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_nothing_is_changed_that_backward_still_needs(schedule, recompute):
    """As `minipar train --pp --check` looks for."""

    def checked(group):
        with checks():
            return on_stages(group, schedule, 4, recompute=recompute)

    for found in minipar.run(checked, 2):
        assert furthest(found, on_one_rank()) < 1e-10


def test_by_another_optimizer():
    for found in minipar.run(partial(on_stages, make=adamw), 3, args=("1f1b", 4)):
        assert furthest(found, on_one_rank(make=adamw)) < 1e-10


def any_order(dice, stages, micros):
    """Programs that come out if somebody picks, one by one, an action that can be done next."""
    order = dice.permutation(micros).tolist()  # in which the last stage goes back
    left = {("F", i): list(range(micros)) for i in range(stages)}
    left |= {(phase, i): order[:] for i in range(stages) for phase in "IW"}
    programs = [[] for _ in range(stages)]

    def ready(phase, i):
        m = left[phase, i][0]
        needs = {"F": [("F", i - 1)], "I": [("F", i), ("I", i + 1)], "W": [("I", i)]}[phase]
        return all(m not in left.get(need, ()) for need in needs)

    while any(left.values()):
        can = [key for key, rest in left.items() if rest and ready(*key)]
        phase, i = can[dice.integers(len(can))]
        programs[i].append(Action(phase, left[phase, i].pop(0)))
    return programs


@pytest.mark.parametrize("seed", range(4))
def test_what_the_checker_passes_runs_without_buffers(seed):
    dice = np.random.default_rng(seed)
    programs = any_order(dice, stages := int(dice.integers(2, 5)), micros := 5)
    while not runs(programs):
        programs = any_order(dice, stages, micros)
    for found in rendezvous(partial(on_stages, steps=2), stages, lambda s, m: programs, micros):
        assert furthest(found, on_one_rank(steps=2)) < 1e-10


def runs(programs):
    try:
        return bool(check(programs))
    except ScheduleError:
        return False


def every_schedule(group):
    return [on_stages(group, schedule, 3, steps=3) for schedule in SCHEDULES]


def test_processes_give_the_bits_of_threads():
    for process, local in zip(
        minipar.run(every_schedule, 2, backend="process"), minipar.run(every_schedule, 2)
    ):
        assert all(furthest(a, b) == 0 for a, b in zip(process, local))


# -- what is stored ---------------------------------------------------------------------------


class Kept(np.ndarray):
    """An array that can be watched."""


class Watched(Module):
    """x · w, and how many x its graphs hold."""

    def __init__(self, init):
        self.weight = Tensor(init.normal("weight", (4, 4), 0.5), requires_grad=True)
        self.alive = weakref.WeakValueDictionary()
        self.peak = 0

    def __call__(self, x):
        kept = x.data.copy().view(Kept)
        self.alive[id(kept)] = kept

        def vjp(dz, wanted):
            dx = dz @ self.weight.data.T if wanted[0] else None
            return dx, np.asarray(kept.T @ dz) if wanted[1] else None

        z = record(x.data @ self.weight.data, (x, self.weight), vjp)
        if z.requires_grad:
            self.peak = max(self.peak, len(self.alive))
        return z


def live(group, schedule, micros, recompute=False, chunks=1):
    """How many activations the graphs of this stage held at most; how many are left; .peak."""
    k = group.size * chunks
    model = Sequential(*(Watched(Init(0, np.float64) / n) for n in range(k)))
    cuts = range(k + 1)
    pipe = Pipeline(model, group, mse, schedule, cuts, recompute)
    x = np.ones((micros, 4))
    pipe.train(micro_batches(Tensor(x), x, Draw(0, 0, range(micros)), micros))
    layers = [piece.parts[0] for chunk in pipe.stage.chunks for piece in chunk]
    return sum(x.peak for x in layers), sum(len(x.alive) for x in layers), pipe.last.peak


@pytest.mark.parametrize(("stages", "micros"), [(1, 3), (3, 2), (4, 9)])
def test_peaks_of_stored_activations(stages, micros):
    def peaks(schedule):
        found = minipar.run(live, stages, args=(schedule, micros))
        assert all(left == 0 for _, left, _ in found)
        assert all(seen == counted for seen, _, counted in found)
        seen = [seen for seen, _, _ in found]
        assert seen == check(named(schedule, stages, micros)).peaks
        return seen

    assert peaks("naive") == [1] * stages
    assert peaks("gpipe") == [micros] * stages
    assert peaks("1f1b") == [min(micros, stages - i) for i in range(stages)]
    assert peaks("zero-bubble") == [min(micros, stages)] * stages


@pytest.mark.parametrize(("stages", "chunks", "micros"), [(2, 2, 4), (3, 2, 6)])
def test_peaks_of_chunks(stages, chunks, micros):
    found = minipar.run(live, stages, args=("interleaved", micros, False, chunks))
    peaks = check(interleaved(stages, micros, chunks)).peaks
    assert [counted for _, _, counted in found] == peaks
    # Each chunk has a peak of its own, at another time.
    assert all(seen >= counted for seen, _, counted in found)


def test_gpipe_in_disguise_is_seen():
    def disguised(stages, micros):
        """Backward in the order of 1F1B, but after all of the forwards."""
        return [p[:micros] + p[: micros - 1 : -1] for p in gpipe(stages, micros)]

    peaks = [peak for peak, _, _ in minipar.run(live, 3, args=(disguised, 6))]
    assert peaks == [6, 6, 6] != [3, 2, 1]


def test_with_recomputation_only_inputs_are_stored():
    for seen, left, stored in minipar.run(live, 3, args=("gpipe", 5, True)):
        assert (seen, left, stored) == (1, 0, 5)  # the one that is being computed again


def test_with_recomputation_outputs_are_let_go(monkeypatch):
    backward, outputs = pipeline.StageRun.backward, []

    def watched(self, m, c):
        outputs.extend(y for _, y in self.kept.values())
        backward(self, m, c)

    monkeypatch.setattr(pipeline.StageRun, "backward", watched)
    minipar.run(live, 2, args=("gpipe", 3, True))
    assert outputs == [None] * 2 * (3 + 2 + 1)


# -- classic mistakes -------------------------------------------------------------------------


def shares_forgotten(monkeypatch):
    compute = pipeline.StageRun.compute

    def wrong(self, x, m, c):
        parts, self.parts = self.parts, [part._replace(share=1.0) for part in self.parts]
        z = compute(self, x, m, c)
        self.parts = parts
        return z

    monkeypatch.setattr(pipeline.StageRun, "compute", wrong)


def unequal_micro_batches_counted_alike(monkeypatch):
    compute = pipeline.StageRun.compute

    def wrong(self, x, m, c):
        self.parts = [part._replace(share=1 / len(self.parts)) for part in self.parts]
        return compute(self, x, m, c)

    monkeypatch.setattr(pipeline.StageRun, "compute", wrong)


def gradient_to_the_wrong_neighbour(monkeypatch):
    post = parcel.Mail.post

    def wrong(self, dst, key, tree):
        post(self, (dst + 2) % self.group.size if key[0] == "B" else dst, key, tree)

    monkeypatch.setattr(parcel.Mail, "post", wrong)


def shared_weight_not_summed(monkeypatch):
    monkeypatch.setattr(PipelineParallel, "_shared", lambda self, trained=False: iter(()))


def all_rows_drop_like_the_first(monkeypatch):
    keep = Draw.keep

    def wrong(self, name, shape, p):
        return keep(Draw(self.seed, self.step, range(shape[0])), name, shape, p)

    monkeypatch.setattr(Draw, "keep", wrong)


def last_micro_batch_left_over(monkeypatch):
    carry_out = pipeline.StageRun.carry_out

    def wrong(self, program):
        carry_out(self, [action for action in program if action != Action("B", 3)])

    monkeypatch.setattr(pipeline.StageRun, "carry_out", wrong)


MISTAKES = (
    shares_forgotten,
    unequal_micro_batches_counted_alike,
    gradient_to_the_wrong_neighbour,
    shared_weight_not_summed,
    all_rows_drop_like_the_first,
    last_micro_batch_left_over,
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_classic_mistake_is_caught(mistake, monkeypatch):
    wanted = on_one_rank()
    mistake(monkeypatch)
    try:
        found = minipar.run(partial(on_stages, steps=2), 3, args=("1f1b", 4))
    except minipar.errors.Deadlock:
        return
    assert max(abs(f["loss 1"] - wanted["loss 1"]) for f in found) > 1e-6


@pytest.fixture
def crossed(monkeypatch):
    """The last stage goes back from the first micro-batch on, the others from the last.

    A checked schedule cannot do that; parcels could.
    """

    def programs(self, micros):
        stages = self.group.size
        return [*gpipe(stages, micros)[:-1], one_f_one_b(1, micros)[0]][self.group.rank]

    monkeypatch.setattr(Pipeline, "_checked", programs)


def test_stages_may_go_back_in_different_orders(crossed):
    for found in minipar.run(on_stages, 3, args=("", 4)):
        assert furthest(found, on_one_rank()) < 1e-10


def test_the_order_matters_to_who_does_not_read_labels(crossed, monkeypatch):
    def the_next_one(self, src, key):
        *_, form = json.loads(self.group.recv(src).tobytes())
        return parcel._put_together(form, lambda shape, dtype: self.group.recv(src))

    monkeypatch.setattr(parcel.Mail, "take", the_next_one)
    for found in minipar.run(partial(on_stages, rows=12, steps=2), 3, args=("", 4)):
        assert abs(found["loss 1"] - on_one_rank(12)["loss 1"]) > 1e-6


def messages(group, micros):
    """What each stage sends in a step, without and with sync_gradients."""
    model = Sequential(*(Linear(Init() / n, 4, 4) for n in range(group.size)))
    pipe = Pipeline(model, group, mse, "1f1b")
    strategy, x = PipelineParallel(pipe, momentum), np.ones((6, 4), np.float32)
    parts = micro_batches(Tensor(x), x, Draw(0, 0, range(6)), micros)
    with recording() as log:
        pipe.train(parts)
    sends = [e for e in log if e.op == "send"]
    with recording() as after:
        strategy.sync_gradients()
    return len(sends), sum(e.nbytes for e in sends), len(after)


@pytest.mark.parametrize("micros", [1, 3])
def test_a_step_sends_activations_and_their_gradients_and_nothing_else(micros):
    """So nothing is synchronised after each micro-batch."""
    arrays = 6 * 4 * 4
    one_way = 2 * micros, micros * parcel.LABEL_BYTES + arrays
    both = 2 * one_way[0], 2 * one_way[1]
    found = minipar.run(messages, 3, args=(micros,))
    assert [(n, nbytes) for n, nbytes, _ in found] == [one_way, both, one_way]
    assert [after for _, _, after in found] == [0, 0, 0]


# -- errors -----------------------------------------------------------------------------------


class Failing(Module):
    """Fails in micro-batch 2, forward or backward."""

    def __init__(self, phase):
        self.phase = phase

    def __call__(self, x, draw=None):
        def fail(phase):
            if phase == self.phase and draw.rows.start == 2:
                raise ZeroDivisionError("by the layer")

        fail("F")

        def vjp(dz, wanted):
            fail("B")
            return (dz,)

        return record(x.data, (x,), vjp)


def fail(group, phase):
    layers = [Linear(Init() / n, 4, 4) for n in range(2)]
    pipe = Pipeline(Sequential(*layers, Failing(phase)), group, mse, "1f1b", (0, 1, 3))
    x = np.ones((4, 4), np.float32)
    pipe.train(micro_batches(Tensor(x), x, Draw(0, 0, range(4)), 4))


@pytest.mark.parametrize("phase", ["F", "B"])
def test_an_error_names_stage_action_and_micro_batch(phase):
    with pytest.raises(ZeroDivisionError, match="by the layer") as caught:
        minipar.run(fail, 2, args=(phase,))
    said = f"in stage 1 of 2, action {phase}2: micro-batch 2 of 4"
    assert said in getattr(caught.value, "__notes__", [str(caught.value)])


@pytest.mark.slow
def test_the_name_travels_from_a_process():
    with pytest.raises(ZeroDivisionError) as caught:
        minipar.run(fail, 2, args=("B",), backend="process")
    assert "action B2" in str(caught.value.__cause__)


def test_spans_tell_when_each_action_was_carried_out():
    def work(group):
        live_run = Pipeline(
            Sequential(*(Linear(Init() / n, 4, 4) for n in range(2))), group, mse, "1f1b"
        )
        x = np.ones((3, 4), np.float32)
        live_run.train(micro_batches(Tensor(x), x, Draw(0, 0, range(3)), 3))
        return live_run.last.spans

    for stage, spans in enumerate(minipar.run(work, 2)):
        assert [span.action for span in spans] == one_f_one_b(2, 3)[stage]
        assert all(span.begin + span.waited <= span.end for span in spans)
        assert all(a.end <= b.begin for a, b in itertools.pairwise(spans))
