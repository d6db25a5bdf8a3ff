# %% [markdown]
# # How a network knows which way to change every weight
#
# A network has a million weights and makes one number: the loss, which says how wrong it is. We
# want the loss to shrink. So for each weight we must know: if this weight grows a little, does the
# loss rise or fall, and how fast?
#
# One could try it out: change one weight, run the network, look at the loss, and so on. That takes
# a million runs for one step of learning. The method of this tutorial answers the question for all
# weights at once, for the price of about two more runs. It is called **backpropagation**.
#
# You will compute it by hand, see it done by `minipar`, teach `minipar` an operation that it does
# not know, and train a small network. You need Python, NumPy, and an idea of what a slope is.

# %%
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from minipar import Group, Init, Tensor, no_grad, record
from minipar.array import Array
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, tanh
from minipar.optim import AdamW
from minipar.random import normal
from minipar.spans import at_step, know
from minipar.testing.gradcheck import GradientMismatch, gradcheck
from minipar.trace.backward_figure import backward_steps, draw_backward
from minipar.trace.graph_figure import draw_graph
from minipar.trace.layer_figure import draw_layers
from minipar.trace.memory_figure import draw_memory, held_between
from minipar.trace.show import show
from minipar.trace.totals import window_of
from minipar.trace.traced import traced

# %% [markdown]
# ## A network of two weights
#
# It takes a number `x`, multiplies it by a weight `w`, bends the result with `tanh`, and multiplies
# by a second weight `v`. (A function that bends, such as `tanh`, is called a **non-linearity** or
# an **activation**.) The target is `t`, and the loss is the squared distance to it:
#
#     x ──(· w)── a ──(tanh)── h ──(· v)── y ──(y - t)²── loss
#
# Forward, from left to right:

# %%
x, t = 1.5, 1.0
w, v = 0.4, 0.5

a = x * w
h = math.tanh(a)
y = v * h
loss = (y - t) ** 2
print(f"a = {a:.4f}   h = {h:.4f}   y = {y:.4f}   loss = {loss:.4f}")

# %% [markdown]
# ## Backward, by hand
#
# Start at the end, where it is easy. If `y` grows by a tiny bit, the loss grows by `2 (y - t)`
# times that bit. This factor is the slope of the loss with respect to `y`; we write it `dy`.
#
# Now one step to the left. `y = v · h`, so a bit more `h` is `v` times as much more `y`, and that
# is `v · dy` times as much more loss. **Slopes of a chain multiply.** That is the chain rule, and
# it is all we need:

# %%
dy = 2 * (y - t)  #       loss = (y - t)²
dv = dy * h  #            y = v · h
dh = dy * v
da = dh * (1 - h * h)  #  h = tanh(a), whose slope is 1 - tanh²
dw = da * x  #            a = x · w
print(f"dy = {dy:.4f}   dh = {dh:.4f}   da = {da:.4f}")
print(f"and for the weights  dw = {dw:.4f}   dv = {dv:.4f}")

# %% [markdown]
# Look at what each line needed: the slope that comes from the right, and one or two numbers of the
# forward pass (`h`, `v`, `x`). No line looked at the whole network. That is why it scales.
#
# Do we believe it? Move `w` by a tiny bit both ways, and see how the loss changes:


# %%
def loss_at(w: float, v: float) -> float:
    return (v * math.tanh(x * w) - t) ** 2


tiny = 1e-6
dw_tried = (loss_at(w + tiny, v) - loss_at(w - tiny, v)) / (2 * tiny)
dv_tried = (loss_at(w, v + tiny) - loss_at(w, v - tiny)) / (2 * tiny)
print(f"tried out: dw = {dw_tried:.4f}, dv = {dv_tried:.4f}")
assert abs(dw - dw_tried) < 1e-8 and abs(dv - dv_tried) < 1e-8

# %% [markdown]
# The slope has a picture: it is the straight line that touches the curve of the loss at our weight.
# The line falls to the right, so `w` should grow.

