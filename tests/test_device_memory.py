"""Memory of GPUs: asked for by another process, and refused by what it says."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from minipar import forecast as forecasts
from minipar.config import Config
from minipar.device_memory import Free, free_memory, taken_bytes
from minipar.forecast import allowed_bytes, forecast
from minipar.recipes import find


def test_what_another_process_says():
    assert free_memory("print(1000, 2)") == Free(1000, 2)
    assert free_memory("raise ImportError('no cupy')") is None
    assert free_memory("print('what?')") is None


def test_ranks_of_a_gpu_share_what_it_has_free(monkeypatch):
    config = replace(Config(), device="cuda", dp=3)
    monkeypatch.setattr(forecasts, "free_memory", lambda: Free(8 << 30, 2))
    assert allowed_bytes(config) == (4 << 30, "8.0 GB are free on the GPU, for 2 of the ranks")
    monkeypatch.setattr(forecasts, "free_memory", lambda: None)
    assert allowed_bytes(config) == (None, "")


def test_python_is_not_on_the_gpu():
    train = find("gpt").task.load(Config())[0]
    (need,) = forecast(replace(Config(), device="cuda"), train)
    assert need.python == 0 and need.all > 0


def test_what_a_process_has_taken():
    pool = SimpleNamespace(total_bytes=lambda: 77)
    assert taken_bytes(SimpleNamespace(get_default_memory_pool=lambda: pool)) == 77
    assert taken_bytes(np) is None
