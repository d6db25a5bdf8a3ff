# %% [markdown]
# # Eight machines, three ways to share: who holds what?
#
# Replicas share the rows of a batch (tutorial 4). Shards share each matrix (tutorial 8). Stages
# share the layers (tutorial 9). A large model is trained by all three at once: 2 replicas of 2
# stages of 2 shards are 8 ranks. It sounds like a knot. It is not, and this tutorial is about why.
#
# We go there in small steps, each held against one rank: two ranks, three times; then eight ranks
# by hand; then the library. At the end we count what each of the three sends.

# %%
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

import minipar
from minipar import Cluster, Draw, Group, Init, Tensor, cost, record
from minipar.array import Array
from minipar.events import telling
from minipar.models import GPT
from minipar.ops import cross_entropy, gelu, linear, mse
from minipar.optim import AdamW, clip_grad_norm
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.memory import held_bytes
from minipar.parallel.mesh import Mesh
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.strategy import MakeOptimizer, Strategy
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_strategy import TensorParallel, WholeModel
from minipar.tally import Tally, axes_of
from minipar.trace.beside import draw_beside
from minipar.trace.bytes_figure import draw_bytes
from minipar.trace.mesh_figure import draw_mesh
from minipar.trace.show import show
from minipar.trace.totals import bytes_by_axis, shares
from minipar.trace.traced import takes, traced

# %% [markdown]
# ## The model, on one rank
#
# Two blocks, one after the other. Each makes x wider, lets gelu bend it, makes it narrow again, and
# adds that to x. So there are four matrices. `reference` has their gradients on one rank, for a
# batch of 8 rows: every step of ours has to give these numbers.

# %%
ROWS, D = 8, 4
dice = np.random.default_rng(0)
x, target = dice.normal(size=(2, ROWS, D))
weights = {
    f"{block}.{name}": 0.5 * dice.normal(size=shape)
    for block in (0, 1)
    for name, shape in (("up", (D, 4 * D)), ("down", (4 * D, D)))
}
Weights = Mapping[str, Tensor]


def leaves(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: Tensor(a.copy(), requires_grad=True) for name, a in arrays.items()}


def block(x: Tensor, w: Weights, n: int) -> Tensor:
    return x + linear(gelu(linear(x, w[f"{n}.up"])), w[f"{n}.down"])


def gradients(w: Weights) -> dict[str, Array]:
    return {name: y.grad for name, y in w.items() if y.grad is not None}


w = leaves(weights)
mse(block(block(Tensor(x), w, 0), w, 1), Tensor(target)).backward()
reference = gradients(w)


