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
from minipar import Cluster, Group, cost
from minipar.array import Array
from minipar.nn import Linear, Module
from minipar.ops import cross_entropy, relu
from minipar.optim import SGD
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.spans import know
from minipar.tensor import Tensor
from minipar.trace.beside import draw_beside
from minipar.trace.show import show
from minipar.trace.totals import shares
from minipar.trace.trace_file import Trace
from minipar.trace.traced import takes, traced


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
    "overlapped": partial(OverlappedDataParallel, bucket_bytes=1028 * KB),
}
for name, form in FORMS.items():
    errors = minipar.run(with_minipar, 2, args=(form,))
    print(f"{name:14s} {errors}")
    assert max(errors) < 1e-12

# %% [markdown]
# ## The timeline
#
# Now we watch the three forms at work. `traced` runs the ranks and returns what each of them wrote
# down: what it computed when, each message, each wait. The four machines are declared, not real, so
# time is **virtual**: a message takes 20 µs and 1 ns a byte, a layer 0.5 ms forward and twice that
# backward (`takes`). You see the same picture as everybody else. (On two cores with two ranks
# nobody would be free to send; a network card is.) The layers are wider here, 512 KB each, and so
# is the bucket of the overlapped form: two layers, 1028 KB.

# %%
MACHINES = Cluster(ALPHA, BETA, 0)
FORWARD, BACKWARD = 0.5e-3, 1e-3  # seconds of a layer


def second_step(group: Group, form) -> int:
    """When it began. Before the first step the ranks have more to agree on."""
    model, begin = Net(256), 0
    know(model)  # a trace calls the layers by their names
    takes(model.layers, FORWARD, BACKWARD)
    parallel = form(model, group, lambda named: SGD(named, lr=0.1))
    for _ in range(2):
        begin = group.now_ns()
        parallel.zero_grad()
        cross_entropy(model(np.ones((2, 256))), np.array([0, 1])).backward()
        parallel.sync_gradients()
        parallel.step()
    return begin


def watched(form) -> tuple[Trace, int]:
    begins, trace = traced(second_step, 4, args=(form,), cluster=MACHINES)
    return trace, begins[0]


found = {name: watched(form) for name, form in FORMS.items()}
traces = {name: trace for name, (trace, _) in found.items()}
show(draw_beside(traces, {name: begin for name, (_, begin) in found.items()}), "data_parallel")

# %% [markdown]
# Above, in blue, what a rank computes; below, what goes over its wire. The line is where the step
# is done. The naive form pays the latency of 16 all-reduces. One bucket pays it once, and yet
# everybody waits for all of it. In the last panel three of four buckets go over the wire *below*
# the blue: they cost no time. Only the last one stands alone, since backward has nothing left to do
# by then.

# %%
after = {}
for name, (trace, begin) in found.items():
    step = shares(trace.ranks[0], begin, trace.end)
    after[name] = (trace.end - begin) * 1e-9 - 8 * (FORWARD + BACKWARD)
    print(f"{name:14s} {after[name] * 1e6:6.0f} µs after backward, "
          f"{step.overlapped / 1e3:5.0f} µs hidden behind it")  # fmt: skip
    assert (step.overlapped > 0) == (name == "overlapped")
last_bucket = cost.ring_all_reduce(4, 2 * 256 * 257 * 8).seconds(ALPHA, BETA, 0)
assert after["naive"] > after["in one bucket"] > after["overlapped"]
assert np.isclose(after["overlapped"], last_bucket, rtol=0.05)

# %% [markdown]
# How large should a bucket be? Too small, and latencies add up until they do not fit under backward
# any more. Too large, and the last one, which nobody hides, gets long.

# %%
tails = {}
for kb in (1, 514, 1028, 2056, 4112):
    trace, begin = watched(partial(OverlappedDataParallel, bucket_bytes=kb * KB))
    tails[kb] = (trace.end - begin) * 1e-9 - 8 * (FORWARD + BACKWARD)
    print(f"buckets of {kb:4d} KB: {tails[kb] * 1e6:5.0f} µs after backward")
assert min(tails, key=tails.get) == 514

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
# To see a step of a training of your own: `minipar train gpt --dp 2 --trace`, then `minipar
# timeline runs/gpt-1 --step 3 --view overlap`.
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
