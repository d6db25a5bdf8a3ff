"""Saving and loading, beside NumPy and sha256 alone:  python checkpoint_speed.py 500"""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from minipar.parallel import checkpoint
from minipar.parallel.held import Held

ROUNDS, EACH_MB = 4, 10


def save_plainly(folder, arrays):
    folder.mkdir()
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())
        hashlib.sha256(array).hexdigest()


def load_plainly(folder, arrays):
    for name in arrays:
        arrays[name] = np.load(folder / f"{name}.npy")
        hashlib.sha256(arrays[name]).hexdigest()


def save(folder, arrays):
    checkpoint.save(folder, arrays, {})


def load(folder, arrays):
    checkpoint.Checkpoint(folder).load([Held(name, x, x.shape) for name, x in arrays.items()])


def measured(total_mb, place):
    """Seconds of each, in turns."""
    shape = (EACH_MB * 2**20 // 4 // 64, 64)
    rng = np.random.default_rng(0)
    arrays = {f"x{n}": rng.random(shape, np.float32) for n in range(max(1, total_mb // EACH_MB))}
    model = {name: np.zeros_like(x) for name, x in arrays.items()}
    seconds = {}
    for _ in range(ROUNDS):
        for folder in (place / "plain", place / "ours"):
            shutil.rmtree(folder, ignore_errors=True)
        for does, folder, what in (
            (save_plainly, place / "plain", arrays),
            (save, place / "ours", arrays),
            (load_plainly, place / "plain", dict(arrays)),
            (load, place / "ours", model),
        ):
            os.sync()
            begun = time.perf_counter()
            does(folder, what)
            seconds.setdefault(does.__name__, []).append(time.perf_counter() - begun)
    assert all((model[name] == x).all() for name, x in arrays.items())
    return {name: float(np.median(times)) for name, times in seconds.items()}


if __name__ == "__main__":
    size = int(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=".") as folder:
        s = measured(size, Path(folder))
    for ours, plain in (("save", "save_plainly"), ("load", "load_plainly")):
        print(f"{ours} {size} MB: {s[ours]:.2f} s, {s[ours] / s[plain]:.2f} x {plain}")
