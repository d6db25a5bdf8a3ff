r"""The small training runs on which parameter servers are held against one process.

sync gives what one rank with the whole batch does. In async and ssp the order of the pushes is
whatever it was; but the servers have recorded it, and that is all there is to know:

    server 0   worker 1, clock 1, computed with version 0, applied to version 0
               worker 0, clock 1,                       0,                    1
               worker 1, clock 2,                       1,                    2

So one process that keeps every version of the weights can do it again (`replay`): it computes each
gradient with the versions named there, of every server its own, and applies it in the order there.

On `local` worker 1 computes three times as long, in virtual time, so that pushes do get stale.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from minipar.array import Array
from minipar.comm.cluster import Cluster
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.nn import Module
from minipar.optim import clip_grad_norm
from minipar.parallel.parameter_server import (
    ASYNC,
    ParameterServer,
    Record,
    Report,
    Roles,
    Rule,
    serve,
)
from minipar.parallel.parameter_server.keys import Shard, shards_of
from minipar.parallel.strategy import MakeOptimizer
from minipar.tensor import Tensor
from minipar.testing import training
from minipar.testing.strategies import PATIENCE_S, Difference, WrongStrategy
from minipar.testing.training import (
    STEPS,
    Case,
    Net,
    accumulate,
    adamw,
    gradients_of,
    largest_difference,
    momentum,
    outcome,
    set_lr,
)

SLICE_BYTES = 200  # so that the weights of the net are cut
SLOW = Cluster(slow={1: 3.0})
PUSHES = (  # batch norm would have moments of each worker's own
    Case("momentum", momentum, 12, batch_norm=False),
    Case("asked for early, uneven rows, adamw, clipped, accumulated",
         adamw, 13, batch_norm=False, micros=2, max_norm=0.2),
)  # fmt: skip


def servers_for(workers: int) -> int:
    """Two where there is something to order between them."""
    return 1 if workers < 3 else 2


def difference(
    workers: int, backend: str, rule: Rule = ASYNC, cases: Sequence[Case] | None = None
) -> Difference:
    """How far so many workers are from the definition, in all cases.  Raises: what ranks raise."""
    cases = cases or (training.CASES if rule.rounds else PUSHES)
    ranks, cluster = workers + servers_for(workers), SLOW if backend == "local" else None
    results = run(train_all, ranks, args=(workers, rule, cases), backend=backend,
                  timeout_s=PATIENCE_S, cluster=cluster)  # fmt: skip
    worst = Difference(0.0, "")
    for case, found in zip(cases, zip(*results)):
        reports: Sequence[Report] = found[workers:]
        if rule.rounds:
            wanted = [training.train_alone(case)] * workers
        else:
            wanted = replay(case, workers, reports)
        error, where = largest_difference(found[:workers], wanted)
        if max(report.most_ahead for report in reports) > rule.bound:
            error, where = math.inf, "how far a worker was ahead"
        if error > worst.error:
            worst = Difference(error, f"{case.name}: {where}")
    return worst


def train_all(world: Group, workers: int, rule: Rule, cases: Sequence[Case]) -> list[Any]:
    """All cases: what came of each on a worker, the report on a server."""
    servers = world.size - workers
    # Roles of its own for each: making them is collective, so nobody greets a server of the last.
    return [train_rank(Roles(world, servers), rule, case) for case in cases]


def train_rank(roles: Roles, rule: Rule, case: Case) -> Any:
    """One case."""
    if roles.is_server:
        model = Net(case.batch_norm)
        return serve(roles, model, case.make_optimizer, rule, slice_bytes=SLICE_BYTES)
    made: list[ParameterServer] = []

    def make(model: Module, group: Group, make_optimizer: MakeOptimizer) -> ParameterServer:
        early = case.micros > 1
        made.append(ParameterServer(model, roles, make_optimizer, prefetch=early,
                                    slice_bytes=SLICE_BYTES))  # fmt: skip
        return made[0]

    assert roles.workers is not None
    if rule.rounds:
        found = training.train(roles.workers, make, case, case.batch_norm)
    else:
        found = push(make(Net(False), roles.workers, case.make_optimizer), case)
    made[0].close()
    return found


def push(strategy: ParameterServer, case: Case) -> dict[str, Array]:
    """A worker of async or ssp: its steps, and what all of them have come to."""
    roles = strategy.roles
    assert roles.worker is not None and roles.workers is not None
    rows, norms = case.rows_of(roles.worker, roles.workers.size), []
    for step in range(STEPS):
        strategy.zero_grad()
        accumulate(strategy.model, case, step, rows)
        roles.world.spend(1.0)
        strategy.sync_gradients(len(rows))
        norms.append(strategy.clip(case.max_norm))
        set_lr(strategy.optimizer, step)
        strategy.step()
    strategy.state_dict()  # once it has been answered, all pushes of this worker have been applied
    roles.workers.barrier()
    state = strategy.state_dict()
    with strategy.whole() as model:
        return outcome(model, state, {}, norms)


# -- the definition ---------------------------------------------------------------------------


class Replica:
    """What one server had: its keys' values in every version, and the optimizer."""

    def __init__(self, shard: Shard, case: Case) -> None:
        weights = dict(Net(False).named_parameters())
        self.keys = shard.keys
        self.values = [
            Tensor(key.of(weights[key.parameter].data).copy(), requires_grad=True)
            for key in self.keys
        ]
        named = zip((key.name for key in self.keys), self.values)
        self.optimizer: Any = case.make_optimizer(named)
        self.first_lr = self.optimizer.lr
        self.versions = [[x.data.copy() for x in self.values]]

    def put(self, version: int, model: Module) -> None:
        """Give the model the values of that version."""
        parameters = dict(model.named_parameters())
        for key, value in zip(self.keys, self.versions[version]):
            key.of(parameters[key.parameter].data)[...] = value

    def apply(self, gradients: dict[str, Array], clock: int) -> None:
        """One update, at the rate that a worker has at its clock."""
        for key, x in zip(self.keys, self.values):
            x.grad = key.of(gradients[key.parameter])
        self.optimizer.lr = self.first_lr
        for step in range(clock):
            set_lr(self.optimizer, step)
        self.optimizer.step()
        self.versions.append([x.data.copy() for x in self.values])

    def put_state(self, whole: dict[str, Array]) -> None:
        """Put this server's part of the optimizer's state into that of all."""
        whole["step"] = np.asarray(self.optimizer.steps)
        for key in self.keys:
            for slot in self.optimizer.slots:
                key.of(whole[f"{key.parameter}/{slot}"])[...] = self.optimizer.state[key.name][slot]


