"""Every way of sharing the work, on the stand-in for CuPy, equals itself on NumPy.

Ranks are threads. A new one gets a line in LAYOUTS, which also says what crosses the bus in a step.
"""

from functools import partial

import numpy as np
import pytest

import minipar
from minipar.array import to_device, to_numpy
from minipar.config import Config
from minipar.device import modules_of
from minipar.models import MLP
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.parallel.data import DataParallel
from minipar.parallel.overlapped import OverlappedDataParallel
from minipar.parallel.sharded import Zero1, Zero2
from minipar.parallel.sharded_parameters import Zero3
from minipar.random import Draw, Init
from minipar.run_folder import RunFolder
from minipar.training import Trainer, train_rank
from tests.strict_cupy import agree, counts

TOKENS = np.arange(48).reshape(6, 8) * 7 % 11
SMALL = {"bucket_bytes": 500}
FORMS = [
    DataParallel,
    partial(BucketedDataParallel, **SMALL),
    partial(OverlappedDataParallel, **SMALL),
    Zero1,
    partial(Zero2, **SMALL),
    Zero3,
]


def train(group, form, xp):
    """The weights after three steps, on uneven rows."""
    model = MLP(Init(0, np.float64, xp=xp), 11, context=3, d=4, hidden=(8, 8))
    parallel = form(model, group, lambda named: AdamW(named, lr=0.1))
    rows = [range(4), range(4, 6)][group.rank] if group.size == 2 else range(6)
    x, y = to_device((TOKENS[rows], np.roll(TOKENS, -1)[rows]), xp)
    for step in range(3):
        parallel.zero_grad()
        parallel.announce(len(rows))
        cross_entropy(model(x, Draw(0, step, rows)), y).backward()
        parallel.sync_gradients(len(rows))
        parallel.clip(0.1)
        parallel.step()
    with parallel.whole():
        assert all(x.grad is None or type(x.grad) is type(x.data) for x in model.parameters())
        return {name: to_numpy(array) for name, array in model.state_dict().items()}


@pytest.mark.parametrize("form", FORMS)
def test_replicas_on_a_device_equal_one_rank_in_host_memory(form, cupy):
    one = minipar.run(train, 1, args=(form, np))[0]
    for state in minipar.run(train, 2, args=(form, cupy)):
        assert all(np.abs(state[name] - one[name]).max() < 1e-12 for name in one)


# -- all of `minipar train` ---------------------------------------------------------------------

TINY = {
    "data": __file__,
    "layers": 2,
    "d": 8,
    "heads": 2,
    "block": 8,
    "batch": 4,
    "steps": 4,
    "warmup": 1,
    "dtype": "float64",
}
REPLICA = {"to_device": 2, "to_host": 2}  # ids and targets; the loss and the norm
BUCKETS = {"to_device": 3, "to_host": 3}  # and the ballot, which comes with the gradients
IDS = {"to_device": 6, "to_host": 3}  # and which ids and targets are this rank's, and count
LAYOUTS = {
    "naive": ({"dp": 2, "bucket_mb": 0}, REPLICA),
    "bucketed": ({"dp": 2}, BUCKETS),
    "overlapped": ({"dp": 2, "overlap": True}, BUCKETS),
    "accumulated": ({"dp": 2, "accumulate": 2}, {"to_device": 5, "to_host": 4}),
    "zero1": ({"dp": 2, "zero": 1}, REPLICA),
    "zero2": ({"dp": 2, "zero": 2}, REPLICA),
    "zero3": ({"dp": 2, "zero": 3}, REPLICA),
    "local SGD": ({"dp": 2, "local_steps": 2}, REPLICA),
    "float16": ({"dp": 2, "compress": "float16"}, REPLICA),
    "int8": ({"dp": 2, "compress": "int8"}, REPLICA),
    "top-k": ({"dp": 2, "compress": "top-k"}, REPLICA),
    "powersgd": ({"dp": 2, "compress": "powersgd"}, REPLICA),
    "tp": ({"tp": 2}, IDS),
    "sequence": ({"tp": 2, "sequence_parallel": True}, IDS),
    "1f1b": ({"pp": 2, "microbatches": 2}, None),
    "recompute": ({"pp": 2, "microbatches": 2, "recompute": True}, None),
    "zero-bubble": ({"pp": 2, "microbatches": 2, "schedule": "zero-bubble"}, None),
    "interleaved": ({"pp": 2, "microbatches": 2, "schedule": "interleaved", "layers": 4}, None),
    "2 x 2 x 2": ({"dp": 2, "tp": 2, "pp": 2, "microbatches": 2}, None),
    "float32": ({"dp": 2, "dtype": "float32"}, BUCKETS),
    "bfloat16": ({"precision": "bfloat16", "dtype": "float32"}, BUCKETS),
    "float16, tp": ({"tp": 2, "precision": "float16", "dtype": "float32"}, None),
}


