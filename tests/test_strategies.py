"""Every way of sharing the work in the one training loop, against one rank, saved and resumed."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar.config import Config
from minipar.config import check as check_config
from minipar.parallel import checkpoint
from minipar.parallel.parameter_server import Roles
from minipar.parallel.parameter_server.lines import Line
from minipar.recipes import build_model, find
from minipar.refusals import check
from minipar.run_folder import RunFolder
from minipar.strategies import (
    make_optimizer,
    make_strategy,
    serve_run,
    why_not_like_one_rank,
)
from minipar.training import Trainer, alone, train_rank

TINY = Config(
    layers=2, d=16, heads=2, block=8, batch=12, steps=8, warmup=2, eval_every=0, save_every=0,
    eval_batches=2, dropout=0.1, dtype="float64", data=__file__,  # a text with a short epoch
)  # fmt: skip
WAYS = {
    "one by one": {"bucket_mb": 0.0},
    "bucketed": {"bucket_mb": 0.01},
    "overlapped": {"bucket_mb": 0.01, "overlap": True},
    "zero1": {"zero": 1},
    "zero2": {"zero": 2},
    "zero3": {"zero": 3},
}
PIPELINES = {
    "1f1b": {"pp": 2, "microbatches": 5},
    "gpipe, recomputed": {"pp": 3, "schedule": "gpipe", "microbatches": 4, "recompute": True},
    "zero-bubble, two pipelines": {"pp": 2, "dp": 2, "schedule": "zero-bubble", "microbatches": 3},
    "interleaved, by time": {"pp": 2, "schedule": "interleaved", "balance": "time"},
    "stages that are sharded": {"pp": 2, "dp": 2, "zero": 1, "microbatches": 2},
}
SHARED_LAYERS = {
    "tensor": {"tp": 2},
    "tensor, data, overlapped": {"tp": 2, "dp": 2, "overlap": True, "bucket_mb": 0.01},
    "sequence": {"tp": 2, "sequence_parallel": True, "accumulate": 2},
    "all three": {"tp": 2, "pp": 2, "dp": 2, "microbatches": 3},
    "all, and the rest": {
        "tp": 2,
        "pp": 2,
        "dp": 2,
        "microbatches": 4,
        "schedule": "zero-bubble",
        "sequence_parallel": True,
        "recompute": True,
    },
}

LAYOUTS = {
    "one rank": {},
    "2 x 2 x 2": {"tp": 2, "pp": 2, "dp": 2, "microbatches": 2},
    "dp 4": {"dp": 4},
    "tp 2": {"tp": 2},
    "tp 4, in sequence": {"tp": 4, "sequence_parallel": True},
    "zero 1": {"dp": 2, "zero": 1},
    "zero 2": {"dp": 4, "zero": 2},
    "zero 3": {"dp": 3, "zero": 3},
    "pp 4": {"pp": 4, "microbatches": 4},
    "pp 2, zero 1": {"pp": 2, "dp": 2, "zero": 1, "microbatches": 2},
    "2 x 2 x 2, zero 3": {"pp": 2, "dp": 2, "tp": 2, "zero": 3, "microbatches": 2},
    "tp 2, zero 2": {"tp": 2, "dp": 2, "zero": 2},
    "local sgd": {"dp": 2, "local_steps": 2},
}


def steps(group, config):
    trainer = Trainer(group, config)
    metrics = [trainer.train_step() for _ in range(config.steps)]
    found = [[m["loss"], m["grad_norm"]] for m in metrics]
    state = trainer.strategy.state_dict()
    return np.array(found), trainer.weights() | state, trainer.evaluate()["val_loss"]


@pytest.fixture(scope="module")
def one_rank():
    return minipar.run(steps, 1, args=(alone(TINY),))[0]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_the_loop_gives_the_numbers_of_one_rank(one_rank, way, accumulate):
    config = replace(TINY, dp=1 + accumulate, accumulate=accumulate, **WAYS[way])
    like_one_rank(config, one_rank)


@pytest.mark.parametrize("way", PIPELINES)
def test_pipelines_give_them_too(one_rank, way):
    like_one_rank(replace(TINY, **PIPELINES[way]), one_rank)


@pytest.mark.parametrize("way", SHARED_LAYERS)
def test_shared_layers_give_them_too(one_rank, way):
    like_one_rank(replace(TINY, **SHARED_LAYERS[way]), one_rank)


SERVED = {
    "sync": {"ps": "sync"},
    "sync, two servers": {"ps": "sync", "workers": 3, "servers": 2, "accumulate": 2},
    "ssp(0), prefetched": {"ps": "ssp", "staleness": 0, "prefetch": True},
}


def served(group, config, folder):
    roles = Roles(group, config.servers)
    if roles.is_server:
        serve_run(config, roles, find(config.model).task.load(config)[0], folder)
        return None
    trainer = Trainer(group, config, roles)
    metrics = [trainer.train_step() for _ in range(config.steps)]
    found = [[m["loss"], m["grad_norm"]] for m in metrics]
    state = trainer.strategy.state_dict()
    answer = np.array(found), trainer.weights() | state, trainer.evaluate()["val_loss"]
    trainer.strategy.close()
    return answer


@pytest.mark.parametrize("way", SERVED)
def test_servers_that_wait_for_all_give_them_too(one_rank, way, tmp_path):
    config = replace(TINY, **SERVED[way])
    check_config(config)
    check(config)
    found = minipar.run(served, config.ranks, args=(config, tmp_path))
    compare(found[: config.workers], one_rank)
    assert found[config.workers :] == [None] * config.servers
    report = json.loads((tmp_path / "server-0.json").read_text())
    assert report["applied"] == config.workers * config.steps
    assert report["staleness"] == {"0": report["applied"]}


CLICKS = Config(
    model="wide-deep", ps="async", workers=2, batch=64, steps=40, warmup=2, layers=1, d=8,
    optimizer="adagrad", lr=0.05, weight_decay=0.0, eval_every=0, save_every=0,
)  # fmt: skip


def clicks(group, config, folder):
    """A worker's losses, and the bytes of all its tables."""
    roles = Roles(group, config.servers)
    if roles.is_server:
        serve_run(config, roles, find(config.model).task.load(config)[0], folder)
        return None
    trainer = Trainer(group, config, roles)
    losses = [trainer.train_step()["loss"] for _ in range(config.steps)]
    tables = trainer.strategy.tables.values()
    assert all(len(table.ids) <= 5 * config.batch for table in tables)
    trainer.strategy.close()
    size = sum(math.prod(table.shape) * table.dtype.itemsize for table in tables)
    return losses, size


