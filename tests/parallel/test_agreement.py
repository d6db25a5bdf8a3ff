import re

import numpy as np
import pytest

import minipar
from minipar.errors import ReplicasDiffer
from minipar.nn import Module
from minipar.parallel.agreement import check_same_bits, check_same_form
from minipar.tensor import Tensor


class Model(Module):
    def __init__(self, **arrays):
        for name, array in arrays.items():
            setattr(self, name, Tensor(array, requires_grad=name != "frozen"))


A, B = np.zeros((2, 3)), np.zeros(3)


@pytest.mark.parametrize(
    "other, said",
    [
        ({"a": A, "b": B[:2]}, r"parameter 1 is b float64\[3\] on rank 0 .* Here it is b float64"),
        ({"b": B, "a": A}, r"parameter 0 is a float64\[2, 3\] on rank 0"),
        ({"a": A.astype(np.float32), "b": B}, r"parameter 0 is a .* Here it is a float32\[2, 3\]"),
        ({"a": A}, r"parameter 1 is b .* Here it is nothing"),
        ({"a": A, "b": B, "c": B}, r"parameter 2 is nothing on rank 0 .* Here it is c"),
        ({}, r"parameter 0 is a .* Here it is nothing"),
    ],
)
def test_the_first_parameter_that_differs_is_named_on_every_rank(other, said):
    def work(group):
        model = Model(**other) if group.rank in (1, 3) else Model(a=A, b=B)
        with pytest.raises(ReplicasDiffer) as raised:
            check_same_form(model, group)
        return str(raised.value)

    messages = minipar.run(work, 4)
    assert all("something else on ranks 1, 3." in m for m in messages)
    for rank in (1, 3):
        assert re.search(said, messages[rank])


def test_a_parameter_that_is_frozen_on_one_rank_only_is_named():
    def work(group):
        model = Model(a=A, frozen=B)
        model.frozen.requires_grad = group.rank == 0
        check_same_form(model, group)

    with pytest.raises(ReplicasDiffer, match=r"parameter 1 is frozen float64\[3\] on rank 0"):
        minipar.run(work, 2)


def test_equal_models_agree():
    def work(group):
        check_same_form(Model(a=A, b=B), group)
        check_same_form(Model(), group)
        check_same_bits(list(Model(a=A, b=B).named_parameters()), 1, group)
        check_same_bits([], 1, group)

    minipar.run(work, 3)


@pytest.mark.parametrize("change", [1e-300, -0.0, np.nan])  # -0.0 equals 0, with another bit
def test_one_bit_that_differs_is_found(change):
    def work(group):
        model = Model(a=A.copy(), b=B.copy())
        if group.rank in (1, 2):
            model.b.data[1] = change
        check_same_bits(list(model.named_parameters()), 7, group)

    said = "after step 7 .* b has other bits on ranks 1, 2 than on rank 0"
    with pytest.raises(ReplicasDiffer, match=said):
        minipar.run(work, 4)