@pytest.fixture
def gpus(cupy, monkeypatch):
    """Two of them, if they are not real; which rank took which."""
    used, device = [], cupy.cuda.Device
    if hasattr(cupy, "stand_in"):
        use = device.use
        monkeypatch.setattr(cupy.cuda.devices, "count", 2)
        monkeypatch.setattr(device, "use", lambda self: (used.append(self.id), use(self))[1])
    return used


def train_all(group, options):
    """Losses, what is saved, and what crossed the bus in the last step on all ranks together."""
    trainer = Trainer(group, Config(**{**TINY, **options}))
    losses = []
    for _ in range(2):
        group.barrier()
        counts.clear()
        group.barrier()
        losses.append(trainer.train_step()["loss"])
    group.barrier()
    crossed = counts.copy()
    group.barrier()
    losses.append(trainer.evaluate()["val_loss"])
    state = {name: to_numpy(array) for name, array in trainer.strategy.state_dict().items()}
    return losses, trainer.weights() | state, crossed


OFTEN = ("bucketed", "zero3", "tp", "1f1b", "float32", "bfloat16")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in OFTEN else pytest.mark.slow) for n in LAYOUTS]
)
def test_a_layout_trains_the_same_on_the_device(gpus, name):
    options, bus = LAYOUTS[name]
    if options.get("precision") == "bfloat16":
        pytest.importorskip("ml_dtypes")
    ranks = Config(**{**TINY, **options}).ranks
    losses, saved, _ = minipar.run(train_all, ranks, args=(options,))[0]
    there, saved_there, crossed = minipar.run(
        train_all, ranks, args=({**options, "device": "cuda"},)
    )[0]
    exact = "dtype" not in options
    np.testing.assert_allclose(there, losses, rtol=1e-9 if exact else 1e-3)
    assert saved.keys() == saved_there.keys()
    for key, array in saved.items():
        assert saved_there[key].dtype == array.dtype
        tolerance = 1e-9 if exact else 0.02
        np.testing.assert_allclose(saved_there[key], array, rtol=0, atol=tolerance, err_msg=key)
    assert not crossed["waits"]
    if bus is not None:
        assert agree(+crossed, {key: n * ranks for key, n in bus.items()})


SERVERS = {
    "gpt": {"ps": "sync", "prefetch": True},
    "gpt, compressed": {"ps": "async", "workers": 1, "compress": "int8"},
    "wide-deep": {"ps": "sync", "data": None, "optimizer": "adagrad", "dtype": "float32"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_workers_of_servers_train_the_same_on_the_device(gpus, name, tmp_path):
    """Weights and gradients pass through host memory; tables stay there, and rows come."""
    losses = []
    for device in ("cpu", "cuda"):
        options = {**TINY, "model": name.split(",")[0], **SERVERS[name], "device": device}
        config = Config(**{**options, "save_every": 2, "eval_every": 2})
        run = RunFolder.create(config, str(tmp_path / device))
        minipar.run(train_rank, config.ranks, args=(config, str(run.path), False))
        losses.append([m.get("loss", m.get("val_loss")) for m in run.metrics()])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9 if name != "wide-deep" else 1e-4)


def test_ranks_take_gpus_by_their_number_and_share_them(gpus, cupy, capsys):
    if not hasattr(cupy, "stand_in"):
        pytest.skip("the stand-in has two GPUs")
    minipar.run(lambda group: modules_of("cuda", group.rank), 4)
    assert gpus == [0, 1, 0, 1]
    assert capsys.readouterr().err.count("more ranks than GPUs (2)") == 1
