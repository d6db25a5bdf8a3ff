"""Mixed precision against exact training on one rank: how far 16 bits lead astray.

The net of testing/training.py is trained with float32 masters, its rows spread over the ranks, and
compared with one rank that does everything in float64. Each product and each sum is rounded to 8 or
11 bits on the way, so the two come apart by some thousandths; a master that is forgotten, or a
scale that is not divided out, leads much further.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType

from minipar.array import Array
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.mixed import MixedPrecision
from minipar.tensor import Tensor
from minipar.testing import training
from minipar.testing.strategies import Difference
from minipar.testing.training import Case, Net, largest_difference, momentum

CASE = Case("mixed precision, uneven rows", momentum, 13, batch_norm=False)
SCALE = 2.0**10  # of float16: so that no step overflows
TOLERANCES = MappingProxyType({"bfloat16": 2e-2, "float16": 4e-3})


def dtypes() -> list[str]:
    """Those that there are here: bfloat16 comes with ml_dtypes."""
    return [d for d in TOLERANCES if d != "bfloat16" or find_spec("ml_dtypes") is not None]


def difference(p: int, backend: str, dtype: str) -> Difference:
    """Of the weights after all steps, on p ranks of a backend."""
    exact = {n: a for n, a in training.train_alone(CASE).items() if n.startswith("weight ")}
    found = run(train, p, args=(dtype,), backend=backend)
    return Difference(*largest_difference(found, [exact] * p))


def train(group: Group, dtype: str) -> dict[str, Array]:
    """The masters after all steps, on this rank's rows."""
    model = Net(batch_norm=False)
    for x in model.parameters():
        x.data = x.data.astype("float32")
    mixed = MixedPrecision(model, dtype)
    if mixed.scale is not None:
        mixed.scale.scale = SCALE
    strategy = BucketedDataParallel(model, group, mixed.optimizer(CASE.make_optimizer))
    rows = CASE.rows_of(group.rank, group.size)
    for step in range(training.STEPS):
        strategy.zero_grad()
        x, y, draw = training.batch(step, rows)
        loss = training.cross_entropy(model(Tensor(x.data.astype(mixed.dtype)), draw), y)
        (loss * (mixed.scale.scale if mixed.scale else 1.0)).backward()
        strategy.sync_gradients(len(rows))
        training.set_lr(strategy.optimizer, step)
        strategy.step()
    with mixed.full():
        return {f"weight {name}": array for name, array in model.state_dict().items()}
