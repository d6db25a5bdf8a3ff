"""check_strategy accepts what is right and says what is wrong with the rest."""

import numpy as np
import pytest

from minipar.parallel.data import DataParallel
from minipar.testing import WrongStrategy, check_strategy
from minipar.testing.strategies import difference, one_rank


class Broken(DataParallel):
    """Data parallel, with one thing forgotten."""

    mistake = ""

    def __init__(self, model, group, make_optimizer):
        kept = model.state_dict()
        super().__init__(model, group, make_optimizer)
        if self.mistake == "no initial broadcast":
            model.load_state_dict(kept)

    def zero_grad(self):
        if self.mistake != "no zero_grad":
            super().zero_grad()

    def _reduce(self, rows):
        if self.mistake == "mean of means":
            rows = 1
        if self.mistake == "vectors skipped":
            self.trained, everything = [(n, x) for n, x in self.trained if x.ndim > 1], self.trained
            super()._reduce(rows)
            self.trained = everything
            return
        super()._reduce(rows)
        for _, x in self.trained:
            if self.mistake == "sum":
                x.grad *= self.group.size
            if self.mistake == "nan":
                x.grad[...] = np.nan

    def clip(self, max_norm):
        return 1.0 if self.mistake == "not clipped" else super().clip(max_norm)

    def state_dict(self):
        return {} if self.mistake == "no state" else super().state_dict()


def broken(mistake_):
    class Mistaken(Broken):
        mistake = mistake_

    return Mistaken


MISTAKES = (
    *("no initial broadcast", "no zero_grad", "mean of means", "vectors skipped", "sum", "nan"),
    *("not clipped", "no state"),
)


def test_what_is_right_passes():
    check_strategy(Broken, ranks=(1, 3))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_found(mistake):
    with pytest.raises(WrongStrategy, match=r"with \d ranks? on local: .* is off by"):
        check_strategy(broken(mistake), ranks=(2, 3))


def test_the_message_says_what_differs_most_and_where():
    with pytest.raises(WrongStrategy, match=r"norm of the gradient on rank \d is off by"):
        check_strategy(broken("sum"), ranks=[2])


def test_what_it_raises_is_raised():
    class Raises(DataParallel):
        def step(self):
            raise ZeroDivisionError("in step")

    with pytest.raises(ZeroDivisionError, match="in step"):
        check_strategy(Raises, ranks=[2])


def test_the_largest_difference_is_that_of_the_worst_case():
    found = difference(broken("mean of means"), one_rank, True, 2, "local")
    assert found.error > 1e-4
    assert found.where.startswith("uneven rows")
    assert difference(Broken, one_rank, True, 2, "local").error < 1e-12
