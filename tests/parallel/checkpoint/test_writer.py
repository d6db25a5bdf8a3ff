"""Writing: whatever happens at whichever moment, there is a complete checkpoint."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from minipar.errors import CheckpointError
from minipar.parallel import checkpoint
from minipar.parallel.boxes import Box, whole
from minipar.parallel.checkpoint import writer
from minipar.parallel.checkpoint.writer import Part
from minipar.parallel.held import Held
from tests.jobs import alive, eventually, started


def halves(number):
    """What two ranks write of an array."""
    x = np.full((4, 3), number)
    boxes = Box((0, 0), (2, 3)), Box((2, 0), (4, 3))
    return [[Part("model/x", x.shape, box, x[box.inside(whole(x.shape))])] for box in boxes]


def save(folder, number):
    writer.begin(folder)
    for rank, parts in enumerate(halves(number)):
        writer.write(folder, rank, parts)
    writer.commit(folder, 2, {"step": number})


def numbers(folder):
    arrays, meta = checkpoint.load(folder)
    (number,) = set(arrays["model/x"].reshape(-1).tolist())
    assert meta["step"] == number
    return number


def test_ranks_write_their_parts_and_the_folder_has_no_more(tmp_path):
    save(tmp_path / "c", 1)
    assert numbers(tmp_path / "c") == 1
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert found == ["c/manifest.json", "c/model/x.0-0.npy", "c/model/x.2-0.npy"]
    shards = checkpoint.Checkpoint(tmp_path / "c").arrays["model/x"].shards
    assert [shard.rank for shard in shards] == [0, 1]


def test_there_is_none_before_all_have_left_their_word(tmp_path):
    folder = tmp_path / "step-000001"
    writer.begin(folder)
    first, second = halves(1)
    assert not writer.all_there(folder, 2)
    writer.write(folder, 0, first)
    assert not writer.all_there(folder, 2) and checkpoint.latest(tmp_path) is None
    writer.write(folder, 1, second)
    assert writer.all_there(folder, 2) and checkpoint.latest(tmp_path) is None
    writer.commit(folder, 2, {})
    assert checkpoint.latest(tmp_path) == folder


def test_a_folder_that_not_all_hosts_see_is_said_to_be_one(tmp_path):
    with pytest.raises(CheckpointError, match="on a disk that all hosts see"):
        writer.write(tmp_path / "c", 1, halves(1)[1])
    assert not list(tmp_path.iterdir())


class Crash(Exception):
    """The process is gone: nothing after it happens."""


CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open")


@pytest.mark.parametrize("over", [True, False], ids=["over the same", "beside"])
def test_a_crash_before_any_call_to_the_system_leaves_the_one_before_or_the_new_one(
    tmp_path, monkeypatch, over
):
    """The n-th call does not happen, nor any after it, for every n."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # here nothing is lost but time
    for n in range(1000):
        place = tmp_path / str(n)
        place.mkdir()
        first = place / "step-000001"
        second = first if over else place / "step-000002"
        save(first, 1)
        with monkeypatch.context() as patch:
            crash_after(patch, n)
            try:
                save(second, 2)
                checkpoint.tidy(second)
            except Crash:
                pass
            else:
                break
        found = checkpoint.latest(place)
        assert numbers(found) in (1, 2)
        if second.exists() and not over:
            assert numbers(second) == 2
        save(second, 3)  # what is left does not stand in the way
        checkpoint.tidy(second)
        assert numbers(checkpoint.latest(place)) == 3
        assert all(path.name.isalnum() or path.name[5:].isdigit() for path in place.iterdir())
    assert n > 15 and numbers(second) == 2


def crash_after(patch, n):
    left = [n]

    def counted(call):
        def does(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return call(*args, **kwargs)

        return does

    for name in CALLS:
        patch.setattr(os, name, counted(getattr(os, name)))


def test_a_checkpoint_that_is_removed_is_none_at_once(tmp_path, monkeypatch):
    save(tmp_path / "step-000001", 1)
    monkeypatch.setattr(writer.shutil, "rmtree", lambda *_, **__: None)  # the crash comes before
    writer.remove(tmp_path / "step-000001")
    assert checkpoint.latest(tmp_path) is None


RANKS = """
import sys
import minipar
from tests.parallel.checkpoint.test_writer import save_on
minipar.run(save_on, 2, args=tuple(sys.argv[1:]), backend="process")
"""
WAYS = ("at once", "in the background")


def save_on(group, folder, way):
    """Save for ever: step n has n everywhere; each rank has half, in several files."""
    saver = checkpoint.Saver(group, background=way == WAYS[1])
    saver.after = checkpoint.tidy
    Path(folder, f"pid-{group.rank}").write_text(str(os.getpid()))
    own = np.zeros((16, 25_000), np.float32)
    held = [Held(f"model/{i}", own[i], (50_000,), 25_000 * group.rank) for i in range(len(own))]
    last = checkpoint.latest(folder)
    step = 0 if last is None else checkpoint.step_of(last)
    while True:
        step += 1
        own[...] = step
        saver.save(Path(folder, f"step-{step:06d}"), held, {"step": step})
        Path(folder, "begun").write_text(str(step))


def kill_while_saving(folder, way, draw):
    """Start, wait for a save, kill all ranks at a random moment; the step that was last begun."""
    before = checkpoint.latest(folder)
    command = [sys.executable, "-c", RANKS, str(folder), way]
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as job:
        eventually(lambda: checkpoint.latest(folder) != before, 30)
        time.sleep(draw.uniform(0, 0.1))
        ranks = [int((folder / f"pid-{rank}").read_text()) for rank in range(2)]
        for pid in (*ranks, job.pid):
            os.kill(pid, signal.SIGKILL)
        for pid in ranks:
            eventually(lambda pid=pid: not alive(pid))
    return int((folder / "begun").read_text() or 0)


def survives_kills(folder, way, times):
    """How many of the kills came inside a save."""
    draw, inside = random.Random(times), 0
    for _ in range(times):
        begun = kill_while_saving(folder, way, draw)
        arrays, meta = checkpoint.load(checkpoint.latest(folder))
        assert all((array == meta["step"]).all() for array in arrays.values())
        assert meta["step"] >= begun - (way == WAYS[1])  # there it is complete a save later
        inside += bool(list(folder.glob("*.part")))
    return inside


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_ranks_that_are_killed_at_any_moment_leave_a_checkpoint_that_loads(tmp_path, way):
    """By hand, 50 times each: python -m tests.parallel.checkpoint.test_writer."""
    assert survives_kills(tmp_path, way, 4) > 0


if __name__ == "__main__":
    for way in WAYS:
        with tempfile.TemporaryDirectory() as place:
            n = survives_kills(Path(place), way, 50)
            print(f"{way}: 50 times killed, {n} of them inside a save; the last one always loads")