# %%
figure = Figure(figsize=(6.4, 3.6), dpi=130, layout="constrained")
axes = figure.subplots()
ws = np.linspace(-0.6, 1.6, 200)
axes.plot(ws, [loss_at(at, v) for at in ws], color="#0072B2", linewidth=2, label="loss")
near = np.array([w - 0.55, w + 0.55])
axes.plot(near, loss + dw * (near - w), "--", color="#D55E00", linewidth=2, label=f"slope {dw:.2f}")
axes.plot([w], [loss], "o", color="#D55E00", markersize=8)
axes.annotate("we are here", (w, loss), xytext=(10, 8), textcoords="offset points")
axes.set(
    xlabel="weight w", ylabel="loss", title="A gradient is the slope of the loss at our weight"
)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
show(figure, "slope")

# %% [markdown]
# ## The same with minipar
#
# A `Tensor` is an array that remembers how it was made. We compute forward as before, then call
# `backward()` at the end. It goes through the same chain from right to left and leaves the slopes
# in `.grad`, which is called the **gradient**.
#
# Only the weights get `requires_grad=True`: nobody wants to change the data. So `x` and `t` are not
# in the picture of the graph: no gradient goes to data.

# %%
W = Tensor(np.float64(w), requires_grad=True)
V = Tensor(np.float64(v), requires_grad=True)
L = (V * tanh(W * x) - t) ** 2

show(draw_graph(L, w=W, v=V), "graph")  # before backward, which frees the graph

# %% [markdown]
# `backward()` walks this graph from right to left, one box at a time. It may take a box only when
# **everything that uses it** has been taken; then all that will ever arrive there has arrived, and
# the sum is complete. It asks the box: this much is your slope, how much is that for each of those
# that you were computed from? It adds the answers up where they belong, and goes on. Each row of
# the next picture is one such step. The number in a box is its slope, complete: compare them with
# `dy`, `dv`, `dh`, `da` and `dw` above.

# %%
show(draw_backward(L, w=W, v=V), "backward")

steps = [float(step.gradient) for step in backward_steps(L)]
print("slopes in the order in which backward finds them:", np.round(steps, 4))
assert np.allclose(sorted(steps), sorted([1.0, dy, dy, dv, dh, da, dw]))

# %% [markdown]
# `dy` stands there twice: taking `t` away does not change a slope. Now for real. `backward()` does
# just these steps. It leaves the slopes of the leaves in `.grad`, and frees each box behind it, so
# that the memory of a large network shrinks while backward runs.

# %%
L.backward()
print(f"minipar: dw = {W.grad:.4f}, dv = {V.grad:.4f}")
assert math.isclose(W.grad, dw) and math.isclose(V.grad, dv)

# %% [markdown]
# What if a weight is used twice? Then there are two paths from it to the loss, and **slopes of
# several paths add up**. With `s = w · w` each of the two `w` has the slope `w`, together `2w`:

# %%
W = Tensor(np.float64(3.0), requires_grad=True)
(W * W).backward()
print(f"the slope of w·w at 3 is {W.grad:.0f}")
assert W.grad == 6.0

# %% [markdown]
# That is the whole algorithm: multiply along a path, add over paths. For arrays nothing changes
# but the shapes: the gradient with respect to an array has the shape of this array, one slope for
# each element.
#
# ## Teach it a new operation
#
# `minipar` does not know the length of an arrow, `z = √(x² + y²)`. Let us add it. An op does three
# things: it computes its value, it names its **parents** (what it was computed from), and it says
# how a gradient goes back. The last is a function `vjp(dz, wanted)`:
#
# - `dz` is the gradient of the loss with respect to `z`, with the shape of `z`. It comes from the
#   right.
# - It returns one gradient for each parent, in the parent's shape. Here `dz · x/z` and `dz · y/z`.
# - `wanted` has one bool for each parent. What nobody wants is `None`, and we save the work. In a
#   first layer the input is data, and half of that layer's work in `backward` would be for nothing.
#
# The name comes from "vector-Jacobian product", but you need not know that to write one.


