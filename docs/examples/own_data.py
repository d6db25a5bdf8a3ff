"""A data set of your own: an object with a length and a `batch`."""

import tempfile
from pathlib import Path

import numpy as np

from minipar.data import Sampler


class Stored:
    """Rows of two .npy files, which stay on the disk until a batch asks for them."""

    def __init__(self, folder):
        self.x = np.load(Path(folder, "x.npy"), mmap_mode="r")
        self.y = np.load(Path(folder, "y.npy"), mmap_mode="r")

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        """x float32 [b, 3] and y int64 [b]."""
        return self.x[indices].astype(np.float32), self.y[indices].astype(np.int64)


with tempfile.TemporaryDirectory() as folder:
    np.save(Path(folder, "x.npy"), np.arange(30).reshape(10, 3))
    np.save(Path(folder, "y.npy"), np.arange(10) % 2)
    data = Stored(folder)
    sampler = Sampler(len(data), batch=4, seed=0)
    for rank in range(2):
        x, y = data.batch(sampler.indices(step=0, rank=rank, ranks=2))
        print(f"rank {rank} of 2: x {x.tolist()}, y {y.tolist()}")
