"""One root for all that minipar raises, and the built-in kinds that users expect."""

import pickle

import pytest

from minipar import errors

OURS = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_one_root_and_travels_between_processes(kind):
    assert issubclass(kind, errors.MiniparError)
    back = pickle.loads(pickle.dumps(kind("rank 1: why")))
    assert type(back) is kind and str(back) == "rank 1: why"


def test_they_are_caught_as_what_they_are():
    assert issubclass(errors.ShapeMismatch, ValueError)
    assert issubclass(errors.Diverged, ArithmeticError)
    assert issubclass(errors.Deadlock, errors.CommError)