def test_wide_and_deep_trains_with_tables_that_no_worker_holds(tmp_path):
    *workers, _ = minipar.run(clicks, CLICKS.ranks, args=(CLICKS, tmp_path))
    report = json.loads((tmp_path / "server-0.json").read_text())
    moved = (report["bytes_in"] + report["bytes_out"]) / report["applied"]
    for losses, size in workers:
        assert np.mean(losses[-10:]) < np.mean(losses[:5]) - 0.05
        assert moved < size / 50


def test_a_step_with_tables_is_one_question_to_each_server(tmp_path, monkeypatch):
    asked, ask = [], Line.ask
    monkeypatch.setattr(Line, "ask", lambda line, *a, **k: asked.append(line) or ask(line, *a, **k))
    config = replace(CLICKS, steps=5, workers=1, servers=2, accumulate=2)

    def questions(group):
        roles = Roles(group, config.servers)
        if roles.is_server:
            return serve_run(config, roles, find(config.model).task.load(config)[0], tmp_path)
        trainer = Trainer(group, config, roles)
        before = len(asked)
        for _ in range(config.steps):
            trainer.train_step()
        between = len(asked) - before
        trainer.strategy.close()
        return between

    assert minipar.run(questions, config.ranks)[0] == config.steps * config.servers


def test_all_workers_see_the_old_weights_before_a_resumed_run_replaces_them(tmp_path):
    """Worker 1 took the new ones for the old ones, so that only worker 0 had changed any."""
    config = replace(TINY, ps="sync", workers=2, steps=2)

    def rank(group, run, resume):
        roles = Roles(group, config.servers)
        if roles.is_server:
            return serve_run(config, roles, find(config.model).task.load(config)[0], run.servers)
        trainer = Trainer(group, config, roles)
        if not resume:
            for _ in range(config.steps):
                trainer.train_step()
            trainer.save(run)
        else:
            whole = trainer.strategy.whole
            if roles.worker == 1:
                trainer.strategy.whole = lambda: late(group, whole)
            trainer.restore(run)
        weights = trainer.weights()
        trainer.strategy.close()
        return weights

    def late(group, whole):
        for _ in range(2000):  # worker 0 has all these turns
            group.poll()
        return whole()

    run = RunFolder(tmp_path)
    saved, again = (minipar.run(rank, 3, args=(run, resume)) for resume in (False, True))
    for worker in again[:2]:
        for name, array in saved[0].items():
            np.testing.assert_array_equal(worker[name], array)


