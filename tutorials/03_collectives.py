# %% [markdown]
# # p machines each hold a vector: the fastest way to the sum
#
# p machines each hold a vector. How does everybody get the sum, and what is the fastest way?
#
# [Tutorial 2](02_all_reduce.py) has found one way, the ring, and it was the best for large arrays.
# For small ones it was slow. Here you will *see* four ways move their chunks, write one of your
# own, count what each sends, and find out which one wins where.
#
# The pictures are recordings. `chunk_snapshots` runs the real code on ranks that are threads. Rank
# r contributes the number 2^r, so the bits of a sum say whose parts are in it.

# %%
import math
from collections import Counter

import numpy as np
from matplotlib.figure import Figure

import minipar
from minipar import Cluster, Group, cost
from minipar.array import Array
from minipar.events import recording
from minipar.testing import WrongCollective, check_collective, measured_cost
from minipar.trace.beside import draw_beside
from minipar.trace.chunk_figure import draw_chunks
from minipar.trace.chunks import chunk_snapshots
from minipar.trace.show import show
from minipar.trace.totals import shares
from minipar.trace.traced import traced

P = 4
WAYS = ("naive", "tree", "ring", "halving_doubling")
recorded = {way: chunk_snapshots("all_reduce", way, ranks=P) for way in WAYS}

# %% [markdown]
# ## Way 1: everything through rank 0
#
# A row is a rank, a column is a chunk of its vector. A cell has a field for each rank; it is filled
# if that rank's part is in. An arrow is a chunk that came in this step. In one step a rank sends at
# most one message, and receives at most one.

# %%
show(draw_chunks(recorded["naive"], title="all through rank 0"), "naive")

# %% [markdown]
# The four arrows of a step are one message, from one rank to one other. Rank 0 takes one vector
# after the other, and then hands out one after the other. In every step all but two ranks stand by.
#
# ## Way 2: a tree
#
# Why should ranks 2 and 3 wait while 0 and 1 are busy? In step 1 all pairs add up at once, then the
# pairs of pairs. Back down it goes in the same way.

# %%
show(draw_chunks(recorded["tree"], title="a tree"), "tree")

# %% [markdown]
# Four steps instead of six. With 1024 ranks it is 20 instead of 2046: each step up halves the
# number of ranks that still have something to hand in. But look at step 2. Whole vectors still
# travel, and half of the ranks have nothing to do.
#
# ## Way 3: the ring
#
# All ranks send in every step, each another quarter.

# %%
show(draw_chunks(recorded["ring"], title="the ring"), "ring")

# %% [markdown]
# The four arrows of a step are four messages now, of four ranks at once. Each is a quarter of a
# vector, and so takes a quarter of the time. Six steps again, but short ones.
#
# ## Way 4: halving and doubling
#
# Can we have both, few steps and small messages? Step 1: swap *half* of the vector with the rank
# that is two away: you take care of the upper half, I of the lower. Step 2: with the rank next to
# you, half of that half. Now everybody has a complete quarter, after two steps. Then all the way
# back.

# %%
show(draw_chunks(recorded["halving_doubling"], title="halving and doubling"), "halving_doubling")

# %% [markdown]
# What a picture shows can be counted. In every way each chunk must come from three ranks to be
# summed, and go to three ranks in the end: 4 chunks · (3 + 3) = 24 arrows. They are only spread
# differently. A step takes as long as its longest message, which is the most arrows between the
# same two ranks:

# %%
longest = {}
for way, snapshots in recorded.items():
    messages = [Counter((move.src, move.dst) for move in s.moves) for s in snapshots[1:]]
    longest[way] = [max(step.values()) for step in messages]
    print(f"{way:18s} arrows in the longest message of each step: {longest[way]}")
    assert sum(step.total() for step in messages) == 24
    assert snapshots[-1].complete.all()

# %% [markdown]
# Few steps *and* short messages: that is halving and doubling. Add up a line, divide by four, and
# you know how many vectors pass one after the other. We come back to that.