# %%
def length(x: Tensor, y: Tensor) -> Tensor:
    """z = √(x² + y²), element by element."""
    z = np.hypot(x.data, y.data)

    def vjp(dz: Array, wanted: tuple[bool, ...]) -> Sequence[Array | None]:
        return (
            dz * x.data / z if wanted[0] else None,
            dz * y.data / z if wanted[1] else None,
        )

    return record(z, (x, y), vjp)


X = Tensor([3.0, 5.0], requires_grad=True)
Y = Tensor([4.0, 12.0])  # data: no gradient wanted
length(X, Y).sum().backward()
print("dx =", X.grad, "  dy =", Y.grad)
assert np.allclose(X.grad, [3 / 5, 5 / 13]) and Y.grad is None

# %% [markdown]
# ## Never trust a gradient that was not checked
#
# A wrong vjp does not crash. The network just learns badly, and one looks for the fault for days.
# So we try the slope out, as we did with `w` above. `gradcheck` does it for arrays: it moves the
# whole input along a random direction, both ways, and compares. It is silent if all is well:

# %%
here = (
    normal(0, "x", (4, 3)),
    normal(0, "y", (4, 3)),
)  # seed, name, shape: the same on every machine
gradcheck(length, *here)

# %% [markdown]
# Now a mistake on purpose: we forget to divide by `z`.


# %%
def wrong_length(x: Tensor, y: Tensor) -> Tensor:
    z = np.hypot(x.data, y.data)
    return record(z, (x, y), lambda dz, wanted: (dz * x.data, dz * y.data))


try:
    gradcheck(wrong_length, *here)
except GradientMismatch as mismatch:
    message = str(mismatch)
    print(message)
assert "input 0" in message

# %% [markdown]
# `wanted` lists the inputs that need a gradient. `gradcheck` tries every choice of them, since a
# vjp may be right for one and wrong for another. Here it began with input 0 alone, `(0,)`, and had
# seen enough.

# %% [markdown]
# ## A network that learns
#
# Two spirals wind around each other, and a point belongs to one or the other. No straight line
# parts them, so the network has to bend the plane. It has two hidden layers of 32. Each step of
# the training is: forward, backward, and every weight moves a little against its gradient. How far
# is up to the optimizer (here AdamW); `zero_grad` forgets the old gradients, since `backward` adds
# to what is there.

# %%
turn = np.linspace(0.3, 3.0, 150) * np.pi
arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / 9
points = np.concatenate([arm, -arm]) + 0.02 * normal(0, "noise", (300, 2))
points = points.astype(np.float32)
spiral = np.repeat([0, 1], 150)


class Net(Module):
    """points [n, 2] -> how much speaks for each of the two spirals, [n, 2]."""

    def __init__(self, init: Init) -> None:
        self.first = Linear(init / "first", 2, 32, std=2.0)
        self.second = Linear(init / "second", 32, 32, std=0.25)
        self.last = Linear(init / "last", 32, 2, std=0.1)

    def __call__(self, x: Tensor) -> Tensor:
        return self.last(tanh(self.second(tanh(self.first(x)))))


net = Net(Init(seed=0))
optimizer = AdamW(net.named_parameters(), lr=0.01)
losses = []
for _ in range(400):
    loss = cross_entropy(net(Tensor(points)), spiral)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

with no_grad():  # nothing is remembered inside: we only look
    right = (net(Tensor(points)).data.argmax(axis=1) == spiral).mean()
print(f"loss {losses[0]:.3f} -> {losses[-1]:.4f},   {right:.1%} of the points are right")

# %%
side = np.linspace(-1.2, 1.2, 150, dtype=np.float32)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
with no_grad():
    score = net(Tensor(plane)).data
figure = Figure(figsize=(8.6, 3.9), dpi=130, layout="constrained")
curve, map_ = figure.subplots(1, 2)
curve.semilogy(losses, color="#0072B2", linewidth=2)
curve.set(xlabel="step", ylabel="loss", title="It learns")
curve.spines[["top", "right"]].set_visible(False)
map_.contourf(
    side,
    side,
    (score[:, 1] > score[:, 0]).reshape(150, 150),
    levels=1,
    colors=["#CFE5F3", "#FBE3C8"],
)
for which, colour in enumerate(["#0072B2", "#D55E00"]):
    map_.scatter(*points[spiral == which].T, s=9, color=colour)
