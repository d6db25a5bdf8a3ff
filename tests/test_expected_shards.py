"""How often a bucket goes, by hand; that it is what is counted is in test_expected.py."""

import pytest

from minipar import cost
from minipar.config import Config
from minipar.expected_shards import owned, times_sent, zero_sent
from minipar.forecast import hollow
from minipar.recipes import find

ONE_CHUNK = ([0, 0, 0], [{0}, {0}], [False, True])
PAIRS = ([1, 1, 0, 0, 1, 1, 0, 0], [{1}, {0}], [False, False])
FOURS = ([1, 1, 1, 1, 0, 0, 0, 0], [{1}, {0}], [False, False])
OVER_BOTH = ([1, 1, 0, 0, 1, 1, 0, 0], [{0, 1}], [True])


@pytest.mark.parametrize(
    ("case", "times"),
    [
        (ONE_CHUNK, [3, 3 + 1]),  # for each micro-batch, and what comes later once more
        (PAIRS, [4, 4]),
        (FOURS, [2, 2 + 1]),  # of micro-batches 0, and 1 to 3; of 0, 1, and at the end 2 and 3
        (OVER_BOTH, [3 + 1]),
    ],
)
def test_a_bucket_waits_for_those_before_it(case, times):
    assert times_sent(*case) == times


@pytest.mark.parametrize("stage", [2, 3])
def test_with_one_chunk_they_are_the_formulas_of_cost(stage):
    """A model whose last stage owns all that it uses: there w is 0."""
    c = Config(model="mlp", d=16, layers=6, block=8, dp=3, pp=2, zero=stage, microbatches=4)
    model = hollow(c, find("mlp").task.load(c)[0])
    formula = {2: cost.zero2_piped_sent, 3: cost.zero3_piped_sent}[stage]
    of_stages = [zero_sent(c, model, at, 1.0).nbytes for at in (0, 1)]
    sizes = [sum(x.data.nbytes for x in owned(c, model, at)) for at in (0, 1)]
    assert of_stages == pytest.approx([formula(3, n, 4) for n in sizes])
