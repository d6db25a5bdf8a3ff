"""The optimizer's state, which lies cut on the servers, as one; and the way back.

server 0   up.weight[0:40]/m   up.bias/m   step  ┐
server 1   up.weight[40:80]/m  step              ┴─►  {"step": .., "up.weight/m": .., ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.optim import check_state
from minipar.parallel.parameter_server import wire
from minipar.parallel.parameter_server.keys import Key, Shard
from minipar.parallel.parameter_server.lines import take
from minipar.parallel.parameter_server.wire import Head
from minipar.parallel.parameter_server.worker import Worker
from minipar.tensor import Tensor

Parameters = Mapping[str, Tensor]


def pull_state(worker: Worker, slots: Sequence[str], parameters: Parameters) -> dict[str, Array]:
    """As `Optimizer.state_dict` of one optimizer over all parameters.

    "step" is that of the server with the most: how many updates it has made.
    """
    state: dict[str, Array] = {
        f"{name}/{slot}": np.empty(x.shape, x.dtype)
        for name, x in parameters.items()
        for slot in slots
    }
    head = Head(wire.STATE, clock=worker.clock)
    asked = []
    for line in worker.lines:
        outs = [key.of(state[name]) for key, name in _places(line.shard, slots)]
        asked.append(line.ask(head, outs=outs))
    steps = max(answer.head.steps for answer in take(asked))
    return {"step": np.asarray(steps), **state}


def load_state(
    worker: Worker, slots: Sequence[str], parameters: Parameters, state: Mapping[str, Any]
) -> None:
    """Give the servers their parts of complete state.  Raises: UsageError, ShapeMismatch."""
    check_state(
        {f"{n}/{slot}": x.data.shape for n, x in parameters.items() for slot in slots}, state
    )
    head = Head(wire.LOAD, steps=int(state["step"]))
    asked = []
    for line in worker.lines:
        parts = [
            np.ascontiguousarray(key.of(state[name]), key.dtype)
            for key, name in _places(line.shard, slots)
        ]
        asked.append(line.ask(head, arrays=parts))
    take(asked)


def _places(shard: Shard, slots: Sequence[str]) -> Iterator[tuple[Key, str]]:
    """In the order of `Store.state`."""
    for key in shard.keys:
        for slot in slots:
            yield key, f"{key.parameter}/{slot}"
