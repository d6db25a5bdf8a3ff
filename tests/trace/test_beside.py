"""Timelines below each other: one scale, and each with its own end."""

import numpy as np
import pytest

from minipar import Cluster, Init, Tensor
from minipar.errors import UsageError
from minipar.nn import Linear
from minipar.spans import span
from minipar.trace.beside import draw_beside, draw_memory_beside
from minipar.trace.traced import traced

LINK = Cluster(1e-6, 1e-9, 0)


def test_panels_have_one_scale_and_say_when_they_end():
    def work(group, algorithm):
        group.all_reduce(np.zeros(1000), algorithm=algorithm)

    found = {way: traced(work, 4, args=(way,), cluster=LINK)[1] for way in ("naive", "ring")}
    naive, ring = draw_beside(found).axes
    assert naive.get_xlim() == ring.get_xlim() == (0, found["naive"].end / 1e6)
    assert naive.get_title(loc="left") == "naive: 0.054 ms"  # 6 · (1 + 8) µs
    assert ring.get_title(loc="left") == "ring: 0.018 ms"  # 6 · (1 + 2) µs
    assert "100% / 0%" in ring.texts[0].get_text()  # of its own time, not of the longest panel's


def test_a_panel_may_begin_later():
    def work(group):
        with span("data"):
            group.spend(50e-6)
        begin = group.now_ns()
        with span("forward"):
            group.spend(30e-6)
        return begin

    (begin,), trace = traced(work, 1, cluster=LINK)
    figure = draw_beside({"it": trace}, since={"it": begin})
    assert figure.axes[0].get_title(loc="left") == "it: 0.03 ms"
    assert figure.axes[0].get_xlim() == (0, 0.03)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["forward", "waiting"]  # what was before the window is not in it


def test_memory_has_one_scale_and_says_the_most():
    def work(group, layers):
        init = Init(0, np.float64)
        x = Tensor(np.ones((4, 64)))  # 2 KB, kept until backward
        for n in range(layers):
            x = Linear(init / n, 64, 64, bias=False)(x)  # 32 KB, and what it returns 2 KB
            group.spend(1e-6)
        with span("evaluate"):
            x.sum()  # keeps no array

    found = {f"{n}": traced(work, 1, args=(n,), cluster=LINK)[1] for n in (1, 2)}
    one, two = draw_memory_beside(found).axes
    assert one.get_title(loc="left") == "1: at most 34 KB"
    assert two.get_title(loc="left") == "2: at most 68 KB"
    assert one.get_ylim() == two.get_ylim() == (0, 1.08 * 68)
    assert (one.get_ylabel(), two.get_xlabel()) == ("KB", "ms of virtual time, rank 0")


def test_memory_of_a_run_that_has_none_is_refused():
    _, trace = traced(lambda group: group.barrier(), 2, cluster=LINK)
    with pytest.raises(UsageError, match="it: no rank of this trace"):
        draw_memory_beside({"it": trace})
