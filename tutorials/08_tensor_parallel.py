# %% [markdown]
# # One matrix is too large: where do you cut it?
#
# A layer of a large transformer does not fit on one device, or it takes too long there. Two devices
# are to share it: not its rows of data, the *matrix itself*. Both work on the same data, each with
# a part of the weights, and together they have to compute what one would.
#
# We take one block of a transformer apart, cut every matrix in it by hand, and put it together
# again. This is the way of Megatron-LM (Shoeybi et al. 2019). The question is each time the same:
# along which axis?

# %%
from collections.abc import Callable

import numpy as np

import minipar
from minipar import Cluster, Group, Init, Tensor, cost, record
from minipar.array import Array
from minipar.events import EVERYBODY, last
from minipar.nn import Block
from minipar.ops import causal_attention, cross_entropy, gelu, linear
from minipar.parallel.mesh import Mesh
from minipar.parallel.sharding import own_state, sharding, whole_state
from minipar.parallel.tensor_layers import TensorKit
from minipar.parallel.tensor_parallel import own_positions
from minipar.spans import know
from minipar.trace.beside import draw_beside
from minipar.trace.block_figure import draw_heads, draw_pair, draw_positions
from minipar.trace.show import show
from minipar.trace.totals import bytes_by_axis, shares
from minipar.trace.traced import takes, traced

P = 2  # ranks
B, T, D, HEADS = 2, 6, 16, 4  # sequences, positions, features, heads of attention
dice = np.random.default_rng(0)
x = dice.normal(size=(B, T, D))

# %% [markdown]
# ## Two ways to cut a product
#
# Take z = x W. Cut W into a left and a right half, and each rank computes some of the **columns**
# of z. Every number of them is complete. Nothing has to be sent, but nobody has all of z.
#
# Cut W into an upper and a lower half instead. Then each rank needs only some of the columns of x,
# and gets a z of full size. But it is a **summand**: the true z is the sum of both.

# %%
w = dice.normal(size=(D, 4 * D))
left, right = np.split(w, P, axis=1)
upper, lower = np.split(w, P, axis=0)
some, others = np.split(x, P, axis=-1)

assert np.allclose(np.concatenate([x @ left, x @ right], axis=-1), x @ w)
assert np.allclose(some @ upper + others @ lower, x @ w)

# %% [markdown]
# A transformer has two products behind each other, with gelu in between. Gelu is not linear, so it
# wants complete numbers: of summands it makes nonsense.

# %%
half = gelu(Tensor(some @ upper)).data + gelu(Tensor(others @ lower)).data
error = np.abs(half - gelu(Tensor(x @ w)).data).max()
print(f"gelu of summands, added up, is wrong by {error:.1f}")
assert error > 1

# %% [markdown]
# So: the first matrix by its columns, which gives each rank complete features. And the second by
# its rows, which needs exactly those features. Between the two, nothing is sent. What is sent
# stands at the ends: f and g in the picture, of which more below it.

# %%
show(draw_pair(P), "tensor_pair")

# %% [markdown]
# ## What happens at the ends
#
# At the right end, **g**, the partial sums have to be added up: an **all-reduce**. And backward?
# All ranks go on with the same z, so each gets the same, complete gradient. Nothing is to be done.
#
# At the left end, **f**, it is the other way round. Forward, all ranks have x already. Backward,
# each rank knows how the loss depends on x *through its own columns*. The true gradient is the sum:
# here is the all-reduce.
#
# The names are those of the paper. `record` makes a node of the graph: a value, its parents, and
# how a gradient goes back (tutorial 1).


# %%
def f(x: Tensor, group: Group) -> Tensor:
    return record(x.data, (x,), lambda dz, wanted: (group.all_reduce(dz),))


def g(x: Tensor, group: Group) -> Tensor:
    return record(group.all_reduce(x.data), (x,), lambda dz, wanted: (dz,))


# %% [markdown]
# ## The block, apart
#
# This is a block of minipar's transformers on one rank: attention and a feed-forward network
# (`mlp`), each behind a norm, each added to what came in. Dropout is off. `reference` has its
# output and all of its gradients: that is what two ranks have to get.

# %%
block = Block(Init(0, np.float64), D, HEADS, dropout=0.0, out_std=0.1, causal=True)
for parameter in block.parameters():
    parameter.data += 0.1 * dice.normal(size=parameter.shape)  # no bias is zero
