# %% [markdown]
# # Two machines train one network: when do they have to talk?
#
# Two machines hold the same network. Each looks at its half of the batch and finds its own
# gradient. Before anybody changes a weight they need the **mean** gradient, or their networks would
# drift apart. [Tutorial 2](02_all_reduce.py) has built the call that does it. What is left is the
# question *when* to call it, and with how much at a time. That decides whether the second machine
# is worth its price.
#
#     rank 0:  rows 0..5    forward  backward  \                 / step
#                                                mean gradient              the same weights
#     rank 1:  rows 6..11   forward  backward  /                 \ step
#
# You will write it three times: naively, in buckets, and overlapped with backward. Each time we
# hold it against one rank with the whole batch. It must give the *same weights*.

# %%
from functools import partial

import numpy as np

import minipar
from minipar import Group, cost
from minipar.array import Array
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, relu
from minipar.optim import SGD
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.tensor import Tensor
from minipar.trace.overlap import draw_overlap, end_of, in_time, watch
from minipar.trace.show import show


class Net(Module):
    """Eight layers, in float64 so that we can compare to the last digits."""

    def __init__(self, d: int = 16) -> None:
        init = minipar.Init(0, np.float64)
        self.layers = [Linear(init / n, d, d, std=1.2 / d**0.5) for n in range(8)]

    def __call__(self, x: Array) -> Tensor:
        z = Tensor(x)
        for layer in self.layers[:-1]:
            z = relu(layer(z))
        return self.layers[-1](z)


dice = np.random.default_rng(0)
BATCHES = [(dice.normal(size=(12, 16)), dice.integers(0, 16, 12)) for _ in range(10)]

# %% [markdown]
# First the truth: one rank, ten steps, whole batches.


# %%
def one_rank() -> dict[str, Array]:
    model = Net()
    optimizer = SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    for x, y in BATCHES:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.state_dict()


truth = one_rank()


def error(weights: dict[str, Array]) -> float:
    return max(float(np.abs(weights[name] - truth[name]).max()) for name in truth)


# %% [markdown]
# ## By hand, naively
#
# After backward, one all-reduce for each gradient. That is all of data parallel.


# %%
def train(group: Group, exchange) -> float:
    """Ten steps on this rank's half; exchange(group, model) is what happens after backward."""
    model = Net()
    optimizer = SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    half = slice(6 * group.rank, 6 * group.rank + 6)
    for x, y in BATCHES:
        optimizer.zero_grad()
        cross_entropy(model(x[half]), y[half]).backward()
        exchange(group, model)
        optimizer.step()
    return error(model.state_dict())


def naive(group: Group, model: Module) -> None:
    for weight in model.parameters():
        group.all_reduce(weight.grad, op="mean", out=weight.grad)


errors = minipar.run(train, 2, args=(naive,))
print("naive:", errors)
assert max(errors) < 1e-12

# %% [markdown]
# Would we notice if it were wrong? Take the sum for the mean, or forget the biases. Without such a
# test a network still learns *something*, and nobody sees it for weeks.


# %%
def the_sum(group: Group, model: Module) -> None:
    for weight in model.parameters():
        group.all_reduce(weight.grad, op="sum", out=weight.grad)


def without_biases(group: Group, model: Module) -> None:
    for weight in model.parameters():
        if weight.ndim > 1:
            group.all_reduce(weight.grad, op="mean", out=weight.grad)


for mistake in (the_sum, without_biases):
    errors = minipar.run(train, 2, args=(mistake,))
    print(mistake.__name__, errors)
    assert max(errors) > 1e-3

# %% [markdown]
# ## By hand, in one bucket
#
# Our eight layers have 16 gradients, so 16 all-reduces. Each message costs its latency α however
# small it is. So put all gradients into one flat array, and send that.


