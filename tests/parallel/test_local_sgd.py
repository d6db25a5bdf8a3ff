"""Local SGD is what one process with all replicas does; what is averaged, and what it costs."""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import UsageError
from minipar.events import recording
from minipar.nn import BatchNorm, Module
from minipar.optim import SGD, Adam
from minipar.parallel.local_sgd import LocalSGD
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from minipar.testing import check_strategy, replicas
from minipar.testing.training import Case, largest_difference, momentum, train, train_alone


class One(Module):
    """Two weights and a frozen one; its loss has the gradient that it is told."""

    def __init__(self, n=2):
        self.x = Tensor(np.zeros(n), requires_grad=True)
        self.fixed = Tensor(np.full(n, 0.1))

    def follow(self, g):
        (self.x * g).sum().backward()


def sgd(named):
    return SGD(named, lr=1.0, momentum=0.5)


@pytest.mark.parametrize("every", [4, None])
def test_equals_one_process_with_all_replicas(every):
    check_strategy(
        partial(LocalSGD, every=every),
        partial(replicas.local_sgd, every=every),
        synchronised=False,
    )


def test_equals_it_on_processes():
    serial = partial(replicas.local_sgd, every=3)
    how = {"synchronised": False, "ranks": [2], "backend": "process"}
    check_strategy(partial(LocalSGD, every=3), serial, **how)


@pytest.mark.parametrize("p", [2, 3])
def test_meeting_after_each_step_is_data_parallel_for_sgd_with_momentum(p):
    """Since the step is linear in the gradient, and momentum is averaged too."""
    case = Case("momentum", momentum, 12)
    make = partial(LocalSGD, every=1)
    found = minipar.run(train, p, args=(make, case, True))
    wanted = {k: a for k, a in train_alone(case).items() if k.startswith(("weight", "state"))}
    assert largest_difference(found, [wanted] * p)[0] < 1e-10


def steps_of(group, every, gradients, rows=(1, 1)):
    """The weight and the momentum after each step, and the bytes that it sent."""
    net = One()
    parallel = LocalSGD(net, group, sgd, every=every)
    seen = []
    for g in gradients[group.rank]:
        parallel.zero_grad()
        net.follow(g)
        with recording() as log:
            parallel.sync_gradients(rows[group.rank])
            parallel.step()
        m = parallel.optimizer.state["x"]["m"]
        seen.append((float(net.x.data[0]), float(m[0]), sum(event.nbytes for event in log) > 0))
    return seen


def test_replicas_part_and_meet_with_weights_and_momentum_averaged():
    """By hand: rank 0 goes down the gradient 1, rank 1 down 3; momentum 0.5, lr 1."""
    one, other = minipar.run(steps_of, 2, args=(2, ([1, 1, 1], [3, 3, 3])))
    assert [step[:2] for step in one] == [(-1, 1), (-5, 3), (-7.5, 2.5)]
    assert [step[:2] for step in other] == [(-3, 3), (-5, 3), (-9.5, 4.5)]
    assert [step[2] for step in one] == [False, True, False]


def test_the_mean_is_weighted_by_the_rows_since_the_last_meeting():
    one, other = minipar.run(steps_of, 2, args=(1, ([4], [8]), (3, 1)))
    assert one == other == [(-5, 5, True)]


def test_rows_are_counted_anew_after_each_meeting():
    """3 rows against 1, then 1 against 3: 3/4 · 4, then 1/4 · 4 more, from rank 0 alone."""

    def work(group):
        net = One()
        parallel = LocalSGD(net, group, lambda named: SGD(named, lr=1.0), every=1)
        seen = []
        for rows in ((3, 1), (1, 3)):
            parallel.zero_grad()
            net.follow(0.0 if group.rank else -4.0)
            parallel.sync_gradients(rows[group.rank])
            parallel.step()
            seen.append(float(net.x.data[0]))
        return seen

    assert minipar.run(work, 2) == [[3, 4], [3, 4]]


def test_one_shot_sends_nothing_until_it_is_finished():
    def work(group):
        net = One()
        parallel = LocalSGD(net, group, sgd, every=None)
        with recording() as log:
            for _ in range(20):
                parallel.zero_grad()
                net.follow(1.0 + group.rank)
                parallel.sync_gradients()
                parallel.clip(1e9)
                parallel.step()
        apart = float(net.x.data[0])
        parallel.finish()
        before = net.x.data.copy()
        parallel.finish()  # nobody has moved: no meeting
        assert (net.x.data == before).all()
        return len(log), apart, float(net.x.data[0])

    ends = minipar.run(work, 3)
    assert [sent for sent, _, _ in ends] == [0, 0, 0]
    mean = np.mean([apart for _, apart, _ in ends])
    assert len({apart for _, apart, _ in ends}) == 3
    assert [end == pytest.approx(mean, rel=1e-12) for _, _, end in ends] == [True] * 3


def test_adam_averages_both_of_its_means_and_a_checkpoint_is_complete():
    def work(group):
        net = One()
        parallel = LocalSGD(net, group, lambda named: Adam(named, lr=0.1), every=None)
        net.follow(2.0 if group.rank else 1.0)
        parallel.sync_gradients()
        parallel.step()
        return parallel.state_dict(), net.state_dict()

    states = minipar.run(work, 2)
    for state, weights in states:
        assert state["x/m"] == pytest.approx(0.1 * 1.5)
        assert state["x/v"] == pytest.approx(0.001 * (1 + 4) / 2)
        assert state["step"] == 1
        assert (weights["x"] == states[0][1]["x"]).all()


def test_frozen_weights_keep_their_bits_and_moments_of_batch_norm_are_averaged():
    class Normed(One):
        def __init__(self):
            super().__init__()
            self.norm = BatchNorm(Init(0, np.float64), 2)

    def work(group):
        net = Normed()
        parallel = LocalSGD(net, group, sgd, every=1)
        net.norm(Tensor(np.full((4, 2), 10.0 * group.rank)), Draw(0, 0, range(4)))
        net.follow(1.0)
        parallel.sync_gradients()
        parallel.step()
        return net.fixed.data.copy(), net.norm.running_mean.data.copy()

    for fixed, mean in minipar.run(work, 3):
        assert (fixed == 0.1).all()
        assert mean == pytest.approx(1.0)  # 0.1 · (0 + 10 + 20) / 3


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("every", [1, 4])
def test_the_bytes_are_those_of_the_formula(p, every):
    def work(group):
        net = One(600)
        parallel = LocalSGD(net, group, sgd, every=every)
        with recording() as log:
            for _ in range(8):
                parallel.zero_grad()
                net.follow(1.0)
                parallel.sync_gradients()
                parallel.step()
        return sum(event.nbytes for event in log if event.op == "all_reduce")

    n = 2 * 600 * 8  # weights and momentum
    assert sum(minipar.run(work, p)) / p / 8 == pytest.approx(cost.local_sgd_bytes(p, n, every))


def test_it_cannot_meet_every_zero_steps():
    with pytest.raises(UsageError, match="every 1 or more steps, not every 0"):
        minipar.run(lambda group: LocalSGD(One(), group, sgd, every=0), 1)