weights = block.state_dict()
for name, array in weights.items():
    print(f"{name:22s}{array.shape}")

source = Tensor(x, requires_grad=True)
z = block(source)
dz = dice.normal(size=z.shape)
z.backward(dz)
assert source.grad is not None
reference = {"z": z.data, "x": source.grad}
reference |= {name: y.grad for name, y in block.named_parameters()}

# %% [markdown]
# The feed-forward network is the pair from above: `up`, gelu, `down`. The bias of `up` belongs to
# the columns and is cut with them. That of `down` must be added **once**, after the sum: if each
# rank added it before, the sum would have it twice.
#
# **Attention** is a pair, too. Heads do not know of each other, so each rank takes some of them;
# the output projection (`out`) takes what the heads give, feature by feature. But look at the first
# matrix, `qkv`: its columns are all queries, then all keys, then all values. Cut in the middle,
# rank 0 would have all the queries, and rank 1 all the values.

# %%
show(draw_heads(P, HEADS), "tensor_heads")


# %%
def own(group: Group, name: str) -> Tensor:
    """This rank's part of a weight. All of it: the norms, and the biases added after a sum."""
    array, r, p = weights[name], group.rank, group.size
    if "qkv" in name:  # the last axis is q, k and v, of HEADS heads each
        of_heads = array.reshape(*array.shape[:-1], 3, p, -1)
        array = of_heads[..., r, :].reshape(*array.shape[:-1], -1)
    elif "up" in name:
        array = np.split(array, p, axis=-1)[r]
    elif name in ("attention.out.weight", "mlp.down.weight"):
        array = np.split(array, p, axis=0)[r]
    return Tensor(array.copy(), requires_grad=True)  # all of it


