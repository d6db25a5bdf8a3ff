"""Any mix of dp, pp, tp, ZeRO, schedules and the rest trains, and resumes, as one rank would."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import minipar
from minipar.config import Config
from minipar.config import check as check_config
from minipar.refusals import check
from minipar.run_folder import RunFolder
from minipar.training import Trainer, alone

TINY = Config(
    layers=2, d=8, heads=2, block=4, batch=8, steps=10, warmup=2, lr=1e-2, clip=0.5, dropout=0.1,
    dtype="float64", bucket_mb=0.002, eval_every=0, save_every=0, eval_batches=1, data=__file__,
)  # fmt: skip


def numbers(group, config):
    """The loss and the norm of the gradient in each step."""
    trainer = Trainer(group, config)
    found = [trainer.train_step() for _ in range(config.steps)]
    return np.array([[m["loss"], m["grad_norm"]] for m in found])


@cache
def of_one_rank(steps):
    return minipar.run(numbers, 1, args=(replace(alone(TINY), steps=steps),))[0]


# -- pairs --------------------------------------------------------------------------------------

FACTORS = {
    "axes": [("dp", "tp"), ("dp", "pp"), ("dp", "pp", "tp"), ("pp", "tp")],
    "way": [*({"zero": z} for z in range(4)), {"overlap": True}],
    "schedule": ["1f1b", "gpipe", "interleaved", "zero-bubble"],
    "sequence_parallel": [False, True],
    "recompute": [False, True],
    "micros": [2, 4],
}


def means_something(axes, schedule, sequence_parallel, recompute, **others):
    """Only pipelines have schedules and recomputation, only tensor parallel has sequences."""
    pipelined = "pp" in axes or (schedule == "1f1b" and not recompute)
    return pipelined and ("tp" in axes or not sequence_parallel)


def pairs_of(row):
    return set(itertools.combinations(enumerate(row), 2))


def pairwise():
    """Rows of FACTORS so that each pair of values that can be is in one; always the best row next.

    Values are their numbers here, which can be kept in sets.
    """
    values = list(FACTORS.values())
    rows = [
        row
        for row in itertools.product(*(range(len(v)) for v in values))
        if means_something(**dict(zip(FACTORS, map(list.__getitem__, values, row))))
    ]
    left, chosen = set().union(*map(pairs_of, rows)), []
    while left:
        chosen.append(max(rows, key=lambda row: len(pairs_of(row) & left)))
        left -= pairs_of(chosen[-1])
    return [dict(zip(FACTORS, map(list.__getitem__, values, row))) for row in chosen]


def config_of(axes, way, micros, **others):
    in_parts = {"microbatches" if "pp" in axes else "accumulate": micros}
    return replace(TINY, **dict.fromkeys(axes, 2), **way, **in_parts, **others)


def named(row):
    said = [" x ".join(row["axes"]), *(f"{k} {v}" for k, v in row["way"].items()), row["schedule"]]
    said += [name for name in ("sequence_parallel", "recompute") if row[name]]
    return ", ".join([*said, f"{row['micros']} parts"])


@pytest.mark.parametrize("row", pairwise(), ids=named)
def test_each_pair_equals_one_rank(row):
    config = replace(config_of(**row), steps=3)
    check_config(config)
    check(config)
    for found in minipar.run(numbers, config.ranks, args=(config,)):
        np.testing.assert_allclose(found, of_one_rank(3), rtol=1e-9)


def test_the_rows_hold_every_pair():
    rows = pairwise()
    assert len(rows) < 30
    for way, schedule in itertools.product(FACTORS["way"], FACTORS["schedule"]):
        assert any(row["way"] == way and row["schedule"] == schedule for row in rows)


# -- eight ranks, saved in the middle and gone on with in another layout --------------------------

EIGHT = {"dp": 2, "pp": 2, "tp": 2, "microbatches": 2}
ELSEWHERE = [  # for each stage of ZeRO, where the second half is trained
    {"dp": 4, "zero": 2},
    {"dp": 2, "tp": 2, "zero": 3, "sequence_parallel": True},
    {"dp": 2, "pp": 2, "zero": 3, "microbatches": 2, "schedule": "zero-bubble"},
    {"tp": 2, "pp": 2, "microbatches": 2, "schedule": "gpipe", "recompute": True},
]
OF_EIGHT = [  # the same, on all of them
    {"dp": 4, "tp": 2, "zero": 2},
    {"dp": 8, "zero": 3},
    {"dp": 4, "pp": 2, "zero": 3, "microbatches": 2, "schedule": "zero-bubble"},
    {"dp": 2, "pp": 4, "microbatches": 2, "schedule": "gpipe", "recompute": True},
]


def everything(group, config, path, resume):
    """Train, and save in the middle; or go on from there. Losses and norms, weights and state."""
    trainer, run = Trainer(group, config), RunFolder(path)
    if resume:
        trainer.restore(run)
    found = []
    while trainer.step < config.steps:
        found.append(trainer.train_step())
        if trainer.step == config.steps // 2:
            trainer.save(run)
    arrays = trainer.weights() | trainer.strategy.state_dict()
    return np.array([[m["loss"], m["grad_norm"]] for m in found]), arrays


def compare(ranks, one_rank):
    for found, arrays in ranks:
        np.testing.assert_allclose(found, one_rank[0][-len(found) :], rtol=0, atol=1e-9)
        assert arrays.keys() == one_rank[1].keys()
        for name, array in arrays.items():
            np.testing.assert_allclose(array, one_rank[1][name], rtol=0, atol=1e-9, err_msg=name)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("alone"))
    return minipar.run(everything, 1, args=(alone(TINY), path, False))[0]


def checked(**changes):
    config = replace(TINY, **changes)
    check_config(config)
    check(config)
    return config


@pytest.mark.parametrize("zero", [3, *(pytest.param(z, marks=pytest.mark.slow) for z in range(3))])
def test_eight_ranks_equal_one_and_another_layout_goes_on(one_rank, tmp_path, zero):
    for changes, resume in ((EIGHT | {"zero": zero}, False), (ELSEWHERE[zero], True)):
        config = checked(**changes)
        args = (config, str(tmp_path), resume)
        compare(minipar.run(everything, config.ranks, args=args), one_rank)


def in_turn(group, works):
    return [everything(group, *work) for work in works]


@pytest.mark.slow
def test_eight_processes_equal_one_and_other_layouts_go_on(one_rank, tmp_path):
    works = [
        (checked(**changes, backend="process"), str(tmp_path / str(zero)), resume)
        for zero in range(4)
        for changes, resume in ((EIGHT | {"zero": zero}, False), (OF_EIGHT[zero], True))
    ]
    ranks = minipar.run(in_turn, 8, args=(works,), backend="process")
    for found in zip(*ranks, strict=True):
        compare(found, one_rank)


# -- masters in slices --------------------------------------------------------------------------

HALF = replace(TINY, dtype="float32", precision="bfloat16")


@pytest.fixture
def bfloat16():
    pytest.importorskip("ml_dtypes")


def begin_and_train(group, options):
    """The masters at the beginning, and after some steps with the optimizer's state; how many."""
    trainer = Trainer(group, replace(HALF, **options))
    first = trainer.weights()
    for _ in range(3):
        trainer.train_step()
    loss = trainer.evaluate()["val_loss"]  # computed with what they are rounded to
    optimizers = trainer.member.mixed.optimizers
    held = sum(m.data.size for o in optimizers for _, m in o.pairs())
    return first, trainer.weights(), trainer.strategy.state_dict(), {"loss": np.array(loss)}, held


