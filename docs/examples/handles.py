"""Begin an all-reduce, compute, and wait for it only where its result is needed."""

import minipar
from minipar.events import EVERYBODY, last

group = minipar.init()
gradients = [group.empty(200_000) for _ in range(3)]  # in memory that the other ranks can reach
handles = []
for layer, gradient in enumerate(gradients):
    gradient[:] = group.rank + layer  # the backward pass of this layer
    handles.append(group.all_reduce(gradient, op="mean", out=gradient, async_op=True))
for layer, handle in enumerate(handles):
    assert (handle.wait() == (group.size - 1) / 2 + layer).all()

if group.rank == 0:
    for event in last():
        if event.peer == EVERYBODY:
            print(f"{event.op} #{event.sequence} by {event.algorithm}: {event.nbytes} bytes")
