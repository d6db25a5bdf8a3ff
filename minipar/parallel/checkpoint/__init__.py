"""Checkpoints: written by all ranks, read in any layout; see docs/checkpoints.md.

manifest.py   what there is, which file holds which part, and hashes
files.py      .npy files, hashed while they are written and when they are first read
reader.py     whichever boxes somebody needs
writer.py     how there is always a complete one
plan.py       who writes what
saver.py      all ranks together, at once or in the background
folder.py     names: the last one, the one of step 500
"""

from minipar.parallel.checkpoint.folder import (
    find,
    latest,
    load,
    save,
    save_step,
    step_folder,
    step_of,
    steps,
    tidy,
)
from minipar.parallel.checkpoint.reader import Checkpoint
from minipar.parallel.checkpoint.saver import Saver

__all__ = [
    "Checkpoint", "Saver", "find", "latest", "load", "save", "save_step", "step_folder", "step_of",
    "steps", "tidy",
]  # fmt: skip
