# %% [markdown]
# # Training is slow, and nobody knows why. Where does the time go?
#
# Four ranks share a batch. A step should take 15 ms, and takes 21. Is the network too slow? Is a
# rank? Is it the code? Printing times from inside the ranks gives four streams of numbers, and the
# answer lies *between* them: who waited for whom.
#
# So every rank writes down what it does and when. The four diaries are laid beside each other:
#
# ```text
# rank 0   [ backward      ][....waits....][ all_reduce ]
# rank 1   [ backward                     ][ all_reduce ]      <- nobody waits but for this one
# ```
#
# We write such a diary by hand, then let minipar do it, draw it, and find out what is wrong with a
# step. Time is virtual here, so you see the same numbers as everybody else.

# %%
from collections import Counter
from typing import NamedTuple

import numpy as np

import minipar
from minipar import Cluster, Group
from minipar.spans import span
from minipar.stepping.scripted import stepped
from minipar.trace.beside import draw_beside
from minipar.trace.show import show
from minipar.trace.timeline_figure import draw_timeline
from minipar.trace.totals import report, shares
from minipar.trace.traced import traced

RANKS, LAYERS = 4, 3
GRADIENT = np.zeros(500_000, np.float32)  # of a layer: 2 MB
CLUSTER = Cluster(20e-6, 1 / 2e9, 1 / 10e9, slow={2: 1.6})  # something is wrong with rank 2

# %% [markdown]
# ## A diary by hand
#
# A span is a name, a begin and an end. `group.spend` declares how long a computation takes, and
# `group.now_ns()` reads the rank's clock.


# %%
class Entry(NamedTuple):
    what: str
    begin: int
    end: int


def by_hand(group: Group) -> list[Entry]:
    diary = []
    begin = group.now_ns()
    group.spend(6e-3)  # forward and backward
    diary.append(Entry("compute", begin, group.now_ns()))
    begin = group.now_ns()
    group.all_reduce(GRADIENT, algorithm="ring")
    diary.append(Entry("all_reduce", begin, group.now_ns()))
    return diary


diaries = minipar.run(by_hand, RANKS, cluster=CLUSTER)
for rank, diary in enumerate(diaries):
    print(
        f"rank {rank}  " + "   ".join(f"{e.what} {(e.end - e.begin) / 1e6:5.2f} ms" for e in diary)
    )

# %% [markdown]
# Rank 2 computes longer, and all the *others* have a long all_reduce. A profile of rank 0 alone
# would blame the network! What looks like communication is mostly waiting. To tell the two apart,
# the diary has to know when a rank waits for a message that has not come. That happens deep inside
# the all_reduce, so whoever keeps the diary must look there.
#
# ## The same through minipar
#
# `traced` runs the ranks and keeps the diary: of calls, of every message, of every wait. It returns
# what the ranks returned, and the **trace**, the diaries of all. What you compute gets a `span`.
# Here is a step with gradients that are averaged layer by layer:


# %%
def step(group: Group) -> None:
    with span("forward"):
        group.spend(LAYERS * 1e-3)
    for layer in reversed(range(LAYERS)):
        with span("backward", f"{layer}"):
            group.spend(2e-3)
        with span("reduce", f"{layer}"):
            group.all_reduce(GRADIENT, algorithm="ring")
    with span("optimizer"):
        group.spend(1e-3)


_, trace = traced(step, RANKS, cluster=CLUSTER)
show(draw_timeline(trace, 0, trace.end, "a step; what is wrong?"), "step")

# %% [markdown]
# Above, what a rank computes; below, what it moves (colour) and where it waits (hatched). The rank
# that never waits is the one for whom all others do. In numbers:

# %%
rows = report(trace, 0, trace.end)
for row in rows:
    print(
        f"rank {row['rank']}   computing {row['computing']:4.0%}   moving {row['moving']:4.0%}   "
        f"waiting {row['waiting']:4.0%}"
    )
least = min(rows, key=lambda row: row["waiting"])
print(f"least waiting: rank {least['rank']}")

# %% [markdown]
# Is it the network, then, or the rank? Ask the trace what would be, were nobody slow: the same step
# on a cluster in which rank 2 is healthy.

