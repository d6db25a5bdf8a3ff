"""How a broken promise is told, and that one which hangs or fails otherwise is told, too."""

import threading

import numpy as np
import pytest

from minipar import run
from minipar.errors import PeerLost
from minipar.testing.promise import PromiseBroken, check_promise, expect, shown


def kept(group):
    """Nothing is wrong here."""


def broken(group):
    """Arrays arrive.

    Usual cause: a test that wants to see an error.
    """
    if group.rank == 1:
        expect(np.array([1, 2]), np.array([1, 3]), "the second array")


def test_the_error_has_who_what_expected_and_the_cause():
    run(lambda g: check_promise(g, kept, 60), 3)
    with pytest.raises(PromiseBroken) as caught:
        run(lambda g: check_promise(g, broken, 60), 3)
    assert str(caught.value).partition("\nwho waits for whom:")[0] == (
        "rank 1/3: broken does not hold: "
        "the second array is int64[2] [1 2], expected int64[2] [1 3]\n"
        "  Arrays arrive.\n"
        "  Usual cause: a test that wants to see an error."
    )


def test_one_that_never_comes_back_is_told_with_its_line():
    never = threading.Event()

    def hangs(group):
        never.wait()

    with pytest.raises(PromiseBroken, match=r"not come back after 0.05 s; .*test_promise.py:\d+"):
        run(lambda g: check_promise(g, hangs, 0.05), 1)
    never.set()


def test_other_exceptions_are_named_and_kept_as_the_cause():
    def divides(group):
        return 1 / 0

    with pytest.raises(PromiseBroken, match="ZeroDivisionError: division by zero") as caught:
        run(lambda g: check_promise(g, divides, 60), 1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_rank_that_only_lost_another_one_accuses_nobody():
    def lost(group):
        raise PeerLost("rank 1 is gone")

    with pytest.raises(PeerLost, match="rank 1 is gone"):
        run(lambda g: check_promise(g, lost, 60), 1)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (np.zeros(3), np.zeros((3, 1))),
        (np.zeros(3), np.zeros(3, np.float32)),
        (np.zeros(3), np.ones(3)),
        (None, np.ones(3)),
        (np.ones(3), None),
    ],
)
def test_shape_dtype_and_values_are_expected(got, wanted):
    expect(got, got, "it")
    with pytest.raises(PromiseBroken, match=r"it is .*, expected "):
        expect(got, wanted, "it")


def test_large_arrays_are_shown_short():
    assert shown(np.arange(1000)) == "int64[1000] [  0   1   2 ... 997 998 999]"
