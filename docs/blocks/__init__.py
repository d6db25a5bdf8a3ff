"""The blocks of the pages: each a function that gives text; docs/make.py puts it in its place."""

from __future__ import annotations

from collections.abc import Callable

from blocks import (
    checkpoints,
    communication,
    engine,
    generation,
    gpu_kernels,
    gpu_training,
    mixes,
    pipeline,
    pipeline_run,
    project,
    seeing,
    server,
    sharing,
    tensor,
    together,
)

FILES = (
    checkpoints,
    communication,
    engine,
    generation,
    gpu_kernels,
    gpu_training,
    mixes,
    pipeline,
    pipeline_run,
    project,
    seeing,
    server,
    sharing,
    tensor,
    together,
)
BLOCKS: dict[str, Callable[..., str]] = {f.__name__: f for file in FILES for f in file.BLOCKS}
