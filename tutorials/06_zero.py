# %% [markdown]
# # A model does not fit: what do all ranks hold twice?
#
# Four ranks train a model in data parallel, and it does not fit into the memory of any of them.
# Together they have four times that memory. Why does it not help?
#
# Because each of them holds *everything*. This tutorial finds out what everything is, and who
# really needs what. The answer is called ZeRO, the zero redundancy optimizer (Rajbhandari et al.
# 2020), and PyTorch has it as FSDP.

# %%
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import minipar
from minipar import Cluster, Group, Init, Tensor, cost
from minipar.array import Array
from minipar.events import recording
from minipar.nn import Linear, Module
from minipar.ops import tanh
from minipar.optim import Adam
from minipar.parallel.data import DataParallel
from minipar.parallel.memory import Peak, held_bytes
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.spans import span
from minipar.trace.beside import draw_beside, draw_memory_beside
from minipar.trace.memory_figure import held_between
from minipar.trace.show import show
from minipar.trace.totals import shares
from minipar.trace.traced import takes, traced

P = 4  # ranks
LAYERS, D = 12, 48

# %% [markdown]
# ## What is there
#
# A model of twelve equal layers, a step of training with Adam, and a look at what is in memory
# afterwards. (Activations are not among it. They depend on the batch, and each rank has its own.)


# %%
class Stack(Module):
    """Twelve layers, and nothing else."""

    def __init__(self) -> None:
        init = Init(seed=0, dtype=np.float64)
        self.layers = [Linear(init / n, D, D, bias=False, std=0.2) for n in range(LAYERS)]

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + tanh(layer(x))
        return x


def batch(step: int) -> tuple[Array, Array]:
    dice = np.random.default_rng(step)
    x = dice.normal(size=(8, D))
    return x, np.roll(x, 1, axis=1)  # to be learnt: move all numbers on by one


def loss_of(model: Callable[[Tensor], Tensor], x: Array, y: Array) -> Tensor:
    error = model(Tensor(x)) - Tensor(y)
    return (error * error).mean()


model = Stack()
n = held_bytes(model)
optimizer = Adam(model.named_parameters(), lr=0.01)
loss_of(model, *batch(0)).backward()
optimizer.step()

gradients = held_bytes([x.grad for x in model.parameters()])
state = held_bytes(optimizer.state)
print(f"parameters {n} B, gradients {gradients} B, optimizer state {state} B")
assert (gradients, state) == (n, 2 * n)
assert held_bytes(model, optimizer) == 4 * n

# %% [markdown]
# Four times the model: the weights, their gradients, and two running means for each weight (m and
# v). On four ranks that makes sixteen models, of which twelve are copies.
#
# Which of them does a rank need, and when?
#
# - The **state** of a weight is needed by whoever updates that weight, and by nobody else. All
#   ranks make the same update. One would be enough.
# - The **gradient**, once it is the mean over all ranks, is needed by whoever makes the update.
# - The **weights** of a layer are needed by all, but only while that layer computes.
#
# So there are three stages, one for each line.
#
# ## Stage 1 by hand
#
# All weights behind one another are one long vector. Rank r updates slice r of it. An all-reduce of
# the gradients consists of two halves anyway ([tutorial 2](02_all_reduce.py)): a reduce-scatter,
# after which rank r has the sum of slice r, and an all-gather. We only make the update *between*
# the halves.


# %%
def by_hand(group: Group, steps: int) -> tuple[Array, int]:
    """Weights after some steps, and the length of this rank's optimizer state."""
    model = Stack()
    weights = model.parameters()
    flat = np.concatenate([w.data.reshape(-1) for w in weights])
    k = len(flat) // group.size  # 12 · 48 · 48 numbers can be divided by 4
    own = slice(group.rank * k, (group.rank + 1) * k)

    x = Tensor(flat[own].copy(), requires_grad=True)
    optimizer = Adam([("slice", x)], lr=0.01)  # knows nothing of the others

    rows = np.array_split(np.arange(8), group.size)[group.rank]
    for step in range(steps):
        all_x, all_y = batch(step)
        model.zero_grad()
        loss_of(model, all_x[rows], all_y[rows]).backward()
        g = np.concatenate([w.grad.reshape(-1) for w in weights])
        x.grad = group.reduce_scatter(g, op="mean")
        optimizer.step()
        flat = group.all_gather(x.data).reshape(-1)
        start = 0
        for w in weights:
            w.data = flat[start : start + w.data.size].reshape(w.shape)
            start += w.data.size
    return flat, sum(a.size for a in optimizer.state["slice"].values())