map_.set(title="What it says about every point", aspect="equal", xticks=[], yticks=[])
show(figure, "spirals")

# %% [markdown]
# What does a step look like from inside? `traced` runs a function and returns what it did when:
# on several ranks in the next tutorials, on one here.


# %%
def two_steps(group: Group) -> None:
    know(net)  # the trace calls the layers by their names in the network
    for step in range(2):  # the first one takes longer: memory is fetched, and so on
        at_step(step)
        cross_entropy(net(Tensor(points)), spiral).backward()


_, trace = traced(two_steps, ranks=1)
begin, end = window_of(trace, step=1)
show(draw_layers(trace, begin, end, "one step, layer by layer"), "stairs")

# %% [markdown]
# A row is a layer. Forward goes down the stairs, backward up again, and visits every layer in
# reverse; between the two the loss is computed. In the row of `Net` are the two `tanh`, which are
# in no layer of their own, and in the last row the gradient of the loss. How long the bars are
# depends on your machine. The order does not:

# %%
order: dict[str, list[str]] = {"forward": [], "backward": []}
for part in trace.ranks[0].spans:
    if part.step == 1 and part.name != "Net":
        order[part.kind].append(part.name or "loss")
print(order)
assert order["forward"] == ["first", "second", "last"]
assert order["backward"] == ["loss", "last", "second", "first"]

# %% [markdown]
# And this is what the memory holds meanwhile. Each op keeps the numbers that its vjp will need: the
# **activations**. They pile up on the way down the stairs, and on the way up each is freed behind
# its layer.

# %%
show(draw_memory(trace, begin, end, "the same step"), "memory")
held = held_between(trace.ranks[0], begin, end)[:, 1:].sum(axis=1)
assert held.max() > 3 * held[0] and held.argmax() not in (0, len(held) - 1)

# %% [markdown]
# ## Exercise
#
# `swish(x) = x · σ(x)` with `σ(x) = 1 / (1 + e^-x)` is a popular non-linearity. Write it as an op
# with its own vjp, check it with `gradcheck`, and put it into `Net` instead of `tanh`.
#
# Hint: the slope of σ is `σ · (1 - σ)`, and the slope of a product `f · g` is `f'g + fg'`.
#
# Fill in the blank. A solution is at the very end.


# %%
def swish(x: Tensor) -> Tensor:
    """z = x · σ(x)."""
    raise NotImplementedError("your turn")


try:
    gradcheck(swish, normal(0, "x", (4, 3)))
    print("swish is right")
except NotImplementedError:
    print("swish is still to be written")

# %% [markdown]
# ## What to keep
#
# - Backward goes through the forward pass from right to left. Along a path slopes multiply,
#   over several paths they add up.
# - Each op knows only its own slope. It keeps the numbers that it needs for it, and these are what
#   fills the memory in training.
# - A gradient is checked by trying it out.
#
# In the repository of minipar, `docs/engine.md` tells how the engine does it. To see the stairs of
# a larger model: `minipar train gpt --trace`, then `minipar timeline runs/gpt-1 --step 3 --view
# layers`. In the next tutorial four ranks each have a gradient, and all want the sum.

# %%
assert right > 0.98, right
assert losses[-1] < 0.05 * losses[0]
assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())

# %% [markdown]
# ## A solution of the exercise
#
# `swish` has one parent. When `vjp` is called at all, that parent is wanted, so there is nothing to
# ask.


# %%
def swish_solution(x: Tensor) -> Tensor:
    """z = x · σ(x).   Keeps x and σ(x) until backward."""
    s = 1 / (1 + np.exp(-x.data))
    return record(x.data * s, (x,), lambda dz, wanted: (dz * (s + x.data * s * (1 - s)),))


gradcheck(swish_solution, normal(0, "x", (4, 3)))