Who = tuple[int, int]  # worker and clock


def replay(case: Case, workers: int, reports: Sequence[Report]) -> list[dict[str, Array]]:
    """What the recorded pushes come to, one after the other; the outcome for each worker.

    Raises: WrongStrategy, if a push was computed with weights that came after it.
    """
    model = Net(False)
    replicas = [Replica(shard, case) for shard in shards_of(model, len(reports), SLICE_BYTES)]
    orders = [deque(report.records) for report in reports]
    pulled: defaultdict[Who, list[int]] = defaultdict(list)  # the versions, by server
    for record in chain(*orders):
        pulled[record.worker, record.clock].append(record.pulled)
    gradients: dict[Who, dict[str, Array]] = {}
    norms: list[list[float]] = [[] for _ in range(workers)]

    def may_be_next(order: deque[Record]) -> bool:
        """Whether its weights are there: no other server has to come first."""
        versions = pulled[order[0].worker, order[0].clock] if order else [math.inf]
        return all(v < len(replica.versions) for v, replica in zip(versions, replicas))

    while any(orders):
        ready = next((both for both in zip(replicas, orders) if may_be_next(both[1])), None)
        if ready is None:
            raise WrongStrategy(f"{case.name}: what the servers have recorded cannot have been.")
        replica, order = ready
        worker, clock, *_ = order.popleft()
        if (worker, clock) not in gradients:
            for version, other in zip(pulled[worker, clock], replicas):
                other.put(version, model)
            norm = compute(model, case, clock - 1, case.rows_of(worker, workers))
            gradients[worker, clock] = gradients_of(model)
            norms[worker].append(norm)
        replica.apply(gradients[worker, clock], clock)
    state = case.make_optimizer(model.named_parameters()).state_dict()
    for replica in replicas:
        replica.put(-1, model)
        replica.put_state(state)
    return [outcome(model, state, {}, own) for own in norms]


def compute(model: Module, case: Case, step: int, rows: range) -> float:
    """The gradient that a worker pushes, computed with the weights of the model; its norm."""
    model.zero_grad()
    accumulate(model, case, step, rows)
    return clip_grad_norm(model.parameters(), case.max_norm)