STEPS = 10
(alone, whole_state), *_ = minipar.run(partial(by_hand, steps=STEPS), ranks=1)
for weights, part in minipar.run(partial(by_hand, steps=STEPS), ranks=P):
    assert np.abs(weights - alone).max() < 1e-10
    assert part == whole_state // P
print(f"{P} ranks have the weights of one, and each holds 1/{P} of the state")

# %% [markdown]
# That is all of stage 1. Adam treats each number by itself, so it does not matter that a slice ends
# in the middle of a weight. (For what does it matter? Weight decay that spares vectors, as GPT
# wants it, must know of each number whether it is part of a matrix. And the norm of the gradient,
# by which it is clipped, is that of all slices together. That is the exercise.)
#
# ## Stages 2 and 3 through minipar
#
# **Stage 2** does not wait for the end of backward. As soon as a bucket of gradients is complete it
# is reduced onto its owners, and freed. The complete gradient is never there.
#
# **Stage 3** keeps slices of the weights, too. A layer is gathered before it computes, forward and
# backward, and freed again. So that nobody waits, the next one is already on its way.
#
# First: is it right? All of them must end where one rank ends.


# %%
def train(group: Group, make: Any, steps: int = STEPS) -> Array:
    model = Stack()
    sharing = make(model, group, partial(Adam, lr=0.01))
    rows = np.array_split(np.arange(8), group.size)[group.rank]
    for step in range(steps):
        x, y = batch(step)
        sharing.zero_grad()
        loss_of(model, x[rows], y[rows]).backward()
        sharing.sync_gradients()
        sharing.step()
    with sharing.whole():  # in stage 3 the weights are there only inside
        return np.concatenate([w.data.reshape(-1) for w in model.parameters()])


LAYER = n // LAYERS  # bytes
stages = {
    "data parallel": DataParallel,
    "ZeRO 1": Zero1,
    "ZeRO 2": partial(Zero2, bucket_bytes=LAYER),
    "ZeRO 3": Zero3,
}
for name, make in stages.items():
    found = minipar.run(partial(train, make=make), ranks=P)
    difference = max(np.abs(weights - alone).max() for weights in found)
    print(f"{name:14s} differs from one rank by at most {difference:.0e}")
    assert difference < 1e-10

# %% [markdown]
# ## Watch the layers come and go
#
# A line is a moment: a layer begins to compute, or its gradient is complete. `#` is a layer whose
# weights are there, `+` one that is on its way. Of all others this rank has a quarter.


# %%
class Watched(Linear):
    """Says when it is called."""

    look: Callable[[], None]

    def __call__(self, x: Tensor) -> Tensor:
        self.look()
        return super().__call__(x)


def watch(group: Group) -> list[str]:
    model = Stack()
    model.layers = [Watched(Init(0, np.float64) / n, D, D, bias=False) for n in range(LAYERS)]
    lines: list[str] = []

    def look(what: str) -> None:
        lines.append(f"{what:22s}" + "".join(unit.presence for unit in sharing.layers))

    for number, layer in enumerate(model.layers):
        layer.look = partial(look, f"forward, layer {number}")
        layer.weight.when_final(lambda _, number=number: look(f"backward, layer {number}"))
    sharing = Zero3(model, group, Adam)
    loss_of(model, *batch(0)).backward()
    sharing.sync_gradients()
    return lines


lines = minipar.run(watch, ranks=P)[0]
print("\n".join(lines))
assert lines[3] == f"{'forward, layer 3':22s}...#+......."
assert lines[-4] == f"{'backward, layer 3':22s}..+#........"

# %% [markdown]
# Never are more than two there. But each is gathered twice, once forward and once backward, and its
# gradient is reduced. That is three times (p-1)/p of the model, where data parallel sends two. We
# count:


# %%
def sent(group: Group, make: Any) -> int:
    """The bytes that this rank sends in a step, less the few that are needed for agreement."""
    model = Stack()
    sharing = make(model, group, Adam)
    sharing.zero_grad()
    with recording() as log:
        loss_of(model, *batch(0)).backward()
        sharing.sync_gradients()
        sharing.step()
    return sum(event.nbytes for event in log if event.nbytes > 500)


formulas = {"ZeRO 1": cost.zero1_sent, "ZeRO 2": cost.zero2_sent, "ZeRO 3": cost.zero3_sent}
for name, formula in formulas.items():
    each = minipar.run(partial(sent, make=stages[name]), ranks=P)
    print(f"{name}: each rank sends {each[0] / n:.2f} models, by the formula {formula.__doc__}")
    assert each == [formula(P, n)] * P

# %% [markdown]
# ## Who waits for it?
#
# Half as many bytes again: is the step that much longer? `traced` runs the ranks and returns what
# each of them did when. The machines are declared, so the clock is exact: a message takes 1 µs and
# 1 ns a byte, a layer 20 µs forward and twice that backward.