# %% [markdown]
# ## One by hand
#
# Let us write a broadcast: rank 0 has a vector, all want it. An algorithm in `minipar` is a
# function of a `link`, with `send`, `recv`, `sendrecv` and `add`, and of a flat array `buf` which
# it changes in place. First a **chain**: everybody passes it on.


# %%
def chain(link, buf: Array) -> None:
    if link.rank > 0:
        buf[...] = link.recv(link.rank - 1)
    if link.rank < link.size - 1:
        link.send(buf, link.rank + 1)


check_collective(chain, "broadcast")
show(draw_chunks(chunk_snapshots("broadcast", chain, P), title="a chain"), "chain")

# %% [markdown]
# `check_collective` has tried it on 1 to 9 ranks with many sizes, and found nothing wrong. It takes
# p-1 steps, and in each of them one rank sends and one receives. All others wait for the whole
# vector. So cut it into chunks, and pass each of them on as soon as it is there. This is a
# **pipeline**:


# %%
def pipelined_chain(link, buf: Array) -> None:
    p, r = link.size, link.rank
    for chunk in np.array_split(buf, p):  # views: writing to a chunk writes to buf
        if r > 0:
            chunk[...] = link.recv(r - 1)
        if r < p - 1:
            link.send(chunk, r + 1)


check_collective(pipelined_chain, "broadcast")
pipelined = chunk_snapshots("broadcast", pipelined_chain, P)
show(draw_chunks(pipelined, title="a pipelined chain"), "pipelined_chain")

# %% [markdown]
# More steps, but each is a quarter as long, and the chunks follow each other like the wagons of a
# train. Steps do not show how long they are, so let us see it in time. `traced` runs the real code
# on links that are declared, not real: 5 µs for a message and 10 GB/s. So the clock is exact, and
# the same on every machine.

# %%
LINKS = Cluster(alpha_s=5e-6, beta_s_per_byte=1 / 10e9, gamma_s_per_byte=0)
vector = np.zeros(2**19)  # 4 MB


def broadcast(group: Group, algorithm) -> None:
    group.broadcast(vector, algorithm=algorithm)


chains = {
    f.__name__: traced(broadcast, P, args=(f,), cluster=LINKS)[1] for f in (chain, pipelined_chain)
}
show(draw_beside(chains), "chains_in_time")

# %% [markdown]
# Dark is a message on the rank's wire, hatched is a rank that waits. Rank 3 waits for two vectors
# in the first picture, and for two quarters in the second.
#
# How long is that in general? `measured_cost` counts how many messages, and how many bytes, are on
# the longest chain of things that wait for each other. The last of p chunks is on rank 1 after p
# steps, and has p-2 ranks still to go. That makes 2(p-1) steps of n/p bytes.

# %%
n = 8 * 2520  # bytes
for p in (2, 4, 8):
    slow = measured_cost(chain, "broadcast", p, 2520)
    fast = measured_cost(pipelined_chain, "broadcast", p, 2520)
    print(f"{p} ranks: chain {slow.sent / n:.2f} n, pipelined {fast.sent / n:.2f} n")
    assert slow == (p - 1, (p - 1) * n, 0)
    assert fast == (2 * (p - 1), 2 * (p - 1) / p * n, 0)
for name, steps, part in (("chain", P - 1, 1), ("pipelined_chain", 2 * (P - 1), 1 / P)):
    took = steps * (5e-6 + part * vector.nbytes / 10e9)
    assert math.isclose(chains[name].end * 1e-9, took, rel_tol=1e-4)

# %% [markdown]
# A function of your own is an `algorithm=` like those of `minipar`, and its name is in the record
# of every message:


# %%
def use_it(group: Group) -> tuple[float, set[str]]:
    x = np.full(8, 3.0 if group.rank == 0 else 0.0)
    with recording() as log:
        x = group.broadcast(x, algorithm=pipelined_chain)
    return float(x.sum()), {event.algorithm for event in log}


