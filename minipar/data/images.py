"""Images with a class each: the user's MNIST or CIFAR, or digits drawn from fonts.

In memory an image is bytes; a batch of them is made into float32 with mean 0 and variance 1, by the
mean and standard deviation that the training set has in each channel.

Letters: n images, h rows, w columns, c channels, b images of a batch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minipar.data.cifar import PICKLES, kind_of, load_cifar
from minipar.data.glyphs import draw_glyphs
from minipar.data.idx import idx_files, load_idx
from minipar.errors import UsageError


class Images:
    """n images and their classes, given out in batches."""

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        classes: int,
        mean: np.ndarray,
        std: np.ndarray,
    ) -> None:
        """pixels: uint8 [n, h, w, c].  labels: int64 [n].  mean, std: of the pixels, [c]."""
        self.pixels, self.labels, self.classes = pixels, labels, classes
        self.mean, self.std = mean.astype(np.float32), std.astype(np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c)"""
        h, w, c = self.pixels.shape[1:]
        return h, w, c

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x float32 [b, h, w, c], normalised, and y int64 [b]."""
        x = self.pixels[indices].astype(np.float32)
        x -= self.mean
        x /= self.std
        return x, self.labels[indices]


def load_images(
    path: str | Path | None = None, seed: int = 0, train: int = 8000, validation: int = 2000
) -> tuple[Images, Images]:
    """(train, validation)

    path: a folder with the four files of MNIST (or one of these), .gz or not; a folder with the
          files of CIFAR-10 or CIFAR-100 in the binary version, or their .tar.gz. None draws so many
          glyphs from this seed (data.glyphs): about a second.
    Raises: UsageError for what is damaged, missing or something else.
    """
    if path is None:
        train_x, train_y = draw_glyphs("train", train, seed)
        val_x, val_y = draw_glyphs("validation", validation, seed)
        classes = 10
    else:
        train_x, train_y, val_x, val_y, classes = _read(Path(path))
    mean, std = _statistics(train_x)
    return (
        Images(train_x, train_y, classes, mean, std),
        Images(val_x, val_y, classes, mean, std),
    )


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Images and labels for training, those for validation, and how many classes there are."""
    if not path.exists():
        raise UsageError(f"{path} does not exist; pass a folder with MNIST or CIFAR files.")
    if path.is_file() and (".tar" in path.suffixes or path.suffix == ".tgz"):
        return load_cifar(path)
    folder = path if path.is_dir() else path.parent
    if any(idx_files(folder)):
        return load_idx(folder)
    names = {p.name for p in folder.iterdir()}
    if kind_of(names) or names & PICKLES:
        return load_cifar(folder)
    some = ", ".join(sorted(names)[:5]) or "nothing"
    what = "holds" if path == folder else "lies in a folder that holds"
    raise UsageError(
        f"{path} {what} no images that are understood; it has {some}. Expected are the files of "
        "MNIST (train-images-idx3-ubyte, ...) or of CIFAR's binary version (data_batch_1.bin, ...)."
    )


def _statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, exactly: from how often each byte occurs."""
    counts = np.stack(
        [np.bincount(pixels[..., c].reshape(-1), minlength=256) for c in range(pixels.shape[3])]
    )
    share, value = counts / counts.sum(axis=1, keepdims=True), np.arange(256.0)
    mean = share @ value
    std = np.sqrt((share * (value - mean[:, None]) ** 2).sum(axis=1))
    return mean, np.where(std > 0, std, 1.0)  # a channel of one value stays 0
