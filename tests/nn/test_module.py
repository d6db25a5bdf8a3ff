import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.nn import Module
from minipar.tensor import Tensor


def parameter(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32), requires_grad=True)


class Part(Module):
    def __init__(self, n: int) -> None:
        self.weight = parameter(n, 2)
        self.bias = None


class Whole(Module):
    def __init__(self) -> None:
        self.first = Part(1)
        self.parts = [Part(2), Part(3)]
        self.pair = (Part(4), parameter(5))
        self.tied = self.first.weight
        self.size = 3


def test_names_are_paths_and_a_shared_parameter_comes_once():
    named = dict(Whole().named_parameters())
    assert {name: x.shape for name, x in named.items()} == {
        "first.weight": (1, 2),
        "parts.0.weight": (2, 2),
        "parts.1.weight": (3, 2),
        "pair.0.weight": (4, 2),
        "pair.1": (5,),
    }
    assert list(dict(Part(1).named_parameters("up"))) == ["up.weight"]
    assert len(Whole().parameters()) == 5


def test_state_goes_round_in_place_and_is_a_copy():
    a, b = Whole(), Whole()
    a.first.weight.data[...] = 7
    state, place = a.state_dict(), b.first.weight.data
    a.first.weight.data[...] = 8
    b.load_state_dict(state)
    assert (place == 7).all() and b.first.weight.data is place


def test_a_wrong_state_changes_nothing_and_is_named():
    whole = Whole()
    state = {name: array * 2 for name, array in whole.state_dict().items()}
    with pytest.raises(UsageError, match=r"missing \['pair.1'\], unexpected \['other'\]"):
        whole.load_state_dict({**{n: a for n, a in state.items() if n != "pair.1"}, "other": 0})
    with pytest.raises(ShapeMismatch, match=r"pair.1 is float32\[5\] in the model, float32\[6\]"):
        whole.load_state_dict({**state, "pair.1": np.ones(6, np.float32)})
    assert all((x.data == 1).all() for x in whole.parameters())
    whole.load_state_dict({"pair.1": state["pair.1"], "other": 0}, strict=False)
    assert (whole.pair[1].data == 2).all()


def test_zero_grad():
    whole = Whole()
    whole.tied.grad = np.ones((1, 2))
    whole.zero_grad()
    assert whole.tied.grad is None
