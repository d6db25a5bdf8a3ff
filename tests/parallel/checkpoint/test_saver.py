"""All ranks together: who fails, fails for all; in the background, too, and later."""

import threading
import time

import numpy as np
import pytest

import minipar
from minipar.errors import CheckpointError
from minipar.parallel import checkpoint
from minipar.parallel.checkpoint import Checkpoint, Saver, writer
from minipar.parallel.held import Held

BOTH = pytest.mark.parametrize("background", [False, True])


def held_by(group, value):
    """A flat half of x, and y and the steps, which both have."""
    x, y = np.full(6, float(value)), np.full(3, float(value))
    steps = Held("optimizer/step", np.asarray(value), (), equal=False)
    return [Held("model/x", x, (4, 3), 6 * group.rank), Held("model/y", y, (3,)), steps]


def save_and_change(group, folder, background):
    saver = Saver(group, background)
    held = held_by(group, 1)
    for step in (1, 2):
        for h in held:
            h.array[...] = step
        saver.save(folder / f"step-{step:06d}", held, {"step": step})
        for h in held:
            h.array[...] = -1  # what comes after the save is not in it
    saver.wait()


@BOTH
@pytest.mark.parametrize("backend", ["local", "process"])
def test_each_rank_writes_its_part_of_one_checkpoint(tmp_path, background, backend):
    minipar.run(save_and_change, 2, args=(tmp_path, background), backend=backend)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-000001", "step-000002"]
    for step, path in enumerate(checkpoint.steps(tmp_path), 1):
        arrays, meta = checkpoint.load(path)
        assert meta == {"step": step}
        assert arrays["model/x"].tolist() == [[step] * 3] * 4
        assert arrays["model/y"].tolist() == [step] * 3 and arrays["optimizer/step"] == step
    writers = {s.rank for e in Checkpoint(path).arrays.values() for s in e.shards}
    assert writers == {0, 1}
    assert not list(tmp_path.glob("*.part"))


def test_training_goes_on_while_a_thread_writes(tmp_path, monkeypatch):
    go_on, write = threading.Event(), writer.write

    def slow(*args):
        assert go_on.wait(10)
        write(*args)

    monkeypatch.setattr(writer, "write", slow)
    saver = Saver(None, background=True)
    saver.save(tmp_path / "c", [Held("x", np.ones(3), (3,))], {})
    assert not (tmp_path / "c").exists()
    go_on.set()
    saver.wait()
    assert checkpoint.load(tmp_path / "c")[0]["x"].tolist() == [1, 1, 1]
    saver.wait()  # there is nothing more to wait for


def one_fails(group, folder, background, which):
    saver, found = Saver(group, background), []

    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    for step in (1, 2, 3):
        with pytest.MonkeyPatch.context() as patch:
            if step == 2 and group.rank == which:
                patch.setattr(writer.files, "write", full)
            try:
                saver.save(folder / f"step-{step:06d}", held_by(group, step), {"step": step})
                saver.wait()
            except CheckpointError as error:
                found.append(str(error))
    return found


@BOTH
@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_that_cannot_write_says_so_on_all_and_the_last_one_stays(
    tmp_path, background, which
):
    """On processes, so that one rank's files can fail alone."""
    args = (tmp_path, background, which)
    one, other = minipar.run(one_fails, 2, args=args, backend="process")
    assert one == other and len(one) == 1
    assert "step-000002 cannot be written: [Errno 28] No space left on device" in one[0]
    assert f"(rank {which}). The last checkpoint is as it was." in one[0]
    assert [checkpoint.step_of(path) for path in checkpoint.steps(tmp_path)] == [1, 3]
    assert not list(tmp_path.glob("*.part"))


def test_an_error_in_the_background_comes_with_the_next_save(tmp_path, monkeypatch):
    saver = Saver(None, background=True)
    monkeypatch.setattr(writer, "commit", lambda *_: 1 / 0)
    saver.save(tmp_path / "c", [Held("x", np.ones(3), (3,))], {})
    with pytest.raises(CheckpointError, match="division by zero"):
        saver.save(tmp_path / "d", [Held("x", np.ones(3), (3,))], {})
    saver.wait()  # it is said once
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_lets_go_of_what_is_under_way(tmp_path):
    saver = Saver(None, background=True)
    saver.ranks = 2  # and the other one will never write
    before = threading.active_count()
    saver.save(tmp_path / "c", [Held("x", np.ones(3), (3,))], {})
    begun = time.monotonic()
    saver.abandon()
    assert threading.active_count() == before and time.monotonic() - begun < 5
    assert not (tmp_path / "c").exists()


@pytest.fixture
def saved(tmp_path):
    minipar.run(save_and_change, 2, args=(tmp_path, False))
    return tmp_path / "step-000002"


def load(group, folder, more=()):
    held = [*held_by(group, 9), *(Held(name, np.zeros(2), (2,)) for name in more)]
    Saver(group).load(Checkpoint(folder), held)
    return [h.array.reshape(-1).tolist() for h in held]


def test_another_number_of_ranks_reads_it(saved):
    x = [2.0] * 6
    assert minipar.run(load, 2, args=(saved,)) == [[x, [2.0] * 3, [2]]] * 2
    shapes = {"model/x": (4, 3), "model/y": (3,), "optimizer/step": ()}
    whole = [Held(name, np.zeros(shape), shape) for name, shape in shapes.items()]
    whole[-1] = whole[-1]._replace(array=np.asarray(0))
    Saver(None).load(Checkpoint(saved), whole)
    assert all((h.array == 2).all() for h in whole)


def test_another_model_is_refused(saved):
    with pytest.raises(CheckpointError, match="has no model/z, which this model has"):
        minipar.run(load, 2, args=(saved, ["model/z"]))
    x = np.zeros((4, 3))
    with pytest.raises(CheckpointError, match="has model/y, which this model has not"):
        Saver(None).load(Checkpoint(saved), [Held("model/x", x, (4, 3))])
    assert not x.any()
