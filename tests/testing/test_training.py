"""The run on which strategies are compared has in it what goes wrong, and differences are found."""

import math

import numpy as np
import pytest

from minipar.testing.training import CASES, STEPS, Net, batch, largest_difference, train_alone


def test_the_net_has_a_shared_and_a_frozen_weight_vectors_and_running_moments():
    net = Net(batch_norm=True)
    names = [name for name, _ in net.named_parameters()]
    assert net.again is net.middle
    assert "middle.weight" in names and "again.weight" not in names
    assert not net.fixed.weight.requires_grad
    assert {x.ndim for x in net.parameters() if x.requires_grad} == {1, 2}
    assert "norm.running_var" in names
    assert net.dropout.p > 0


def test_the_cases_have_every_number_of_rows():
    for case in CASES:
        for p in (1, 2, 3, 4):
            parts = [case.rows_of(r, p) for r in range(p)]
            assert [i for part in parts for i in part] == list(range(case.rows))
    assert any(case.batch_norm and case.rows % 2 for case in CASES)  # which no two ranks share


def test_a_row_is_the_same_in_every_cut():
    x, y, draw = batch(3, range(12))
    part_x, part_y, part_draw = batch(3, range(4, 7))
    assert (x.data[4:7] == part_x.data).all() and (y[4:7] == part_y).all()
    whole, part = draw.keep("dropout", (12, 8), 0.5), part_draw.keep("dropout", (3, 8), 0.5)
    assert (whole[4:7] == part).all()


def test_an_outcome_names_everything():
    found = train_alone(CASES[1])
    assert found["norm of the gradient"].shape == (STEPS,)
    assert (found["norm of the gradient"] > CASES[1].max_norm).all()  # so clipping matters
    for name in ("weight up.weight", "weight fixed.weight", "weight norm.running_mean",
                 "state middle.weight/v", "state step", "gradient down.bias"):  # fmt: skip
        assert name in found
    assert "gradient fixed.weight" not in found


@pytest.mark.parametrize(
    ("change", "apart", "where"),
    [
        ({"b": np.array([2.0, 3.5])}, 0.5, "b on rank 1"),
        ({"b": np.array([2.0, math.nan])}, math.inf, "b on rank 1"),
        ({"b": np.zeros(3)}, math.inf, "b on rank 1"),
    ],
)
def test_differences(change, apart, where):
    right = {"a": np.zeros(2), "b": np.array([2.0, 3.0]), "gradient c": np.ones(1)}
    error, place = largest_difference([right, right | change], [right, right])
    assert (error, place) == (apart, where)


def test_a_gradient_may_be_missing_but_a_weight_may_not():
    right = {"weight a": np.zeros(2), "gradient a": np.ones(1)}
    assert largest_difference([{"weight a": np.zeros(2)}], [right]) == (0, "")
    assert largest_difference([{"gradient a": np.ones(1)}], [right]) == (
        math.inf,
        "weight a on rank 0",
    )
