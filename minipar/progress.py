"""The progress line of a run, and its metrics.jsonl: written by rank 0, step by step."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import IO, Any

import numpy as np

from minipar.config import Config
from minipar.recipes import Task

SHOWN_LOSS = 100  # the training loss that is shown is the mean over so many last steps


class Report:
    """Writes metrics.jsonl and the progress line, on rank 0; on the others it does nothing."""

    def __init__(self, config: Config, task: Task, log: IO[str] | None, first: int) -> None:
        self._config, self._log, self._first = config, log, first
        self._counted, self._items = task.counted, config.batch * task.items(config)
        self._begun = self._shown = time.perf_counter()
        self._last = first
        self._losses: deque[float] = deque(maxlen=SHOWN_LOSS)

    def step(self, metrics: dict[str, Any]) -> None:
        """Record a training step; show it, lastingly every 100 steps."""
        if self._log is None:
            return
        now, done = time.perf_counter(), metrics["step"]
        rate = max(1e-9, done - self._first) / (now - self._begun)
        self._write({**metrics, f"{self._counted}_per_s": round(rate * self._items, 1)})
        self._losses.append(metrics["loss"])
        lasting = done // 100 > self._last // 100 or done >= self._config.steps
        self._last = done
        if lasting or now - self._shown > 0.2:
            self._shown = now
            text = (
                f"loss {np.mean(self._losses):.3f}   {speed(rate * self._items, self._counted)}   "
                f"{_clock((self._config.steps - done) / rate)} left"
            )
            self._show(done, text, "\n" if lasting else "\r")

    def evaluation(self, done: int, found: dict[str, float], costs: dict[str, Any]) -> None:
        """Record and show an evaluation, and what steps have cost so far."""
        if self._log is not None:
            self._write({"step": done, **found, **costs})
            right = f", {found['val_accuracy']:.1%} right" if "val_accuracy" in found else ""
            self._show(done, f"validation loss {found['val_loss']:.3f}{right}", "\n")

    def _show(self, done: int, text: str, end: str) -> None:
        line = f"step {done:5d}/{self._config.steps}   {text}"
        print(line, end=end, file=sys.stderr, flush=True)

    def _write(self, record: dict[str, Any]) -> None:
        assert self._log is not None
        try:
            self._log.write(json.dumps(record) + "\n")
            self._log.flush()
        except OSError:  # a full disk, say; what was not written stays in the buffer
            if self._config.on_save_error == "stop":
                raise


def speed(per_s: float, counted: str) -> str:
    """Such as 18.2k tokens/s."""
    return f"{per_s / 1000:.1f}k {counted}/s" if per_s >= 1000 else f"{per_s:.0f} {counted}/s"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