# %%
MACHINES = Cluster(1e-6, 1 / 1e9, 0)


def second_step(group: Group, make: Any) -> int:
    """When it began."""
    model, begin = Stack(), 0
    takes(model.layers, 20e-6, 40e-6)
    sharing = make(model, group, Adam)
    for step in range(2):
        begin = group.now_ns()
        sharing.zero_grad()
        loss_of(model, *batch(step)).backward()
        sharing.sync_gradients()
        with span("optimizer"):
            sharing.step()
    return begin


traces, begins = {}, {}
for name, make in stages.items():
    (begins[name], *_), traces[name] = traced(second_step, P, args=(make,), cluster=MACHINES)
show(draw_beside({name: traces[name] for name in formulas}, begins), "zero_time")

# %% [markdown]
# Above, what a rank computes; below, what goes over its wires. Stage 1 sends all of it after
# backward. In stage 2 each layer's gradient leaves while the layers before it are still computing;
# only the new weights come at the end. Stage 3 sends most and is done first: forward, each layer
# comes in while the one before it computes, and backward, gradients leave meanwhile, too. At the
# end nothing is left but the gradient of layer 0. Where it is pale, a rank waits: for the very
# first layer of a direction, nobody could ask ahead. All of that holds as long as a layer computes
# for longer than its weights travel. Make MACHINES ten times slower, and look again.

# %%
hidden = {}
for name, trace in traces.items():
    found = shares(trace.ranks[0], begins[name], trace.end)
    hidden[name] = found.overlapped / 1e3
    print(f"{name}: {found.length / 1e3:.0f} µs, computing for {found.computing / 1e3:.0f} µs; "
          f"{hidden[name]:.0f} µs of sending are hidden behind that")  # fmt: skip
lengths = {name: trace.end - begins[name] for name, trace in traces.items()}
assert hidden["ZeRO 1"] == 0 < hidden["ZeRO 2"] < hidden["ZeRO 3"]
assert lengths["ZeRO 3"] < lengths["ZeRO 2"] and lengths["ZeRO 3"] < lengths["ZeRO 1"]

# %% [markdown]
# ## The memory
#
# Let k·n be the bytes of optimizer state, for Adam k = 2. Between two steps a rank keeps
#
#     data parallel   (2 + k) · n                  everything
#     stage 1         2n + k/p · n                 state in slices
#     stage 2         n + (1+k)/p · n              and gradients
#     stage 3         (2+k)/p · n                  and parameters
#
# The steps that we have recorded also tell what each rank's arrays were for. Rank 0:

# %%
show(draw_memory_beside(traces, begins), "zero_held")

kept = (cost.zero0_kept, cost.zero1_kept, cost.zero2_kept, cost.zero3_kept)
for (name, trace), formula in zip(traces.items(), kept):
    held = held_between(trace.ranks[0], begins[name], trace.end)[0, 1:4]  # as the step began
    weights, gradients, state = held / n
    print(f"{name:14s} weights {weights:.2f} n, gradients {gradients:.2f} n, state {state:.2f} n")
    assert math.isclose(held.sum(), formula(P, n, 2))

# %% [markdown]
# From stage to stage one more colour has shrunk to a quarter. The blue activations are everybody's
# own, and stay. The grey buffers pass through in backward: in stage 2 a bucket, and the gradient
# that is put into it, in stage 3 also the layer that computes and the one that is coming. With more
# ranks the colours shrink on, but not what passes through. We measure the most that is there at any
# moment for several numbers of ranks (`Peak` looks whenever a gradient is complete, and leaves the
# activations out), and hold it against the formulas.


# %%
def peak(group: Group, make: Any) -> int:
    model = Stack()
    sharing = make(model, group, Adam)
    seen = Peak(model, sharing)
    for step in range(2):
        sharing.zero_grad()
        loss_of(model, *batch(step)).backward()
        sharing.sync_gradients()
        sharing.step()
    return seen.nbytes


predicted = {
    "data parallel": lambda p: cost.zero0_kept(p, n, 2),
    "ZeRO 1": lambda p: cost.zero1_kept(p, n, 2),
    "ZeRO 2": lambda p: cost.zero2_kept(p, n, 2) + cost.zero2_passing(LAYER, LAYER),
    "ZeRO 3": lambda p: cost.zero3_kept(p, n, 2) + cost.zero3_passing(LAYER, LAYER),
}
RANKS = (1, 2, 4, 8)
measured = {
    name: [max(minipar.run(partial(peak, make=make), ranks=p)) for p in RANKS]
    for name, make in stages.items()
}
for name, found in measured.items():
    print(f"{name:14s}" + "".join(f"{p:3d} ranks {b / n:5.2f} n" for p, b in zip(RANKS, found)))
    for p, nbytes in zip(RANKS, found):
        assert math.isclose(nbytes, predicted[name](p), rel_tol=0.05)

