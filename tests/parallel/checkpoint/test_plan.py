"""Who writes what: each box once, by one that has it, and the work shared out."""

import numpy as np

import minipar
from minipar.parallel.boxes import Box
from minipar.parallel.checkpoint import plan
from minipar.parallel.checkpoint.plan import Having
from minipar.parallel.held import Held

A, B = Box((0,), (4,)), Box((4,), (8,))


def test_each_box_is_written_by_one_of_its_holders():
    told = [[Having("x", A, 16, True)], [Having("x", A, 16, True), Having("x", B, 16, True)], []]
    assert plan.writers(told) == {("x", A): 0, ("x", B): 1}


def test_replicas_share_the_work():
    having = [Having(str(n), A, n, True) for n in (10, 9, 5, 4, 3, 1)]
    chosen = plan.writers([having, having, having])
    load = [sum(int(name) for (name, _), rank in chosen.items() if rank == r) for r in range(3)]
    assert max(load) == 12  # of 32 in all


def test_of_copies_that_may_differ_the_first_counts():
    big = [Having("big", A, 100, True)]
    buffer = [Having("mean", A, 1, False)]
    assert plan.writers([big + buffer, big + buffer]) == {("big", A): 0, ("mean", A): 0}
    assert plan.writers([[], buffer, buffer]) == {("mean", A): 1}


def ranks(group):
    x = np.arange(8.0)
    held = [
        Held("model/x", x, (8,)),
        Held("model/y", x[4 * group.rank :][:4], (8,), 4 * group.rank),
    ]
    found = plan.agree(held, group)
    return found.names, [(p.name, p.box, p.array.tolist()) for p in plan.parts(held, found)]


def test_ranks_agree():
    (names, one), (same, other) = minipar.run(ranks, 2)
    assert names == same == {"model/x", "model/y"}
    assert one == [("model/x", Box((0,), (8,)), list(range(8))), ("model/y", A, [0, 1, 2, 3])]
    assert other == [("model/y", B, [4, 5, 6, 7])]


def test_alone():
    held = [Held("x", np.zeros(2), (2,))]
    assert plan.agree(held, None) == plan.Plan({("x", Box((0,), (2,)))}, {"x"})


def test_what_is_told_may_be_of_any_length():
    found = minipar.run(lambda group: plan.gathered("é" * group.rank, group), 3)
    assert found == [["", "é", "éé"]] * 3
