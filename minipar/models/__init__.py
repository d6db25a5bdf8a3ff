"""Models to train: the same call, `model(idx [b, t], draw) -> logits [b, t, vocab]`, for all."""

from __future__ import annotations

from minipar.models.generate import generate
from minipar.models.gpt import GPT
from minipar.models.mlp import MLP

__all__ = ("GPT", "MLP", "generate")