def same(found: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    for name, array in found.items():
        assert np.allclose(array, right[name], rtol=0, atol=1e-12), name


# %% [markdown]
# ## Two ranks, three times
#
# **Replicas.** Both ranks have all weights and half of the rows. The gradient is the mean of both.


# %%
def replicas(group: Group) -> dict[str, Array]:
    mine, w = np.split(np.arange(ROWS), group.size)[group.rank], leaves(weights)
    mse(block(block(Tensor(x[mine]), w, 0), w, 1), Tensor(target[mine])).backward()
    return {name: group.all_reduce(grad, op="mean") for name, grad in gradients(w).items()}


for found in minipar.run(replicas, ranks=2):
    same(found, reference)

# %% [markdown]
# **Shards.** Both have all rows, and half of each matrix: `up` by its columns, `down` by its rows.
# What f and g do at the ends of the pair is tutorial 8. A weight's gradient is complete where the
# slice is; the slices of the reference are what it must be.


# %%
def cut(arrays: Mapping[str, Array], r: int, p: int) -> dict[str, Array]:
    """Rank r's slices: columns of `up`, rows of `down`."""
    return {n: np.split(a, p, axis=1 if n.endswith("up") else 0)[r] for n, a in arrays.items()}


def f(x: Tensor, group: Group) -> Tensor:
    return record(x.data, (x,), lambda dz, wanted: (group.all_reduce(dz),))


def g(x: Tensor, group: Group) -> Tensor:
    return record(group.all_reduce(x.data), (x,), lambda dz, wanted: (dz,))


def shared_block(x: Tensor, w: Weights, n: int, tp: Group) -> Tensor:
    return x + g(linear(gelu(linear(f(x, tp), w[f"{n}.up"])), w[f"{n}.down"]), tp)


def shards(group: Group) -> dict[str, Array]:
    w = leaves(cut(weights, group.rank, group.size))
    z = shared_block(shared_block(Tensor(x), w, 0, group), w, 1, group)
    mse(z, Tensor(target)).backward()
    return gradients(w)


for rank, found in enumerate(minipar.run(shards, ranks=2)):
    same(found, cut(reference, rank, 2))

# %% [markdown]
# **Stages.** Rank 0 has the first block, rank 1 the second. Forward, x goes on; backward, its
# gradient comes back. (Micro-batches, with which both work at once, come with the library below.)


# %%
def own_block(arrays: Mapping[str, Array], stage: int) -> dict[str, Array]:
    return {name: a for name, a in arrays.items() if name.startswith(f"{stage}.")}


def stages(group: Group) -> dict[str, Array]:
    w = leaves(own_block(weights, group.rank))
    if group.rank == 0:
        z = block(Tensor(x), w, 0)
        group.send(z.data, 1)
        z.backward(group.recv(1))
    else:
        h = Tensor(group.recv(0), requires_grad=True)
        mse(block(h, w, 1), Tensor(target)).backward()
        assert h.grad is not None
        group.send(h.grad, 0)
    return gradients(w)


for rank, found in enumerate(minipar.run(stages, ranks=2)):
    same(found, own_block(reference, rank))
print("replicas, shards, stages: each gives the gradients of one rank")

# %% [markdown]
# ## Eight ranks: where does each of them stand?
#
# Give each rank three coordinates, like a place in a cube. A **mesh** counts through them: the last
# one, tp, changes fastest. Along each axis there is a *group*: the ranks that differ in this
# coordinate and in no other.

# %%
mesh = minipar.run(lambda group: Mesh(group, dp=2, pp=2, tp=2), ranks=8)[5]
print(mesh)
print("rank 5 shares layers with", mesh.tp.world_ranks, "is in a pipeline with",
      mesh.pp.world_ranks, "and has an equal in", mesh.dp.world_ranks)  # fmt: skip

# %% [markdown]
# In the picture a replica is the model as a rectangle: its layers from left to right, the features
# of each from top to bottom. A box is what one rank holds.

# %%
show(draw_mesh(dp=2, pp=2, tp=2), "mesh")

# %% [markdown]
# And here is why it is no knot. Nothing that we wrote knew of any other way of sharing. A shard
# does not care whether its layers are all layers, or those of a stage. A stage does not care
# whether what it sends on was computed by one rank or by two: after g, x is complete on both, and
# each of them sends it to the rank with the same place in the next stage. And the mean over
# replicas is taken of whatever a rank holds, with the rank in the other replica that holds the
# same. So we write the three behind each other, and give each **its group**.


# %%
def together(group: Group) -> dict[str, Array]:
    mesh = Mesh(group, dp=2, pp=2, tp=2)
    stage, tp, pp = mesh.pp.rank, mesh.tp, mesh.pp
    mine = np.split(np.arange(ROWS), mesh.dp.size)[mesh.dp.rank]  # rows of this replica
    w = leaves(cut(own_block(weights, stage), tp.rank, tp.size))  # a box of the picture
    if stage == 0:
        z = shared_block(Tensor(x[mine]), w, 0, tp)
        pp.send(z.data, 1)
        z.backward(pp.recv(1))
    else:
        h = Tensor(pp.recv(0), requires_grad=True)
        mse(shared_block(h, w, 1, tp), Tensor(target[mine])).backward()
        assert h.grad is not None
        pp.send(h.grad, 0)
    return {name: mesh.dp.all_reduce(grad, op="mean") for name, grad in gradients(w).items()}


for rank, found in enumerate(minipar.run(together, ranks=8)):
    place = mesh.place(rank)
    same(found, cut(own_block(reference, place["pp"]), place["tp"], 2))
    held = ", ".join(f"{name} {list(a.shape)}" for name, a in found.items())
    print(f"rank {rank}   dp {place['dp']} pp {place['pp']} tp {place['tp']}   {held}")
print("eight ranks, and every slice has the gradient of one rank")

# %% [markdown]
# ## The same through the library
#
# Here is a GPT of four layers, with dropout, AdamW, and a norm that is clipped. The parts are laid
# around each other like the skins of an onion:
#
# - the layers are those of a `TensorKit`: they have their slices, and f and g;
# - the `Pipeline` keeps the layers of its stage, and sends between stages by a schedule;
# - `PipelineParallel` trains the stage by what stands inside: `TensorParallel`, which counts each
#   number once in the norm; and inside of that, data parallel in buckets over the replicas.
#
# `minipar train --dp 2 --pp 2 --tp 2` builds just this.

# %%
VOCAB, T, BATCH, LAYERS, WIDTH, MICROS = 24, 16, 8, 4, 32, 4
STEPS = 5


def gpt(**kit: TensorKit) -> GPT:
    init = Init(0, np.float64)
    return GPT(init, VOCAB, T, LAYERS, WIDTH, heads=4, dropout=0.1, **kit)


def data(step: int) -> tuple[Array, Array]:
    ids = np.random.default_rng(step).integers(0, VOCAB, size=(BATCH, T + 1))
    return ids[:, :-1], ids[:, 1:]


def one_rank() -> tuple[dict[str, Array], list[float], int]:
    """Weights, norms, and the bytes that are held."""
    model = gpt()
    optimizer, norms = AdamW(model.named_parameters(), 0.01), []
    for step in range(STEPS):
        ids, targets = data(step)
        model.zero_grad()
        cross_entropy(model(ids, Draw(0, step, range(BATCH))), targets).backward()
        norms.append(clip_grad_norm(model.parameters(), 0.5))
        optimizer.step()
    return model.state_dict(), norms, held_bytes(model, optimizer)


def of_stage(part: GPT, dp: Group, make: MakeOptimizer, tp: Group) -> Strategy:
    return TensorParallel(part, tp, make, lambda model, make: BucketedDataParallel(model, dp, make))


class Onion:
    """All of it, on one rank."""

    def __init__(self, group: Group) -> None:
        self.mesh = mesh = Mesh(group, dp=2, pp=2, tp=2)
        self.model = gpt(kit=TensorKit(mesh.tp))
        self.pipeline = Pipeline(self.model, mesh.pp, self.model.output.loss, "1f1b")
        inner, view = partial(of_stage, tp=mesh.tp), partial(WholeModel, group=mesh.tp)
        make = partial(AdamW, lr=0.01)
        self.strategy = PipelineParallel(self.pipeline, make, mesh.dp, inner, view)

    def step(self, step: int) -> float:
        """The norm of the gradient."""
        (ids, targets), r = data(step), self.mesh.dp.rank
        mine = slice(r * BATCH // 2, (r + 1) * BATCH // 2)
        draw = Draw(0, step, range(BATCH)[mine])
        self.strategy.zero_grad()
        self.pipeline.train(micro_batches(ids[mine], targets[mine], draw, MICROS))
        self.strategy.sync_gradients()
        norm = self.strategy.clip(0.5)
        self.strategy.step()
        return norm


def eight_ranks(group: Group) -> tuple[dict[str, Array], list[float], int, dict[str, float]]:
    """The same, and the bytes sent along each axis in a step."""
    onion = Onion(group)
    with telling(tally := Tally(axes_of(onion.mesh))):
        norms = [onion.step(step) for step in range(STEPS)]
    sent = {axis: taken.nbytes / STEPS for axis, taken in tally.taken().items()}
    held = held_bytes(onion.pipeline.stage, onion.strategy.inner)
    with onion.strategy.whole() as whole:
        return whole.state_dict(), norms, held, sent


right, right_norms, on_one = one_rank()
everybody = minipar.run(eight_ranks, ranks=8)
for found, norms, _, _ in everybody:
    assert np.allclose(norms, right_norms, rtol=1e-9)
    for name, array in right.items():
        assert np.abs(found[name] - array).max() < 1e-9, name
print(f"after {STEPS} steps all {len(right)} weights are those of one rank, on all 8 ranks")

# %% [markdown]
# ## What it saves, and what it costs
#
# A rank holds weights, their gradients and the state of AdamW for its box alone. Two stages of two
# shards could make that a quarter. It is a bit more: norms and some biases are on both shards, and
# the table of tokens is on the first stage and on the last.

# %%
print(f"one rank holds {on_one / 1024:.0f} KB")
for rank, (_, _, held, sent) in enumerate(everybody):
    by_axis = "".join(f"   {axis} {sent[axis] / 1024:.1f} KB" for axis in ("dp", "pp", "tp"))
    share = held / on_one
    print(f"rank {rank} holds {held / 1024:.0f} KB ({share:.0%}), sends in a step{by_axis}")
    assert held < 0.45 * on_one

# %% [markdown]
# The bytes are those of formulas in `minipar.cost`. Along tp, x travels four times in each layer:
# forward and backward, for each of its two pairs. Along pp, x goes from one stage to the next, and
# its gradient comes back; beside it go labels, and the table that two stages share. Along dp go
# gradients.

# %%
each = 8 * BATCH // 2 * T  # bytes of one number for each position of a replica
tp = cost.tensor_gpt_sent(2, each * WIDTH, each, LAYERS) / 2  # the mean over two stages
mean = np.mean([sent["tp"] for *_, sent in everybody])
print(f"tp: {mean / 1024:.1f} KB by count, {tp / 1024:.1f} KB by the formula")
assert np.isclose(mean, tp, rtol=0.01)

# %% [markdown]
# ## Who gets the fast wires?
#
# tp sends most, and everybody waits for it, in every layer. dp sends once in a step. Now let there
# be four machines of two ranks each: within one, a message takes 5 µs and 0.1 ns a byte, between
# two of them 100 µs and 1 ns a byte. A layer computes 0.5 ms forward and twice that backward. The
# machines are declared, so the clock is exact; `traced` runs the ranks and returns what each of
# them did when.
#
# The mesh puts the two shards of a layer onto one machine: tp changes fastest. To see why, we also
# turn it round: the ranks are counted in another order, in which the two of a machine are replicas.

# %%
MACHINES = Cluster(5e-6, 1 / 10e9, 0, per_node=2, between=(100e-6, 1 / 1e9))


def second_step(world: Group, turned: bool) -> int:
    """When it began."""
    place = Mesh(world, dp=2, pp=2, tp=2).place(world.rank)
    number = place["tp"] * 4 + place["pp"] * 2 + place["dp"] if turned else world.rank
    group = world.split(0, key=number)
    assert group is not None
    onion, begin = Onion(group), 0
    takes(onion.model.blocks, 0.5e-3, 1e-3)
    for step in range(2):
        begin = world.now_ns()
        onion.step(step)
    return begin


traces, begins = {}, {}
for name, turned in (("tp within a machine", False), ("dp within a machine", True)):
    starts, traces[name] = traced(second_step, 8, args=(turned,), cluster=MACHINES)
    begins[name] = min(starts)
show(draw_beside(traces, begins), "fast_wires")

# %% [markdown]
# Above is what a rank computes, and below what goes over its wires, coloured by axis. In the upper
# panel tp is hardly to be seen, and dp comes once, at the end. In the lower one dp has nearly
# vanished, but all of the pipeline is stretched: after each half of a layer everybody waits for an
# all-reduce between machines. The bytes are the same:

# %%
name = "tp within a machine"
show(draw_bytes(traces[name], begins[name], traces[name].end, "a step"), "bytes")

# %%
lengths = {}
for name, trace in traces.items():
    sent = bytes_by_axis(trace, begins[name], trace.end)
    means = {axis: np.mean([each[axis] for each in sent]) / 1024 for axis in ("dp", "pp", "tp")}
    lengths[name] = (trace.end - begins[name]) / 1e6
    busy = shares(trace.ranks[0], begins[name], trace.end).computing / 1e6 / lengths[name]
    print(f"{name}: {lengths[name]:.1f} ms, rank 0 computes {busy:.0%} of it; "
          + ", ".join(f"{axis} {kb:.1f} KB" for axis, kb in means.items()))  # fmt: skip
    assert np.isclose(means["tp"] * 1024, tp, rtol=0.01)
inside, across = lengths.values()
assert across > 1.3 * inside

# %% [markdown]
# With larger batches tp and pp send more, and dp does not. With a wider model dp sends more by the
# square, tp and pp in proportion. `docs/together.md` has the numbers for large models.
#
# ## Exercise
#
# **One norm for all.** Clipping needs the norm of the *whole* gradient. After the mean over the
# replicas each rank has the gradients of its box: some are **slices** (names in `sliced`), the
# others both shards have **complete**, and equal. Write `norm(mesh, grads, sliced)`: the norm of
# the gradient of the whole model, the same on all ranks. Each number must count once. A solution is
# at the very end.


# %%
Norm = Callable[[Mesh, Mapping[str, Array], set[str]], float]


def norm(mesh: Mesh, grads: Mapping[str, Array], sliced: set[str]) -> float:
    raise NotImplementedError("your turn")


def check(norm: Norm) -> None:
    slices = dict(reference)
    wholes = {f"{stage}.bias": np.arange(3.0) + stage for stage in (0, 1)}

    def work(group: Group) -> float:
        mesh = Mesh(group, dp=2, pp=2, tp=2)
        mine = cut(own_block(slices, mesh.pp.rank), mesh.tp.rank, 2)
        return norm(mesh, {**mine, **own_block(wholes, mesh.pp.rank)}, set(mine))

    right = np.sqrt(sum((a**2).sum() for a in (*slices.values(), *wholes.values())))
    for rank, found in enumerate(minipar.run(work, ranks=8)):
        assert np.isclose(found, right), f"rank {rank} says {found:.3f}, the norm is {right:.3f}"


try:
    check(norm)
    print("norm is right")
except (AssertionError, NotImplementedError) as wrong:
    print(wrong)

# %% [markdown]
# ## What to keep
#
# - A mesh gives each rank a place on each axis, and each axis a group. A way of sharing gets its
#   group, and knows nothing of the others: that is all there is to putting them together.
# - A rank holds one part in pp · tp of the model, and 1/dp of the rows pass through it.
# - tp sends in every layer, pp for every micro-batch, dp once a step. So tp is innermost.
# - What counts once (a norm, a shared table) must be counted once on every axis.
#
# In the repository, `minipar/parallel/mesh.py` is the mesh, `minipar/strategies.py` builds the
# onion, and `minipar verify` holds pairs and triples of all ways against one rank. To see the axes
# in a run of your own: `minipar train gpt --dp 2 --pp 2 --tp 2 --trace`, then `minipar timeline
# runs/gpt-1 --step 3`, and the same with `--view bytes`.

# %% [markdown]
# ## A solution of the exercise
#
# The sum of squares: of slices on every shard, of what is complete on the first shard only. Then it
# is added up over the shards and over the stages, but not over the replicas, which are equal.


# %%
def norm_solution(mesh: Mesh, grads: Mapping[str, Array], sliced: set[str]) -> float:
    counted = [g for name, g in grads.items() if name in sliced or mesh.tp.rank == 0]
    square = np.array(sum((g**2).sum() for g in counted))
    return float(np.sqrt(mesh.pp.all_reduce(mesh.tp.all_reduce(square))))


check(norm_solution)
