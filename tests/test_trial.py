"""A row before the ranks start: whether the model can be cut, and where."""

from dataclasses import replace

import pytest

from minipar.config import Config
from minipar.errors import UsageError
from minipar.recipes import build_model, find
from minipar.trial import cuts_of, tried

TINY = Config(model="gpt", data=__file__, layers=4, d=16, heads=2, block=8, batch=4, steps=2)


def trial(**options):
    config = replace(TINY, **options)
    train = find(config.model).task.load(config)[0]
    return tried(config, build_model(config, train), train)


def test_a_part_for_each_stage_and_chunk():
    assert len(trial().kept) == 1
    assert len(trial(pp=2).kept) == 2
    assert len(trial(pp=2, schedule="interleaved", chunks=2).kept) == 4


def test_cuts_are_those_that_the_pipeline_makes():
    model = build_model(TINY)
    assert cuts_of(TINY, model) == [0, 1]
    cuts = cuts_of(replace(TINY, pp=3), model)
    assert len(cuts) == 4 and cuts[0] == 0 and cuts == sorted(set(cuts))


def test_it_takes_time_unless_the_ranks_compute_otherwise():
    assert all(s > 0 for s in trial().seconds)
    assert trial(precision="float16").seconds == [0.0]


def test_ranks_that_share_layers_keep_less():
    (shared,), (whole,) = trial(tp=2).kept, trial().kept
    assert 0 < shared.inside < whole.inside


def test_positions_that_cannot_be_shared_are_named():
    with pytest.raises(UsageError, match="--tp 2: "):
        trial(tp=2, sequence_parallel=True, block=7)