used = minipar.run(use_it, ranks=P)
print(used)
assert [total for total, _ in used] == [24.0] * P

# %% [markdown]
# ## What each way costs
#
# A message of n bytes takes α + n·β seconds: α however small it is, β for each byte. `minipar.cost`
# has a formula for each way, and we hold it against what is really sent. For p = 4:

# %%
print(f"{'all_reduce by':18s} messages   vectors sent   vectors added")
for way in WAYS:
    formula = cost.of("all_reduce", way, P, n)
    print(f"{way:18s} {formula.messages:8d} {formula.sent / n:14.2f} {formula.added / n:15.2f}")
    assert formula.messages == len(longest[way])  # the steps of the picture
    assert formula.sent / n == sum(longest[way]) / 4  # and how long they were

    def busiest(group: Group, way: str = way) -> int:
        with recording() as log:
            group.all_reduce(np.zeros(2520), algorithm=way)
        return sum(event.nbytes for event in log)

    assert max(minipar.run(busiest, ranks=P)) <= formula.sent

# %% [markdown]
# On the longest chain are: for the tree 2·log2(p) messages of n bytes, for the ring 2(p-1) messages
# of n/p bytes. So the tree pays fewer α and the ring fewer β. They are equal where
#
#     2·log2(p)·(α + n·β)  =  2(p-1)·(α + n/p·β)
#
# With p = 64 solve it for n before you read on. (Adding up is left out; it would be one more
# letter.) Halve both sides. The ring loses 63 - 6 messages, and saves 6 - 63/64 vectors:
#
#     n  =  α/β · (63 - 6) / (6 - 63/64)

# %%
alpha, beta = 5e-6, 1 / 10e9  # 5 µs for a message, 10 GB/s
p = 64
crossing = alpha / beta * (p - 1 - math.log2(p)) / (math.log2(p) - (p - 1) / p)
print(f"{p} ranks: from {crossing / 1024:.0f} KB on the ring is faster than the tree")


def seconds(way: str, p: int, nbytes: float) -> float:
    return cost.of("all_reduce", way, p, nbytes).seconds(alpha, beta, gamma=0)


assert math.isclose(seconds("tree", p, crossing), seconds("ring", p, crossing))

# %%
sizes = np.logspace(2, 9, 200)
styles = {"naive": ("#777777", ":"), "tree": ("#D55E00", "--"), "ring": ("#0072B2", "-"),
          "halving_doubling": ("#009E73", "-.")}  # fmt: skip
figure = Figure(figsize=(9.5, 4.2), dpi=130, layout="constrained")
for axes, p in zip(figure.subplots(1, 2, sharey=True), (64, 63)):
    for way, (colour, style) in styles.items():
        times = [seconds(way, p, nbytes) for nbytes in sizes]
        axes.loglog(sizes, times, style, color=colour, linewidth=2, label=way)
    axes.set(title=f"{p} ranks", xlabel="bytes of the vector")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
figure.axes[0].set_ylabel("predicted seconds of an all-reduce")
figure.axes[0].legend(frameon=False)
show(figure, "which_wins")

# %% [markdown]
# With 64 ranks halving and doubling is as good as the better of the two everywhere, and wins in the
# middle. Why have the others at all? Look at 63 ranks, one less. Halving needs a power of two, so
# 31 ranks hand in their vectors first and then stand by. That costs two more vectors, and for large
# arrays the ring wins.
#
# %%
winners = {
    (p, nbytes): min(WAYS, key=lambda way: seconds(way, p, nbytes))
    for p in (63, 64)
    for nbytes in (100, 10**9)
}
print(winners)
assert winners[63, 100] == "tree"
assert winners[63, 10**9] == "ring"

# %% [markdown]
# ## When links are not alike
#
# The formulas know one kind of link. Now let 8 ranks stand on two machines, 0 to 3 on the first and
# 4 to 7 on the second. Within a machine it is as before; between the two a message takes 20 µs, and
# 1 GB/s is all there is. By the formulas, the ring and halving and doubling are equally fast here.
# Which one would you take?