# %%
def one_bucket(group: Group, model: Module) -> None:
    flat = np.concatenate([weight.grad.reshape(-1) for weight in model.parameters()])
    group.all_reduce(flat, op="mean", out=flat)
    start = 0
    for weight in model.parameters():
        stop = start + weight.grad.size
        weight.grad[...] = flat[start:stop].reshape(weight.shape)
        start = stop


errors = minipar.run(train, 2, args=(one_bucket,))
print("one bucket:", errors)
assert max(errors) < 1e-12

# %% [markdown]
# What is gained? With 8 ranks, 20 µs a message and 1 GB/s, for gradients of 64 KB in 16 pieces:

# %%
P, ALPHA, BETA = 8, 20e-6, 1 / 1e9
n = 64 * 1024
in_pieces = 16 * cost.ring_all_reduce(P, n / 16).seconds(ALPHA, BETA, 0)
in_one = cost.ring_all_reduce(P, n).seconds(ALPHA, BETA, 0)
print(f"16 pieces: {in_pieces * 1e3:.2f} ms, in one: {in_one * 1e3:.2f} ms")
assert in_pieces > 10 * in_one

# %% [markdown]
# Two copies could be saved: `minipar` makes each gradient a *view* into its bucket, so nothing is
# packed and unpacked.
#
# ## By hand, while backward still runs
#
# Backward goes from the last layer to the first. When it is at layer 3, the gradients of layers 7
# to 4 are final: nobody will touch them any more. Why not send them now? `when_final` tells us,
# and `async_op=True` gives the work to a second thread and returns at once.


# %%
def overlapped_by_hand(group: Group) -> float:
    model, handles = Net(), []

    def send(weight: Tensor) -> None:
        call = group.all_reduce(weight.grad, op="mean", out=weight.grad, async_op=True)
        handles.append(call)

    for weight in model.parameters():
        weight.when_final(send)
    optimizer = SGD(model.named_parameters(), lr=0.1, momentum=0.9)
    half = slice(6 * group.rank, 6 * group.rank + 6)
    for x, y in BATCHES:
        optimizer.zero_grad()
        cross_entropy(model(x[half]), y[half]).backward()  # sends, too
        for handle in handles:
            handle.wait()
        handles.clear()
        optimizer.step()
    return error(model.state_dict())


errors = minipar.run(overlapped_by_hand, 2)
print("overlapped:", errors)
assert max(errors) < 1e-12

# %% [markdown]
# It must be *final*. A weight that is used twice gets its gradient in two parts, and who sends
# after the first part loses the second. And all ranks must send in the same order, also if their
# gradients become final in another one. `minipar` queues the buckets by number.
#
# ## The same with minipar
#
# Three classes, one for each form. Whoever trains with them writes the same loop.


# %%
def with_minipar(group: Group, form) -> float:
    model = Net()
    parallel = form(model, group, lambda named: SGD(named, lr=0.1, momentum=0.9))
    half = slice(6 * group.rank, 6 * group.rank + 6)
    for x, y in BATCHES:
        parallel.zero_grad()
        cross_entropy(model(x[half]), y[half]).backward()
        parallel.sync_gradients()
        parallel.step()
    return error(model.state_dict())


KB = 1024
FORMS = {
    "naive": DataParallel,
    "in one bucket": BucketedDataParallel,
    "overlapped": partial(OverlappedDataParallel, bucket_bytes=300 * KB),
}
for name, form in FORMS.items():
    errors = minipar.run(with_minipar, 2, args=(form,))
    print(f"{name:14s} {errors}")
    assert max(errors) < 1e-12

# %% [markdown]
# ## The timeline
#
# We let each form make one backward, and write down in which order its gradients become final and
# its all-reduces begin. Then we lay that out in **virtual time**: the gradient of a weight takes
# 500 µs to compute, that of a bias 10 µs, and an all-reduce what the ring costs on 8 ranks. (On two
# cores with two ranks nobody would be free to send; a network card is.) The layers are wider here,
# 128 KB each, and so is the bucket of the overlapped form: two layers, 300 KB at most.


