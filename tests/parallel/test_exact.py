"""Every form of data parallel equals one rank; a form with a classic mistake in it does not."""

import numpy as np
import pytest

from minipar import graph
from minipar.errors import ReplicasDiffer, UsageError
from minipar.parallel import replicas
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from tests.parallel.exact import (
    EVEN,
    TOLERANCE,
    UNEVEN,
    Net,
    adam,
    cut,
    largest_error,
    momentum,
)

SMALL = {"bucket_bytes": 300}  # several buckets, and a gradient too large for one
FORMS = [
    (DataParallel, {}),
    (BucketedDataParallel, {}),
    (BucketedDataParallel, SMALL),
    (OverlappedDataParallel, SMALL),
]


@pytest.mark.parametrize("make_optimizer", [momentum, adam])
@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("form, options", FORMS)
def test_equals_one_rank(form, options, p, make_optimizer):
    for rows in (EVEN, UNEVEN):
        assert largest_error(form, p, make_optimizer, rows, **options) < TOLERANCE


@pytest.mark.parametrize("form, options", [FORMS[0], *FORMS[2:]])
def test_equals_one_rank_in_processes(form, options):
    assert largest_error(form, 2, adam, backend="process", **options) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("make_optimizer", [momentum, adam])
@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("form, options", FORMS)
def test_equals_one_rank_in_any_number_of_processes(form, options, p, make_optimizer):
    error = largest_error(form, p, make_optimizer, backend="process", **options)
    assert error < TOLERANCE


@pytest.mark.parametrize("form, options", FORMS)
def test_replicas_that_begin_apart_get_the_weights_and_buffers_of_rank_0(form, options):
    assert largest_error(form, 3, model_of=Net, **options) < TOLERANCE


# -- mistakes ---------------------------------------------------------------------------------


class Sum(DataParallel):
    def _reduce(self, rows):
        super()._reduce(rows)
        for _, x in self.trained:
            x.grad *= self.group.size


class MeanOfMeans(DataParallel):
    def _reduce(self, rows):
        super()._reduce(1.0)


class DividingTwice(DataParallel):
    def _reduce(self, rows):
        super()._reduce(rows)
        for _, x in self.trained:
            x.grad /= self.group.size


class NoBroadcast(DataParallel):
    def __init__(self, model, *arguments):
        before = model.state_dict()
        super().__init__(model, *arguments)
        model.load_state_dict(before)


class OnlyMatrices(DataParallel):
    def _reduce(self, rows):
        own = [x.grad for _, x in self.trained]
        super()._reduce(rows)
        for (_, x), g in zip(self.trained, own):
            if x.ndim == 1:
                x.grad = g / rows


class NoZeroGrad(DataParallel):
    def zero_grad(self):
        pass


class LastBucketStays(BucketedDataParallel):
    def _reduce(self, rows):
        every, self.buckets = self.buckets, self.buckets[:-1]
        super()._reduce(rows)
        self.buckets = every


class LastBucketStaysOverlapped(OverlappedDataParallel):
    def _send_next(self, async_op):
        if len(self._handles) < len(self.buckets) - 1:
            super()._send_next(async_op)
        else:
            self._handles.append(self._handles[0])


@pytest.mark.parametrize(
    "mistake, options",
    [
        (Sum, {}),
        (MeanOfMeans, {}),
        (DividingTwice, {}),
        (NoBroadcast, {"model_of": Net}),
        (OnlyMatrices, {}),
        (DataParallel, {"cut_of": lambda rows, rank, ranks: cut(rows, 1, ranks)}),
        (NoZeroGrad, {}),
        (LastBucketStays, SMALL),
        (LastBucketStays, {}),
    ],
)
def test_a_mistake_is_seen(mistake, options):
    assert largest_error(mistake, 2, **options) > 1e4 * TOLERANCE


def test_a_last_bucket_that_stays_is_missed():
    """It has the rows of the other ranks."""
    with pytest.raises(UsageError, match="gradients were sent as if"):
        largest_error(LastBucketStaysOverlapped, 2, **SMALL)


class Early(OverlappedDataParallel):
    """Takes what it hears for final, and adds whatever comes later."""

    def _when_final(self, x):
        if self._bucket_of[id(x)] >= len(self._handles):
            super()._when_final(x)


def test_reducing_a_shared_weight_before_its_gradient_is_final_is_seen(monkeypatch):
    add = graph._Sums.add

    def every_part_is_called_final(self, to, g, fresh):
        if isinstance(to, graph.Node):
            add(self, to, g, fresh)
        else:
            graph._add_to_grad(to, g, False)

    small = {"bucket_bytes": 1}  # a bucket for each gradient
    assert largest_error(Early, 2, **small) < TOLERANCE
    monkeypatch.setattr(graph._Sums, "add", every_part_is_called_final)
    assert largest_error(DataParallel, 2) < TOLERANCE  # who does not listen is right all the same
    assert largest_error(Early, 2, **small) > 1e4 * TOLERANCE


class Reversed(Net):
    """Net with two parameters of equal shape in the other order."""

    def named_parameters(self, prefix=""):
        named = list(super().named_parameters(prefix))
        i, j = (n for n, (name, _) in enumerate(named) if name in ("up.bias", "twice.bias"))
        named[i], named[j] = named[j], named[i]
        yield from named


def test_an_order_of_parameters_that_differs_is_named_and_would_be_seen(monkeypatch):
    options = {"model_of": lambda rank: Reversed() if rank == 1 else Net()}
    for form, more in FORMS:
        with pytest.raises(ReplicasDiffer, match=r"parameter 1 is up\.bias float64\[6\] on rank 0"):
            largest_error(form, 2, **options, **more)
    monkeypatch.setattr(replicas, "check_same_form", lambda model, group: None)
    for form, more in FORMS:
        assert largest_error(form, 2, **options, **more) > 1e4 * TOLERANCE
        assert np.isfinite(largest_error(form, 1, **options, **more))
