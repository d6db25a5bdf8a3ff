# %% [markdown]
# # A model is spread over three machines: who works when?
#
# Machine 0 has the first layers, machine 1 the next ones, machine 2 the last. Each part of the
# model is a **stage**. Activations go from stage to stage, gradients come back:
#
# ```text
# x ──► stage 0: layers 0, 1   ──►   stage 1: layers 2, 3   ──►   stage 2: layers 4, 5 ──► loss
#                              ◄──                          ◄──
# ```
#
# So stage 2 has nothing to do while stage 0 works, and the other way round. Three machines, and one
# of them works?
#
# That depends on a *schedule*. In this tutorial you write some as text. They are checked, timed,
# drawn and run. The papers are Huang et al. 2019 (GPipe) and Narayanan et al. 2021 (1F1B).

# %%
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minipar
from minipar import Cluster, Draw, Group, Init, Tensor
from minipar.array import Array
from minipar.errors import ScheduleError
from minipar.nn import Linear, Sequential
from minipar.ops import mse, tanh
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.schedule import Program, gpipe, interleaved, named, one_f_one_b
from minipar.parallel.schedule_check import check
from minipar.parallel.schedule_grid import parse
from minipar.parallel.schedule_time import Times, drawn, simulate
from minipar.trace.beside import draw_beside, draw_memory_beside
from minipar.trace.memory_figure import held_between
from minipar.trace.schedule_figure import draw_schedule
from minipar.trace.show import show
from minipar.trace.totals import shares
from minipar.trace.trace_file import RankTrace
from minipar.trace.traced import takes, traced

STAGES = 3

# %% [markdown]
# ## A schedule is a text
#
# A line for each stage: what it does, in order. `F0` carries batch 0 forward through the stage,
# `B0` carries its gradient back. We let a forward take 1 and a backward 2, for it has two products
# where forward has one. When does what happen? Nothing happens before what it needs has come from
# the neighbour.

# %%
NAIVE = """
stage 0   F0 B0
stage 1   F0 B0
stage 2   F0 B0
"""
timeline = simulate(parse(NAIVE), Times(forward=1, backward=2))
print(drawn(timeline))
print(f"takes {timeline.length:g}; the stages wait {timeline.bubble:.0%} of the time")
assert timeline.length == STAGES * (1 + 2) and np.isclose(timeline.bubble, 2 / 3)

# %% [markdown]
# A dot is a stage that waits. The waiting is called the **bubble**: two thirds of all machine time.
#
# Cut the batch into four **micro-batches**. Each takes a quarter of the time, so we count in
# quarters now. While stage 1 has micro-batch 0, stage 0 can begin with micro-batch 1. This is
# GPipe. (What a stage "stores", at the right of the picture, comes up below.)

# %%
GPIPE = """
stage 0   F0 F1 F2 F3 B3 B2 B1 B0
stage 1   F0 F1 F2 F3 B3 B2 B1 B0
stage 2   F0 F1 F2 F3 B3 B2 B1 B0
"""
timeline = simulate(parse(GPIPE))
print(drawn(timeline))
show(draw_schedule(timeline, title="GPipe"), "pipeline_gpipe")
assert parse(GPIPE) == gpipe(STAGES, 4)

# %% [markdown]
# It takes 18 quarters where it took 9 wholes, which are 36: half as long. Count the dots in a line:
# with s stages and m micro-batches, each stage waits for s-1 forwards and s-1 backwards, and works
# for m of each. So the bubble is (s-1)/(m+s-1), and more micro-batches make it smaller.

# %%
for m in (1, 4, 16, 64):
    bubble = simulate(gpipe(STAGES, m)).bubble
    print(f"{m:3d} micro-batches: bubble {bubble:.1%}")
    assert np.isclose(bubble, (STAGES - 1) / (m + STAGES - 1))

# %% [markdown]
# ## What cannot be
#
# Not every text is a schedule. In this one, stage 0 wants the gradient of micro-batch 0 before it
# sends micro-batch 1. Stages 1 and 2 want to see both before they begin to go back.

# %%
HALTS = """
stage 0   F0 B0 F1 B1
stage 1   F0 F1 B0 B1
stage 2   F0 F1 B0 B1
"""


def complaint(text: str) -> str:
    try:
        check(parse(text))
    except ScheduleError as error:
        return str(error)
    return "nothing is wrong"


print(complaint(HALTS))
assert "comes to a halt" in complaint(HALTS) and "[F1]" in complaint(HALTS)
print(complaint("F0 F1 B0 B1\nF0 B0 F1"))
assert complaint(GPIPE) == "nothing is wrong"