def like_one_rank(config, one_rank):
    check_config(config)
    check(config)
    compare(minipar.run(steps, config.ranks, args=(config,)), one_rank)


def compare(ranks, one_rank):
    for found, arrays, val_loss in ranks:
        np.testing.assert_allclose(found, one_rank[0], rtol=1e-10)
        assert arrays.keys() == one_rank[1].keys()
        for name, array in arrays.items():
            np.testing.assert_allclose(array, one_rank[1][name], atol=1e-10, err_msg=name)
        assert val_loss == pytest.approx(one_rank[2], rel=1e-10)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"dp": 2, "zero": 3}, {"dp": 3}),
        ({"pp": 3}, {"dp": 2, "zero": 2}),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ({"dp": 2, "overlap": True}, {"dp": 3, "zero": 2}),
                ({"pp": 2, "dp": 2, "zero": 1}, {"pp": 3, "schedule": "gpipe"}),
                ({"tp": 2, "pp": 2}, {"tp": 2, "sequence_parallel": True}),
                ({"dp": 2, "zero": 3, "heads": 4}, {"tp": 4, "heads": 4}),
                (LAYOUTS["2 x 2 x 2"], LAYOUTS["zero 3"] | {"save_in_background": True}),
            )
        ),
    ],
)
def test_a_checkpoint_of_one_way_is_gone_on_with_in_another(tmp_path, before, after):
    losses = []
    for name, second in (("whole", before), ("part", after)):
        path = tmp_path / name
        path.mkdir()
        first = replace(TINY, save_every=4, **before)
        minipar.run(train_rank, first.ranks, args=(replace(first, steps=4), str(path), False))
        config = replace(TINY, save_every=4, **second)
        minipar.run(train_rank, config.ranks, args=(config, str(path), True))
        losses.append([m["loss"] for m in RunFolder(path).metrics() if "loss" in m])
    assert len(losses[0]) == 8
    np.testing.assert_allclose(losses[1][4:], losses[0][4:], rtol=1e-10)


def train_and_save(group, config, folder):
    trainer = Trainer(group, config)
    for _ in range(3):
        trainer.train_step()
    trainer.save(RunFolder(folder))
    trainer.saved()