# %%
MACHINES = Cluster(5e-6, 1 / 10e9, 0, per_node=4, between=(20e-6, 1 / 1e9))


def all_reduce(group: Group, way: str) -> None:
    group.all_reduce(vector, algorithm=way)


two = {
    way: traced(all_reduce, 8, args=(way,), cluster=MACHINES)[1]
    for way in ("ring", "halving_doubling")
}
show(draw_beside(two), "two_machines")

# %% [markdown]
# Each step of the ring is as slow as its slowest link. Ranks 3 and 7 send to the other machine all
# the time, and 1, 2, 5 and 6 wait for them, hatched. Halving and doubling goes to the other machine
# in its first and in its last step only, but then all 8 ranks go. So more of the slow links are
# used at the same time. (If the two machines had one wire between them, and not one for each rank,
# this would be no good. A model is a model. So measure, too.)

# %%
for way, trace in two.items():
    waits = [shares(rank, 0, trace.end).waiting / trace.end for rank in trace.ranks]
    print(f"{way:18s}{trace.end / 1e6:5.1f} ms; the ranks wait {np.mean(waits):.0%} of the time")
equal = [seconds(way, 8, vector.nbytes) for way in two]
assert math.isclose(*equal, rel_tol=0.1)
assert two["ring"].end > 1.5 * two["halving_doubling"].end

# %% [markdown]
# If you name no algorithm, `minipar` chooses by size: a few rounds for small arrays, few bytes for
# large ones (`minipar/comm/choose.py`).
#
# ## Exercise
#
# **Recursive doubling**: an all-reduce for small vectors. In each step swap the *whole* vector with
# the rank that is 1, 2, 4, ... away (`link.rank ^ reach`), and add. Write it for a number of ranks
# that is a power of two. How many steps does it take, compared with the tree? When does it lose?
#
# Use `link.add(into, array)` and not `+=`, so that it can do max, too. Fill in the blank. A
# solution is at the very end.


# %%
def recursive_doubling(link, buf: Array) -> None:
    raise NotImplementedError("your turn")


def formula(p: int, n: float) -> cost.Cost:
    steps = p.bit_length() - 1
    return cost.Cost(steps, steps * n, steps * n)


def check(all_reduce) -> None:
    check_collective(all_reduce, "all_reduce", ranks=(1, 2, 4, 8), formula=formula)


try:
    check(recursive_doubling)
    print("recursive doubling is right")
except WrongCollective as wrong:
    print(wrong)  # says where; for the blank: that it is your turn

# %% [markdown]
# When it is right, draw it: `draw_chunks(chunk_snapshots("all_reduce", recursive_doubling, 8))`.
# And try it with 3 ranks.
#
# ## What to keep
#
# - A collective is a pattern of messages. What it costs is the longest chain of messages that wait
#   for each other.
# - Few rounds (tree) for small vectors, few bytes (ring) for large ones. Halving and doubling has
#   both, if the number of ranks is a power of two.
# - Sending in chunks lets the next rank begin before the last byte has come.
#
# In the repository of minipar, `docs/collectives.md` has every collective with its formulas, and
# `docs/extending.md` says how to write one of your own. To see those of a script of yours in time:
# `minipar run -n 4 --backend local --cluster FILE --trace FOLDER script.py`, then `minipar timeline
# FOLDER`; with `--out replay.html` their chunks move.

# %% [markdown]
# ## A solution of the exercise


# %%
def recursive_doubling_solution(link, buf: Array) -> None:
    reach = 1
    while reach < link.size:
        partner = link.rank ^ reach
        link.add(buf, link.sendrecv(buf, dst=partner, src=partner))
        reach *= 2


check(recursive_doubling_solution)
steps = chunk_snapshots("all_reduce", recursive_doubling_solution, 8)
assert len(steps) - 1 == 3  # the tree takes 6