# %%
_, healthy = traced(step, RANKS, cluster=Cluster(20e-6, 1 / 2e9, 1 / 10e9))
lost = (trace.end - healthy.end) / 1e6
print(f"{trace.end / 1e6:.1f} ms with the slow rank, {healthy.end / 1e6:.1f} ms without it")
print(f"lost: {lost:.1f} ms")

# %% [markdown]
# Rank 2 has 10 ms of work and is 1.6 times as slow, which makes 6 ms; the rest is what it adds up
# in the all_reduce, just as slowly. The network is innocent.
#
# ## Is the diary complete?
#
# A diary that forgets messages proves nothing. So each message is in it twice, by who sent it and
# by who got it, and the sums must agree, pair by pair. And a ring moves 2(p-1)/p of the array from
# each rank:

# %%
sent = Counter[tuple[int, int]]()
got = Counter[tuple[int, int]]()
for diary_of_rank in trace.ranks:
    for message in diary_of_rank.messages:
        sent[message.rank, message.peer] += message.nbytes
    for message in diary_of_rank.receipts:
        got[message.rank, message.peer] += message.nbytes
print(f"rank 0 to rank 1: {sent[0, 1] / 2**20:.2f} MB sent, {got[0, 1] / 2**20:.2f} MB got")

# %% [markdown]
# ## Exercise
#
# The gradients of layer 2 are complete long before backward is over, and yet the next layer waits
# until they have been averaged. Begin each all_reduce without waiting for it (`async_op=True`
# returns a handle; `handle.wait()` at the end). Draw it. How much of the communication is hidden
# now, and what is left to wait for? The solution is below.


# %%
def overlapped(group: Group) -> None:
    with span("forward"):
        group.spend(LAYERS * 1e-3)
    handles = []
    for layer in reversed(range(LAYERS)):
        with span("backward", f"{layer}"):
            group.spend(2e-3)
        handles.append(group.all_reduce(GRADIENT, algorithm="ring", async_op=True))
    with span("reduce"):
        for handle in handles:
            handle.wait()
    with span("optimizer"):
        group.spend(1e-3)


_, hidden = traced(overlapped, RANKS, cluster=Cluster(20e-6, 1 / 2e9, 1 / 10e9))
show(draw_beside({"one after the other": healthy, "overlapped": hidden}), "overlapped")
found = shares(hidden.ranks[0], 0, hidden.end)
print(f"{hidden.end / 1e6:.1f} ms; {found.overlapped / 1e6:.1f} ms of communication are hidden")

# %% [markdown]
# ## Stop it
#
# A trace shows a run that is over. `minipar step` holds one that goes on: at every call and every
# message all ranks stand still, and can be asked. Usually you type at its prompt; these commands
# were written down. `b` sets a break, `c` goes on to it, `show` cuts the array of the all_reduce
# into chunks and says whose parts are in each, and `back` goes back by one event.

# %%
SCRIPT = """
import numpy as np
import minipar

group = minipar.init()
total = group.all_reduce(np.full(4, 10**group.rank), algorithm="ring")
"""
commands = ["b rank 2, gets", "c", "c", "c", "show", "back"]
seen = stepped(SCRIPT, RANKS, commands, cluster=CLUSTER)
print(seen[seen.index("(step) show") :])

# %% [markdown]
# The same works for runs of your own, without a line of code:
#
# ```text
# minipar train gpt --dp 2 --trace                       records it
# minipar timeline runs/gpt-1 --step 3                   draws a step
# minipar timeline runs/gpt-1 --step 3 --view layers     its layers; --help lists other views
# minipar timeline runs/gpt-1 --out replay.html          a page that plays it
# minipar step -n 4 script.py                            holds it
# ```

# %%
assert [e.what for e in diaries[0]] == ["compute", "all_reduce"]
assert least["rank"] == 2 and least["waiting"] < min(r["waiting"] for r in rows if r["rank"] != 2)
computed = (LAYERS * 1e-3 + LAYERS * 2e-3 + 1e-3) * 0.6e3  # ms that rank 2 computes too long
assert abs(lost - computed) < 0.7
assert sent == got
assert sent[0, 1] == LAYERS * 2 * (RANKS - 1) * GRADIENT.nbytes // RANKS
assert hidden.end < healthy.end
assert "rank 2  .12.  110   ..2.  100   ..2.  100   012.  111" in seen