def block_by_hand(group: Group) -> dict[str, Array]:
    w = {name: own(group, name) for name in weights}

    def norm(x: Tensor, name: str) -> Tensor:
        return minipar.ops.layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def attention(x: Tensor) -> Tensor:
        qkv = linear(f(x, group), w["attention.qkv.weight"], w["attention.qkv.bias"])
        mixed = causal_attention(qkv.reshape(B, T, 3, HEADS // group.size, D // HEADS))
        partial = linear(mixed.reshape(B, T, D // group.size), w["attention.out.weight"])
        return g(partial, group) + w["attention.out.bias"]

    def mlp(x: Tensor) -> Tensor:
        hidden = gelu(linear(f(x, group), w["mlp.up.weight"], w["mlp.up.bias"]))
        return g(linear(hidden, w["mlp.down.weight"]), group) + w["mlp.down.bias"]

    source = Tensor(x, requires_grad=True)
    h = source + attention(norm(source, "norm1"))
    z = h + mlp(norm(h, "norm2"))
    z.backward(dz)
    return {"z": z.data, "x": source.grad, **{name: y.grad for name, y in w.items()}}


for rank, found in enumerate(minipar.run(block_by_hand, ranks=P)):
    assert np.allclose(found["z"], reference["z"], atol=1e-12)
    assert np.allclose(found["x"], reference["x"], atol=1e-12)
    half = reference["mlp.up.weight"][:, rank * 2 * D : (rank + 1) * 2 * D]
    assert np.allclose(found["mlp.up.weight"], half, atol=1e-12)
    for name in ("norm1.weight", "mlp.down.bias"):  # every rank has all of it, and all its gradient
        assert np.allclose(found[name], reference[name], atol=1e-12)
print("the block by hand gives what one rank gives")

# %% [markdown]
# Not one gradient of a weight was sent. A rank's own columns have their complete gradient there,
# because all ranks have the same x and, thanks to g, the same dz.
#
# ## The block, together again
#
# The library does the same with a *kit*. A model asks it for its layers: for one that is cut by
# columns, one that is cut by rows, a norm. How many ranks there are, it need not know. The kit of
# one rank gives plain layers. `TensorKit` gives layers that hold slices.
#
# `sharding` is the table of what a rank holds. By it, `own_state` cuts our weights, and
# `whole_state` puts the gradients of the slices together. `last()` has the records of what was
# called: we count the calls of the group. Leave `sequence` aside for the moment.


# %%
def block_of_a_kit(group: Group, sequence: bool) -> dict[str, Array]:
    kit = TensorKit(group, sequence)
    part = Block(Init(0, np.float64), D, HEADS, 0.0, 0.1, causal=True, kit=kit)
    part.load_state_dict(own_state(weights, part, group))
    source = Tensor(x, requires_grad=True)
    z = part(own_positions(source, group) if sequence else source)
    z.backward(own_positions(Tensor(dz), group) if sequence else dz)
    gradients = {name: y.grad for name, y in part.named_parameters()}
    calls = [event.op for event in last() if event.peer == EVERYBODY]
    counts = {op: np.array(calls.count(op)) for op in set(calls)}
    return {"z": z.data, **counts, **whole_state(gradients, sharding(part), group)}


for found in minipar.run(block_of_a_kit, ranks=P, args=(False,)):
    for name in ("z", *weights):
        assert np.allclose(found[name], reference[name], atol=1e-12), name
    assert found["all_reduce"] == 4
print("and so does the library, with 4 all-reduces: two pairs, forward and backward")

# %% [markdown]
# ## What is still done twice
#
# Between g and the next f both ranks compute the same: the norm, dropout, the sum of both branches.
# Both also keep what these need for backward. But there every *position* is by itself. So each rank
# could have some of the positions, and all of their features, until the next f.
#
# An all-reduce is a reduce-scatter and an all-gather (tutorial 2). Put the first half at g, and the
# second at the next f: not a byte more is sent, and of what lies between them each rank keeps one
# part in p. That is **sequence parallel** (Korthikanti et al. 2022).

# %%
show(draw_positions(P), "tensor_positions")

# %% [markdown]
# Backward goes from right to left, and each of the two becomes the other: g gathers, f
# reduce-scatters. So two pairs have four of each.

# %%
for rank, found in enumerate(minipar.run(block_of_a_kit, ranks=P, args=(True,))):
    mine = slice(rank * T // P, (rank + 1) * T // P)
    assert np.allclose(found["z"], reference["z"][:, mine], atol=1e-12)
    assert "all_reduce" not in found and found["reduce_scatter"] == found["all_gather"] == 4
print("each rank has the right numbers for its own positions")

# %% [markdown]
# One thing is new. A rank has used the weights of the norm for its own positions only, so its
# gradient of them is a summand. Once a step these gradients have to be added up.

# %%
parts = [found["norm1.weight"] for found in minipar.run(block_of_a_kit, ranks=P, args=(True,))]
assert not np.allclose(parts[0], reference["norm1.weight"])
assert np.allclose(sum(parts), reference["norm1.weight"], atol=1e-12)
print("the gradients of the norm's weights add up to the true one")

# %% [markdown]
# ## Both in time
#
# Is it really not a byte more? And what is won? `traced` runs both blocks and returns what each
# rank did when. The machines are declared, so the clock is exact: 10 µs for a message and 10 GB/s.
# So are the times of the layers (`takes`): 0.2 ms forward and 0.4 ms backward for each half of the
# block, and for a norm of all positions 0.06 ms. (Forward, a half computes before its last product
# sends; backward, before its first one does.) The block is larger here, so that a message counts:
# x has 2 sequences of 512 positions of 128 features, 0.5 MB.

# %%
MACHINES = Cluster(10e-6, 1 / 10e9, 0)
SHAPE = (2, 512, 128)


def a_block(group: Group, sequence: bool) -> int:
    """When it began."""
    tp = Mesh(group, tp=P).tp
    part = Block(Init(0), SHAPE[-1], HEADS, 0.0, 0.1, causal=True, kit=TensorKit(tp, sequence))
    know(part)  # the trace calls the layers by their names
    takes([part.attention.out, part.mlp.down], 0.2e-3, 0)
    takes([part.attention.qkv, part.mlp.up], 0, 0.4e-3)
    norm_s = 0.06e-3 / (P if sequence else 1)
    takes([part.norm1, part.norm2], norm_s, norm_s)
    source = Tensor(np.ones(SHAPE, np.float32), requires_grad=True)
    begin = group.now_ns()
    z = part(own_positions(source, tp) if sequence else source)
    z.backward(np.ones(z.shape, np.float32))
    return begin


traces, begins = {}, {}
for name, sequence in (("tensor parallel", False), ("sequence parallel", True)):
    (begins[name], *_), traces[name] = traced(a_block, P, args=(sequence,), cluster=MACHINES)
show(draw_beside(traces, begins), "tensor_time")

# %% [markdown]
# Where the blue is pale, the rank cannot compute: it waits for an all-reduce, below, and so does
# the other one. Nothing hides it, since the next layer needs the sum. In the lower panel each
# all-reduce has come apart into two halves, and between them the norm takes half as long.

# %%
n = 4 * np.prod(SHAPE)  # bytes of x
computing = {}
for name, trace in traces.items():
    sent = bytes_by_axis(trace, begins[name], trace.end)[0]
    part = shares(trace.ranks[0], begins[name], trace.end)
    computing[name] = part.computing
    print(f"{name:18s}{sent['tp'] / 2**20:4.0f} MB along tp, {part.moving / 1e3:.0f} µs on wires, "
          f"{part.computing / 1e3:.0f} µs of computing")  # fmt: skip
    assert sent["tp"] == 2 * cost.tensor_pair_sent(P, n)  # two pairs, four all-reduces
assert computing["tensor parallel"] - computing["sequence parallel"] == 4 * 0.03e6

# %% [markdown]
# ## Exercise
#
# **The loss of shards.** The last matrix of a language model is often the largest one: it has a
# column for each word. Cut by columns, each rank has the logits of *its* words. To gather them
# would be the largest message of all.
#
# The loss of a position is log Σ exp(logit) - logit of the target. Write `loss_of_shards(group,
# logits, targets)` for n positions, v words and p ranks: logits [n, v/p] are those of this rank's
# words, targets [n] are numbers from 0 to v-1. It returns the mean loss. Send only a few numbers
# for each position. Beware: exp(1000) is infinite, and the target may be another rank's word. A
# solution is at the very end.


# %%
def loss_of_shards(group: Group, logits: Array, targets: Array) -> float:
    raise NotImplementedError("your turn")


def check(loss_of_shards: Callable[[Group, Array, Array], float]) -> None:
    dice = np.random.default_rng(1)
    targets = dice.integers(0, 12, size=8)
    for scale in (1, 1000):
        logits = scale * dice.normal(size=(8, 12))

        def work(group: Group, logits: Array = logits) -> float:
            return loss_of_shards(group, np.split(logits, group.size, axis=1)[group.rank], targets)

        right = cross_entropy(Tensor(logits), targets).item()
        for rank, found in enumerate(minipar.run(work, ranks=3)):
            assert np.isclose(found, right), f"rank {rank} says {found}, the loss is {right}"


try:
    check(loss_of_shards)
    print("loss_of_shards is right")
except (AssertionError, NotImplementedError) as wrong:
    print(wrong)

# %% [markdown]
# ## What to keep
#
# - Columns, then rows: between the two products of a pair nothing is sent.
# - What f does forward, g does backward, and the other way round. A pair of matrices costs one
#   all-reduce forward and one backward, of the size of x, whatever the size of the matrices.
# - Attention is cut by heads. A bias behind the sum is added once. A weight that is used for some
#   of the positions only has a partial gradient.
# - Everybody waits for these all-reduces, in every layer. So the ranks must be near each other.
#
# In the repository, `docs/tensor_parallel.md` has the formulas,
# `minipar/parallel/tensor_parallel.py` f and g in all forms, and
# `minipar/parallel/tensor_layers.py` the layers. To see where a run of your own waits: `minipar
# train gpt --tp 2 --trace`, then `minipar timeline runs/gpt-1 --step 3`.

# %% [markdown]
# ## A solution of the exercise
#
# Three numbers for each position: the largest logit of all ranks, which is subtracted everywhere;
# the sum of the exponentials; and the logit of the target, to which one rank contributes.


# %%
def loss_of_shards_solution(group: Group, logits: Array, targets: Array) -> float:
    n, k = logits.shape
    logits = logits - group.all_reduce(logits.max(axis=1), op="max")[:, None]
    here = targets // k == group.rank
    at_target = np.where(here, logits[np.arange(n), targets % k], 0.0)
    total, at_target = group.all_reduce(np.stack([np.exp(logits).sum(axis=1), at_target]))
    return float((np.log(total) - at_target).mean())


check(loss_of_shards_solution)