def read_and_save(group, config, source, folder):
    """What this layout makes of a checkpoint, and where each rank stands then."""
    trainer = Trainer(group, replace(config, save_in_background=True))
    trainer.restore_from(source)
    lent = {}
    if config.pp > 1 and config.tp == 1:  # what a stage has borrowed, before `whole` renews it
        borrowed = trainer.strategy.pipeline.stage.borrowed
        lent = {f"model/{name}": x.data.copy() for name, x in borrowed.items()}
    trainer.save(RunFolder(folder))
    trainer.saved()
    with trainer.strategy.whole() as model:  # what the ranks compute with is what they save
        weights = {f"model/{name}": array for name, array in model.state_dict().items()}
    return trainer.done, trainer.strategy.optimizer.steps, weights | lent


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2 x 2 x 2", "one rank"),
        ("one rank", "dp 4"),
        ("tp 2", "tp 4, in sequence"),
        ("zero 1", "zero 3"),
        ("pp 4", "pp 2, zero 1"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ("one rank", "2 x 2 x 2"),
                ("2 x 2 x 2, zero 3", "tp 2, zero 2"),
                ("tp 2, zero 2", "2 x 2 x 2, zero 3"),
                ("pp 4", "2 x 2 x 2, zero 3"),
                ("zero 3", "tp 2"),
                ("pp 2, zero 1", "zero 2"),
                ("zero 2", "pp 4"),
                ("tp 4, in sequence", "zero 1"),
                ("local sgd", "2 x 2 x 2"),
            )
        ),
    ],
)
def test_any_layout_reads_the_same_bits_that_any_other_has_written(tmp_path, before, after):
    first, second = (replace(TINY, heads=4, d=16, **LAYOUTS[way]) for way in (before, after))
    minipar.run(train_and_save, first.ranks, args=(first, tmp_path / "first"))
    source = RunFolder(tmp_path / "first").latest_checkpoint()
    args = second, source, tmp_path / "second"
    found = minipar.run(read_and_save, second.ranks, args=args)
    (wanted, meta), (arrays, _) = map(
        checkpoint.load, (source, RunFolder(tmp_path / "second").latest_checkpoint())
    )
    assert meta["step"] == 3 and {name.split("/")[0] for name in wanted} == {"model", "optimizer"}
    assert arrays.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes(), name
    for done, steps, weights in found:
        assert (done, steps) == (3, 3)
        assert all(array.tobytes() == wanted[name].tobytes() for name, array in weights.items())
    shards = [s for e in checkpoint.Checkpoint(source).arrays.values() for s in e.shards]
    assert {shard.rank for shard in shards} == set(range(first.ranks))  # each its own part


def test_local_sgd_is_evaluated_with_the_mean_of_its_replicas():
    config = replace(TINY, dp=2, local_steps=3, steps=4)
    (one, other) = minipar.run(steps, 2, args=(config,))
    assert one[2] == other[2]
    assert all((one[1][name] == other[1][name]).all() for name in one[1])


@pytest.mark.parametrize("compress", ["float16", "int8", "top-k", "powersgd"])
def test_compressed_gradients_train_too(compress):
    config = replace(TINY, dp=2, compress=compress, lr=1e-2, steps=12)
    (one, other) = minipar.run(steps, 2, args=(config,))
    assert all((one[1][name] == other[1][name]).all() for name in one[1])
    assert one[0][-1, 0] < one[0][0, 0]


@pytest.mark.parametrize(
    "way",
    [
        {"tp": 2, "dp": 2, "compress": "powersgd"},
        {"tp": 2, "dp": 2, "compress": "int8", "d": 32},  # narrower ones would agree by luck
        {"tp": 2, "dp": 2, "compress": "top-k"},
        {"tp": 2, "dp": 2, "local_steps": 2},
        {"pp": 2, "dp": 2, "compress": "int8", "microbatches": 2},
    ],
)
def test_inexact_ways_leave_one_model_behind_in_any_mix(way):
    config = replace(TINY, steps=4, **way)
    first, *others = minipar.run(steps, config.ranks, args=(config,))
    for other in others:
        assert all((other[1][name] == array).all() for name, array in first[1].items())


def test_what_one_rank_would_not_compute_is_not_compared():
    def why(**changes):
        config = replace(TINY, **changes)
        return why_not_like_one_rank(config, build_model(config, Images))

    assert why(accumulate=2) is None and why(zero=3) is None
    assert "another algorithm" in why(local_steps=2)
    assert why(ps="sync") is None and "by itself" in why(ps="ssp")
    assert "rounds" in why(compress="int8")
    assert "batch norm" in why(model="resnet", accumulate=2)
    assert why(model="resnet") is None


class Images:
    """What a model asks of image data."""

    shape, classes = (8, 8, 1), 10


def test_every_way_is_a_class_of_its_own():
    made = minipar.run(
        lambda group: [
            type(make_strategy(c, build_model(c), group, make_optimizer(c))).__name__
            for c in (replace(TINY, **options) for options in WAYS.values())
        ],
        1,
    )[0]
    assert made == [
        *("DataParallel", "BucketedDataParallel", "OverlappedDataParallel"),
        *("Zero1", "Zero2", "Zero3"),
    ]
