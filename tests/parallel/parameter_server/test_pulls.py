"""Which server gets which part of a gradient, and what is refused before anything is sent."""

from types import SimpleNamespace

import numpy as np
import pytest

from minipar.errors import Diverged, ShapeMismatch, UsageError
from minipar.parallel.parameter_server import pulls
from minipar.parallel.parameter_server.keys import shards_of
from minipar.sparse import RowGradient
from tests.parallel.parameter_server.serving import D, N, Small

LIKE = {name: x.data for name, x in Small().named_parameters()}


def lines(servers, slice_bytes=64):
    return [SimpleNamespace(shard=shard) for shard in shards_of(Small(), servers, slice_bytes)]


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_the_parts_of_all_servers_put_together_are_the_gradients(servers):
    dice = np.random.default_rng(0)
    ids = np.array([0, 3, 7, 8, 11])
    given = {"x": dice.normal(size=(3, 4)), "y": dice.normal(size=5)}
    table = RowGradient(ids, dice.normal(size=(5, D)), (N, D))
    where = lines(servers)
    values = pulls.shared_out(where, given | {"table.weight": table})
    found = {name: np.full(x.shape, np.nan) for name, x in LIKE.items()}
    found["table.weight"] = np.zeros((N, D))
    for line, own in zip(where, values, strict=True):
        for i, g in own.items():
            key = line.shard.keys[i]
            part = key.of(found[key.parameter])
            part[...] = g.dense() if isinstance(g, RowGradient) else g
    for name, g in given.items():
        np.testing.assert_array_equal(found[name], g)
    np.testing.assert_array_equal(found["table.weight"], table.dense())


@pytest.mark.parametrize(
    ("gradients", "error", "says"),
    [
        ({"z": np.zeros(5)}, UsageError, "worker 3: unknown key z; there are table.weight, x, y"),
        ({"y": np.zeros(6)}, ShapeMismatch, "worker 3: the gradient of y is float64"),
        ({"y": np.zeros(5, np.float32)}, ShapeMismatch, "is float32"),
        (
            {"table.weight": RowGradient(np.array([4, N]), np.zeros((2, D)), (N, D))},
            UsageError,
            "has the rows 4 to 12, the table has 12",
        ),
    ],
)
def test_what_fits_no_parameter_is_refused_by_name(gradients, error, says):
    with pytest.raises(error, match=says):
        pulls.check(gradients, LIKE, "worker 3")


@pytest.mark.parametrize(("name", "bad"), [("x", np.nan), ("y", np.inf)])
def test_what_is_not_finite_is_named(name, bad):
    where = lines(1, slice_bytes=1 << 20)
    good = {"x": np.ones((3, 4)), "y": np.ones(5)}
    pulls.check_finite(pulls.shared_out(where, good), where, "worker 3")
    good[name][2] = bad
    with pytest.raises(Diverged, match=f"worker 3: the gradient of {name} has NaN or infinity"):
        pulls.check_finite(pulls.shared_out(where, good), where, "worker 3")