# %%
def wide() -> Net:
    return Net(128)


def loss(model) -> Tensor:
    return cross_entropy(model(np.ones((2, 128))), np.array([0, 1]))


def seconds_of(moment) -> float:
    return 500e-6 if moment.name.endswith("weight") else 10e-6


moments = {name: watch(form, wide, loss) for name, form in FORMS.items()}
timelines = {name: in_time(noted, seconds_of, P, ALPHA, BETA) for name, noted in moments.items()}
show(draw_overlap(timelines), "data_parallel")

# %% [markdown]
# The grey line is where the step of the optimizer can begin. The naive form pays 16 latencies. The
# bucket pays one, and yet everybody waits for it. Overlapped, there are several again, but only the
# last is waited for:

# %%
backward = 8 * (500e-6 + 10e-6)
ends = {name: end_of(spans) for name, spans in timelines.items()}
last = timelines["overlapped"][-1]
for name, end in ends.items():
    print(f"{name:14s} {(end - backward) * 1e6:6.0f} µs after backward")
assert ends["naive"] > ends["in one bucket"] > ends["overlapped"]
assert np.isclose(ends["overlapped"], backward + last.end - last.begin)

# %% [markdown]
# How large should a bucket be? Too small, and latencies add up until they do not fit under backward
# any more. Too large, and the last one, which nobody hides, gets long.

# %%
found = {}
for kb in (1, 100, 150, 300, 600, 2000):
    form = partial(OverlappedDataParallel, bucket_bytes=kb * KB)
    found[kb] = end_of(in_time(watch(form, wide, loss), seconds_of, P, ALPHA, BETA)) - backward
    print(f"buckets of {kb:4d} KB: {found[kb] * 1e6:5.0f} µs after backward")
assert min(found, key=found.get) == 150

# %% [markdown]
# ## Exercise
#
# Until now both ranks had six rows. Let rank 0 have nine and rank 1 three. Each loss is a mean over
# the rank's own rows, and the mean of two means is not the mean of all. What must each rank do with
# its gradient before the *sum* is taken? Fill in the blank. A solution is at the very end.


# %%
def weighted(group: Group, model: Module, rows: int) -> None:
    raise NotImplementedError("your turn")


def check(weighted) -> float:
    def work(group: Group) -> float:
        model, whole = Net(), Net()
        x, y = BATCHES[0]
        mine = slice(0, 9) if group.rank == 0 else slice(9, 12)
        cross_entropy(model(x[mine]), y[mine]).backward()
        weighted(group, model, len(y[mine]))
        cross_entropy(whole(x), y).backward()
        pairs = zip(model.parameters(), whole.parameters())
        return max(float(np.abs(a.grad - b.grad).max()) for a, b in pairs)

    return max(minipar.run(work, 2))


try:
    print("largest error:", check(weighted))
except NotImplementedError as blank:
    print(blank)

# %% [markdown]
# The naive mean is wrong here:

# %%
assert check(lambda group, model, rows: naive(group, model)) > 1e-3

# %% [markdown]
# ## What to keep
#
# - Data parallel is one all-reduce between backward and step. All ranks then do the same, and stay
#   the same, to the last bit.
# - Buckets save latencies. Overlap hides all of the rest but the last bucket, if somebody can send
#   while the rank computes.
# - Weight by rows, not by ranks. And compare with one rank: wrong gradients learn, too.
#
# In the repository of minipar, `docs/data_parallel.md` has the formulas, and
# `minipar/parallel/overlapped.py` is the third form, with everything that can go wrong.

# %% [markdown]
# ## A solution of the exercise


# %%
def weighted_solution(group: Group, model: Module, rows: int) -> None:
    total = group.all_reduce(np.array(float(rows)))
    for weight in model.parameters():
        weight.grad *= rows / float(total)
        group.all_reduce(weight.grad, out=weight.grad)


assert check(weighted_solution) < 1e-12