# %% [markdown]
# Brackets are around the cells at fault. The first one is a circle: each waits for the other. In
# the second, stage 1 has left out B1 (at the `?`), so it would keep for ever what F1 stores. Both
# are found without running anything.
#
# ## Run it, by hand
#
# A machine goes through its line and does what is written there. It needs to know only its own
# layers and its two neighbours. What a forward leaves for its backward, it stores. `isend` begins
# to send and does not wait. (`Draw` is where dropout gets its dice. There is no dropout here.)


# %%
class Layer(Linear):
    def __call__(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        return tanh(super().__call__(x))


def make_model() -> Sequential:
    init = Init(seed=0, dtype=np.float64)
    return Sequential(*[Layer(init / n, 8, 8) for n in range(6)])


dice = np.random.default_rng(0)
X, Y = dice.normal(size=(12, 8)), dice.normal(size=(12, 8)) / 4
alone = make_model()
loss_alone = mse(alone(Tensor(X)), Y)
loss_alone.backward()


def run_line(group: Group, text: str) -> tuple[list[Array], int]:
    """Gradients of this stage's weights, and the most that it has stored."""
    program = parse(text)[group.rank]
    micros = len({action.micro for action in program})
    xs, ys = np.split(X, micros), np.split(Y, micros)
    layers: list[Any] = make_model().pieces()[2 * group.rank : 2 * group.rank + 2]
    first, last = group.rank == 0, group.rank == group.size - 1
    stored: dict[int, tuple[Tensor, Tensor]] = {}
    sends, peak = [], 0

    for phase, m, _ in program:
        if phase == "F":
            x = Tensor(xs[m] if first else group.recv(group.rank - 1), requires_grad=True)
            y = x
            for layer in layers:
                y = layer(y)
            if last:
                y = mse(y, ys[m]) / micros  # so that the sum is the mean over the batch
            else:
                sends.append(group.isend(y.data, group.rank + 1))
            stored[m] = x, y
            peak = max(peak, len(stored))
        else:
            x, y = stored.pop(m)
            y.backward(None if last else group.recv(group.rank + 1))
            if not first:
                sends.append(group.isend(x.grad, group.rank - 1))
    for send in sends:
        send.wait()
    return [w.grad for layer in layers for w in layer.parameters()], peak


def compare(text: str) -> list[int]:
    """Run it; are the gradients those of one machine? What the stages have stored at the most."""
    found = minipar.run(run_line, STAGES, args=(text,))
    gradients = [g for stage, _ in found for g in stage]
    for g, w in zip(gradients, alone.parameters(), strict=True):
        assert np.abs(g - w.grad).max() < 1e-12
    return [peak for _, peak in found]


for name, text in (("naive", NAIVE), ("GPipe", GPIPE)):
    stored = compare(text)
    print(f"{name}: the gradients of one machine; stored at the most {stored}")
    assert stored == check(parse(text)).peaks

# %% [markdown]
# The same gradients, whatever the schedule: that is why we are free to choose one.
#
# ## The other cost
#
# GPipe stores the activations of all micro-batches, on every stage. With 64 of them that is much.
# But the last stage could go back with micro-batch 0 as soon as it has come. And then stage 1 soon
# could, too. **1F1B** lets stage i begin with as many forwards as there are stages below it; after
# that, each forward is followed by a backward.

# %%
ONE_F_ONE_B = """
stage 0   F0 F1 F2 B0 F3 B1 B2 B3
stage 1   F0 F1 B0 F2 B1 F3 B2 B3
stage 2   F0 B0 F1 B1 F2 B2 F3 B3
"""
timeline = simulate(parse(ONE_F_ONE_B))
print(drawn(timeline))
show(draw_schedule(timeline, title="1F1B"), "pipeline_1f1b")
assert parse(ONE_F_ONE_B) == one_f_one_b(STAGES, 4)
assert compare(ONE_F_ONE_B) == timeline.peaks == [3, 2, 1]
assert timeline.length == simulate(parse(GPIPE)).length

# %% [markdown]
# It takes as long as GPipe, so the bubble is the same. But stage i stores no more than s-i
# micro-batches, however many there are. So we can take many, and the bubble becomes small. On the
# left GPipe and 1F1B are one line, on the right 1F1B and zero-bubble. The last two of the legend
# are new; they come next.

# %%
figure = Figure(figsize=(8.4, 3.4), dpi=130, layout="constrained")
left, right = figure.subplots(1, 2)
micros = [3, 6, 12, 24, 48, 96]
for name, chunks, style, colour in (
    ("gpipe", 1, "o-", "#0072B2"),
    ("1f1b", 1, "s--", "#E69F00"),
    ("interleaved", 2, "^-", "#009E73"),
    ("zero-bubble", 1, "D:", "#CC79A7"),
):
    look = {"color": colour, "markersize": 5}
    timelines = [simulate(named(name, STAGES, m, chunks)) for m in micros]
    label = name if chunks == 1 else f"{name}, {chunks} pieces"
    left.loglog(micros, [t.bubble for t in timelines], style, label=label, **look)
    right.loglog(micros, [max(t.peaks) / chunks for t in timelines], style, **look)
for axes in (left, right):
    axes.set_xticks(micros, [str(m) for m in micros], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("micro-batches")
    axes.spines[["top", "right"]].set_visible(False)
left.set_yticks([0.01, 0.1, 0.5], ["1 %", "10 %", "50 %"])
left.set_title("bubble", loc="left")
right.set_yticks([3, 10, 100], ["3", "10", "100"])
right.set_title("micro-batches that stage 0 stores", loc="left")
left.legend(frameon=False)
show(figure, "pipeline_memory")

# %% [markdown]
# **Interleaved** gives each stage several smaller pieces of the model, its *chunks*: here stage 0
# has the first sixth and the fourth. A micro-batch goes through all stages twice. Its steps are
# shorter, so a stage waits for less time at the beginning and at the end.
#
# **Zero-bubble** cuts a backward in two: I is the gradient by the stage's input, for which the
# stage before waits. W is the gradient by the weights, for which nobody waits. So W can be done
# when there is nothing else to do.

# %%
two_pieces = simulate(interleaved(STAGES, 6, 2))
show(draw_schedule(two_pieces, title="interleaved"), "pipeline_interleaved")
halves = simulate(named("zero-bubble", STAGES, 6))
show(draw_schedule(halves, title="zero-bubble"), "pipeline_zero_bubble")
assert halves.bubble < two_pieces.bubble < simulate(one_f_one_b(STAGES, 6)).bubble

# %% [markdown]
# And what if one stage is slower than the others? All wait for it. That is why a model is cut by
# time, and not by the number of layers.

# %%
even = simulate(one_f_one_b(STAGES, 8))
uneven = simulate(one_f_one_b(STAGES, 8), Times(forward=[1, 2, 1], backward=[2, 4, 2]))
show(draw_schedule(uneven, title="stage 1 is slow"), "pipeline_uneven")
print(f"bubble {even.bubble:.0%}; with one slow stage {uneven.bubble:.0%}")
assert uneven.bubble > 1.8 * even.bubble

# %% [markdown]
# ## The same through minipar
#
# `Pipeline` cuts a model into stages, and runs a schedule by its name, or yours. On the command
# line it is `minipar train gpt --pp 3 --microbatches 4`.


# %%
def through_minipar(group: Group, text: str) -> tuple[float, list[Array], int]:
    def mine(stages: int, micros: int) -> list[Program]:
        return parse(text)

    pipeline = Pipeline(make_model(), group, mse, schedule=mine)
    parts = micro_batches(Tensor(X), Y, Draw(0, 0, range(len(X))), m=4)
    loss = pipeline.train(parts)
    assert pipeline.last is not None
    return loss, [w.grad for w in pipeline.stage.parameters()], pipeline.last.peak


found = minipar.run(through_minipar, STAGES, args=(ONE_F_ONE_B,))
gradients = [g for _, stage, _ in found for g in stage]
assert all(np.isclose(loss, loss_alone.item()) for loss, _, _ in found)
assert [peak for _, _, peak in found] == [3, 2, 1]
for g, w in zip(gradients, alone.parameters(), strict=True):
    assert np.abs(g - w.grad).max() < 1e-12
print("minipar's pipeline has the gradients of one machine, too")

# %% [markdown]
# ## What really happens
#
# Until now the pictures of time were calculated. Here is a recording: `traced` runs the ranks and
# returns what each of them did when. The machines are declared, so the clock is exact. A layer
# takes 0.5 ms forward and twice that backward (`takes`), a message 20 µs and 1 ns a byte, which
# nobody has told the simulation. There are 8 micro-batches here, of 60 rows.


# %%
MICROS, MANY_X, MANY_Y = 8, np.tile(X, (40, 1)), np.tile(Y, (40, 1))


def a_step(group: Group, schedule: str) -> int:
    """When it began."""
    model = make_model()
    takes(model.layers, 0.5e-3, 1e-3)
    pipeline = Pipeline(model, group, mse, schedule=schedule)
    begin = group.now_ns()
    draw = Draw(0, 0, range(len(MANY_X)))
    pipeline.train(micro_batches(Tensor(MANY_X), MANY_Y, draw, MICROS))
    return begin


MACHINES = Cluster(alpha_s=20e-6, beta_s_per_byte=1 / 1e9, gamma_s_per_byte=0)
traces, begins = {}, {}
for name in ("gpipe", "1f1b"):
    (begins[name], *_), traces[name] = traced(a_step, STAGES, args=(name,), cluster=MACHINES)
show(draw_beside(traces, begins), "pipeline_recorded")

# %% [markdown]
# Light and dark blue is work. Pale is an action that has begun and waits for a neighbour, hatched
# below. The thin marks are messages. Both take about as long, and the hatched part is about the
# bubble of the formula. What differs is what stage 0 holds meanwhile:

# %%
show(draw_memory_beside(traces, begins), "pipeline_held")

# %% [markdown]
# (Grey is mainly the batch, which is there from the beginning.) GPipe piles up the activations of
# all eight micro-batches before the first of them is used. 1F1B piles up three, and from then on
# each backward frees what the next forward needs. The same can be counted in the first picture: at
# any moment, how many F has a stage done whose B is still to come?


# %%
def alive(stage: RankTrace) -> int:
    """How many micro-batches it stored at the most."""
    actions = [s for s in stage.spans if s.name[:1] in ("F", "B") and not s.depth]
    steps = [1 if s.name[0] == "F" else -1 for s in sorted(actions, key=lambda s: s.end)]
    return int(np.cumsum(steps).max())


for name, trace in traces.items():
    parts = [shares(stage, begins[name], trace.end) for stage in trace.ranks]
    idle = 1 - np.mean([part.computing / part.length for part in parts])
    stored = [alive(stage) for stage in trace.ranks]
    print(f"{name:6s} idle {idle:.1%} of the time; stored at the most {stored}")
    assert 0 < idle - (STAGES - 1) / (MICROS + STAGES - 1) < 0.05  # the rest is what wires take
    assert stored == simulate(named(name, STAGES, MICROS)).peaks
held = {
    name: held_between(trace.ranks[0], begins[name], trace.end)[:, -1].max()  # activations
    for name, trace in traces.items()
}
assert held["gpipe"] > 2 * held["1f1b"]

# %% [markdown]
# ## Exercise
#
# Memory is short: no stage may store more than **two** micro-batches, not even stage 0. There are
# six of them. Write a schedule for three stages. GPipe with two micro-batches at a time is one, and
# takes 36. You can do it in 30. A solution is at the very end.

# %%
YOURS = """
stage 0   F0 F1 B1 B0 F2 F3 B3 B2 F4 F5 B5 B4
stage 1   F0 F1 B1 B0 F2 F3 B3 B2 F4 F5 B5 B4
stage 2   F0 F1 B1 B0 F2 F3 B3 B2 F4 F5 B5 B4
"""


def judge(text: str) -> float:
    """How long it takes. It must be right first."""
    programs = parse(text)
    timeline = simulate(programs)
    assert len(programs) == STAGES and len(programs[0]) == 12, "three stages, six micro-batches"
    assert max(timeline.peaks) <= 2, f"the stages store {timeline.peaks}"
    assert compare(text) == timeline.peaks
    return timeline.length


print(drawn(simulate(parse(YOURS))))
print(f"takes {judge(YOURS):g}")

# %% [markdown]
# ## What to keep
#
# - A schedule is the order in which each stage does its forwards and backwards. When they happen,
#   what the stages store, and whether they wait for each other for ever, all follow from it.
# - The bubble of GPipe and 1F1B is (s-1)/(m+s-1): take many micro-batches. 1F1B is what makes that
#   possible, for it stores no more than s-i of them.
# - Begin to send, and go on. With a plain send that waits until somebody takes it, 1F1B would halt:

# %%
check(gpipe(STAGES, 4), unfinished=0)  # GPipe would not
try:
    check(one_f_one_b(STAGES, 4), unfinished=0)
    raise AssertionError("it can be run")
except ScheduleError as error:
    print(error)

# %% [markdown]
# In the repository, `docs/pipeline.md` has all schedules, and a comparison with the table of the
# GPipe paper. `minipar/parallel/schedule.py` is where they are made, `minipar/parallel/pipeline.py`
# runs them. `minipar schedule --check FILE` does to your grids what we did here. To look at a run
# of your own: `minipar train gpt --pp 3 --microbatches 4 --trace`, and then `minipar timeline
# runs/gpt-1 --step 3 --view pipeline`; with `--out replay.html` you can play it.

# %% [markdown]
# ## A solution of the exercise
#
# The last stage goes back at once. Stage 1 takes two and gives two back. Stage 0 sends a new one
# whenever one has come back. A micro-batch needs 9 to go down and up again, and two can be on their
# way at a time: so it takes three rounds of 9, and 3 more for the second one of the last round.

# %%
SOLUTION = """
stage 0   F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5
stage 1   F0 F1 B0 B1 F2 F3 B2 B3 F4 F5 B4 B5
stage 2   F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5
"""
print(drawn(simulate(parse(SOLUTION))))
assert judge(YOURS) <= 36
assert judge(SOLUTION) == 30
