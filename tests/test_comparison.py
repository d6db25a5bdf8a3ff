"""What a comparison with one rank says, and that a wrong gradient is not the same."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

import minipar
from minipar import comparison
from minipar.comparison import SAME, Differences, differences_to_one_rank, why_not_compared
from minipar.config import Config
from minipar.parallel import checkpoint
from minipar.run_folder import RunFolder
from minipar.training import first_steps_on_one_rank

TINY = Config(
    model="gpt", data=__file__, layers=1, d=8, heads=2, block=8, batch=4, steps=3, warmup=1,
    dtype="float64", backend="local",
)  # fmt: skip


def left_by(folder, weights, norms, config=TINY):
    """The folder of a run that has gone through these first steps."""
    run = RunFolder(folder)
    checkpoint.save(run.first_steps, weights, {"config": asdict(config)})
    lines = (f'{{"step": {n}, "grad_norm": {norm!r}}}\n' for n, norm in enumerate(norms, 1))
    run.metrics_file.write_text("".join(lines))
    return run


@pytest.fixture(scope="module")
def one():
    """Weights and norms of one rank."""
    return minipar.run(first_steps_on_one_rank, 1, args=(TINY,))[0]


def test_the_same_steps_are_the_same(one, tmp_path):
    found = differences_to_one_rank(left_by(tmp_path, *one))
    assert (found.weight, found.grad_norm, found.same) == (0, 0, True)
    assert str(found).startswith("1 rank, twice    the same as one rank: after 3 steps no weight")


def test_a_sum_in_place_of_a_mean_is_seen_by_its_norms(one, tmp_path):
    """Adam takes the factor out of the weights again."""
    weights, norms = one
    found = differences_to_one_rank(left_by(tmp_path, weights, [2 * norm for norm in norms]))
    assert found.weight == 0 and found.grad_norm == pytest.approx(1) and not found.same
    assert "NOT the same as one rank" in str(found)


def test_a_weight_and_a_skipped_step_are_seen(one, tmp_path):
    weights, norms = one
    name = next(iter(weights))
    moved = weights | {name: weights[name] + 1e-6}
    assert differences_to_one_rank(left_by(tmp_path / "a", moved, norms)).weight == pytest.approx(
        1e-6
    )
    assert (
        differences_to_one_rank(left_by(tmp_path / "b", weights, norms[1:])).grad_norm == math.inf
    )


@pytest.mark.parametrize("precision", ["float32", "float64", "float16", "bfloat16"])
def test_what_is_allowed_grows_with_the_rounding(precision):
    config = replace(TINY, dtype=precision) if precision.endswith(("32", "64")) else replace(
        TINY, dtype="float32", precision=precision
    )  # fmt: skip
    limit = SAME[precision]
    assert Differences(config, limit, 0.0).same and not Differences(config, 2 * limit, 0.0).same


def test_what_is_another_algorithm_is_not_compared(one, tmp_path):
    run = left_by(tmp_path, *one)
    assert why_not_compared(TINY, run) is None
    alone = replace(TINY, dp=2, local_steps=4)
    assert "another algorithm" in why_not_compared(alone, run)
    assert comparison.why_not_compared(TINY, left_by(tmp_path / "b", *one, alone)) == (
        "it began in a way that is not compared"
    )
    assert np.isfinite(one[1]).all()
