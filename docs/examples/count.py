"""Count what an all-reduce sends, and hold it against the formula."""

import numpy as np

import minipar
from minipar import cost
from minipar.events import recording

group = minipar.init()
x = np.ones(2**17)  # 1 MB
with recording() as log:
    group.all_reduce(x)
sent = sum(event.nbytes for event in log)
expected = cost.ring_all_reduce(group.size, x.nbytes)
seconds = expected.seconds(alpha=5e-6, beta=1 / 10e9, gamma=1 / 20e9)
if group.rank == 0:
    print(f"sent: {len(log)} messages, {sent} bytes")
    print(f"expected: {expected.messages} messages, {expected.sent:.0f} bytes")
    print(f"expected time: {seconds * 1e6:.0f} µs")
    first = log[0]
    print(f"first: {first.nbytes} bytes to rank {first.peer}, {first.op} by {first.algorithm}")
    print(f"called at {first.site}")
