from functools import partial
from itertools import pairwise

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.nn import Linear, Module
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.tensor import Tensor
from minipar.trace.overlap import (
    ALL_REDUCE,
    BACKWARD,
    Span,
    draw_overlap,
    end_of,
    hidden,
    in_time,
    watch,
)

OVERLAPPED = partial(OverlappedDataParallel, bucket_bytes=1)  # a bucket for each gradient


class Net(Module):
    def __init__(self):
        init = minipar.Init(0, np.float64)
        self.layers = [Linear(init / n, 4, 4) for n in range(3)]

    def __call__(self):
        z = Tensor(np.ones((2, 4)))
        for layer in self.layers:
            z = layer(z)
        return z.sum()


def watched(form):
    return watch(form, Net, lambda model: model())


def kinds(moments):
    return "".join("b" if m.kind == BACKWARD else "r" for m in moments)


def test_the_order_is_that_of_the_real_code():
    assert kinds(watched(DataParallel)) == "bbbbbbrrrrrr"
    assert kinds(watched(BucketedDataParallel)) == "bbbbbbr"
    overlapped = watched(OVERLAPPED)
    assert kinds(overlapped).index("r") <= 2 and kinds(overlapped)[-1] == "r"
    layers = [m.name.split(".")[1] for m in overlapped if m.kind == BACKWARD]
    assert layers == ["2", "2", "1", "1", "0", "0"]


@pytest.mark.parametrize("form", [DataParallel, BucketedDataParallel, OVERLAPPED])
def test_times_follow_from_what_was_declared(form):
    alpha, beta, p = 1.0, 0.01, 4
    spans = in_time(watched(form), lambda m: 3.0, p, alpha, beta)
    backward = [s for s in spans if s.kind == BACKWARD]
    sent = [s for s in spans if s.kind == ALL_REDUCE]
    assert [s.end for s in backward] == [3.0 * n for n in range(1, 7)]
    assert all(a.end <= b.begin for a, b in pairwise(sent))
    takes = sum(s.end - s.begin for s in sent)
    n = 8 * 3 * (16 + 4)
    if form is not DataParallel:
        n += 8 * (2 + 6)  # the rows of each watched rank, and which of 6 gradients there are
    whole = cost.ring_all_reduce(p, n)
    calls = whole._replace(messages=whole.messages * len(sent))
    assert abs(takes - calls.seconds(alpha, beta, 0)) < 1e-9
    if form is not OVERLAPPED:
        assert abs(end_of(spans) - (18.0 + takes)) < 1e-9
    else:
        assert end_of(spans) < 18.0 + takes


def test_the_figure_has_a_picture_for_each():
    spans = in_time(watched(OVERLAPPED), lambda m: 3e-6, 4, 1e-6, 1e-9)
    figure = draw_overlap({"one": spans, "two": spans})
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["one", "two"]
    assert len(figure.axes[0].collections) == len(spans) + 1  # and what is hidden


def test_hidden_is_what_is_sent_while_something_is_computed():
    own = [Span(BACKWARD, "", 0, 2e-3), Span("optimizer", "", 5e-3, 6e-3)]
    sent = [Span(ALL_REDUCE, "", 1e-3, 3e-3), Span(ALL_REDUCE, "", 5e-3, 7e-3)]
    assert hidden([*own, *sent]) == ([(1e-3, 2e-3), (5e-3, 6e-3)], 0.5)
    assert hidden(own) == ([], 0)