@pytest.mark.parametrize("axes", [{}, {"tp": 2}])
def test_zero_cuts_the_masters_and_gives_the_bits_of_replicas(bfloat16, axes):
    ranks = 2 * axes.get("tp", 1)
    options = {**axes, "dp": 2}
    *wanted, all_of_them = minipar.run(begin_and_train, ranks, args=(options,))[0]
    for zero in (1, 2, 3):
        held = 0
        for *found, own in minipar.run(begin_and_train, ranks, args=({**options, "zero": zero},)):
            for mine, right in zip(found, wanted, strict=True):
                assert mine.keys() == right.keys()
                assert all((mine[name] == right[name]).all() for name in right)
            held += own
        assert held == all_of_them * axes.get("tp", 1)  # on two replicas together


SLICED = [
    {"dp": 2, "zero": 1},
    {"dp": 2, "tp": 2, "zero": 3},
    {"dp": 2, "pp": 2, "microbatches": 2, "zero": 2},
    {"dp": 2, "pp": 2, "microbatches": 2, "zero": 3, "schedule": "zero-bubble"},
]


@pytest.mark.parametrize("layout", SLICED)
def test_masters_in_slices_are_saved_and_loaded_to_the_bit(bfloat16, tmp_path, layout):
    def work(group, options, save):
        trainer = Trainer(group, replace(HALF, **options))
        if save:
            trainer.train_step()
            trainer.save(RunFolder(tmp_path))
        else:
            trainer.restore(RunFolder(tmp_path))
        before = trainer.weights() | trainer.strategy.state_dict()
        return before, trainer.train_step()["loss"]

    ranks = 4 if len(layout) > 2 else 2
    (saved, loss), *_ = minipar.run(work, ranks, args=(layout, True))
    for options in ({}, layout):
        for loaded, again in minipar.run(work, ranks if options else 1, args=(options, False)):
            assert loaded.keys() == saved.keys()
            assert all((loaded[name] == saved[name]).all() for name in saved)
            assert again == pytest.approx(loss, rel=1e-2)