# %%
figure = Figure(figsize=(9.5, 4), dpi=130, layout="constrained")
axes = figure.subplots()
for group_number, name in enumerate(stages):
    for i, p in enumerate(RANKS):
        at = group_number * (len(RANKS) + 1) + i
        bar = axes.bar(at, measured[name][i] / n, 0.8, color="#0072B2", alpha=0.35 + 0.2 * i)
        axes.bar_label(bar, [f"p={p}"], fontsize=8, padding=2)
        axes.hlines(predicted[name](p) / n, at - 0.45, at + 0.45, color="#D55E00", linewidth=2)
axes.set_xticks([g * (len(RANKS) + 1) + 1.5 for g in range(len(stages))], list(stages))
axes.set_ylabel("models held by a rank, at the most")
axes.set_title("Bars: measured. Lines: the formula. p ranks, Adam, twelve equal layers")
axes.spines[["top", "right"]].set_visible(False)
show(figure, "zero_memory")

# %% [markdown]
# With one rank stage 3 holds *more* than data parallel: there is nothing to share, and each layer
# is copied. With many ranks what passes through is all that is left. It does not get less with p.
# Only smaller units help against it.
#
# The paper's own example, in its figure 1: 7.5 billion weights of 16 bits, so n = 15 GB. Adam keeps
# m, v and the weights in 32 bits: k = 6. On 64 ranks:

# %%
n_paper = 7.5e9 * 2
kept = (cost.zero0_kept, cost.zero1_kept, cost.zero2_kept, cost.zero3_kept)
gigabytes = [round(formula(64, n_paper, 6) / 1e9, 1) for formula in kept]
print("GB kept by each of 64 ranks, data parallel and stages 1 to 3:", gigabytes)
assert gigabytes == [120, 31.4, 16.6, 1.9]

# %% [markdown]
# ## Exercise
#
# **Clipping.** Before the step the gradient is shrunk so that its norm √(Σ g²) is at most
# `max_norm`. But no rank has the gradient: each has a slice. Write `clip(group, g, max_norm)`. It
# shrinks the slice `g` in place and returns the norm of the whole gradient, the same on all ranks.
# How many bytes have to be sent for it? A solution is at the very end.


# %%
def clip(group: Group, g: Array, max_norm: float) -> float:
    raise NotImplementedError("your turn")


def check(clip: Callable[[Group, Array, float], float]) -> None:
    def work(group: Group, max_norm: float) -> tuple[float, Array]:
        g = np.arange(8.0) + 8 * group.rank
        return clip(group, g, max_norm), g

    whole = np.arange(8.0 * P)
    norm = np.linalg.norm(whole)
    for max_norm in (norm / 10, norm * 2):
        for r, (found, g) in enumerate(minipar.run(partial(work, max_norm=max_norm), ranks=P)):
            assert math.isclose(found, norm), f"rank {r} says {found}, the norm is {norm}"
            expected = whole[8 * r : 8 * (r + 1)] * min(1, max_norm / norm)
            assert np.allclose(g, expected), f"the slice of rank {r} is not what it should be"


try:
    check(clip)
    print("clip is right")
except (AssertionError, NotImplementedError) as wrong:
    print(wrong)

# %% [markdown]
# ## What to keep
#
# - In data parallel every rank makes the same update with the same state. One rank for each weight
#   is enough: reduce-scatter, update, all-gather. It sends not a byte more.
# - Gradients can leave as soon as they are final. Weights can stay away until their layer computes,
#   for half as many bytes again.
# - What is left besides the slices is what passes through. It depends on the size of a layer and
#   not on the number of ranks.
#
# In the repository, `docs/sharded.md` has the formulas, `minipar/parallel/sharded.py` stages 1 and
# 2, and `minipar/parallel/sharded_parameters.py` stage 3. To see a run of your own: `minipar train
# gpt --dp 4 --zero 3 --trace`, then `minipar timeline runs/gpt-1 --step 3`, and the same with
# `--view memory`.

# %% [markdown]
# ## A solution of the exercise
#
# One number from each rank: the sum of the squares of its slice.


# %%
def clip_solution(group: Group, g: Array, max_norm: float) -> float:
    norm = math.sqrt(float(group.all_reduce(np.array(g @ g))))
    if norm > max_norm:
        g *= max_norm / norm
    return norm


check(clip_solution)
