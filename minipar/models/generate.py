"""Writing text with a model: predict, draw one byte, append it, repeat."""

from __future__ import annotations

from typing import Any

import numpy as np

from minipar.array import to_numpy
from minipar.errors import UsageError
from minipar.random import uniform
from minipar.tensor import no_grad


def generate(
    model: Any,
    prompt: bytes,
    count: int,
    seed: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> bytes:
    """The prompt and `count` bytes more. The same arguments always give the same text.

    model:        model(idx [1, t]) -> logits [1, t, vocab]; sees the last `model.block` bytes.
    temperature:  below 1 is more cautious, 0 always takes the likeliest byte.
    top_k:        only the k likeliest bytes can be drawn.
    """
    if not prompt:
        raise UsageError("generate needs a prompt of at least one byte, for example b'\\n'.")
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise UsageError(f"generate: temperature {temperature} and top_k {top_k} must be positive.")
    text = list(prompt)
    with no_grad():
        for n in range(count):
            idx = np.array([text[-model.block :]])
            logits = to_numpy(model(idx).data)[0, -1].astype(np.float64)
            u = float(uniform(seed, "generate", (1,), step=n)[0])
            text.append(choose(logits, u, temperature, top_k))
    return bytes(text)


def choose(logits: np.ndarray, u: float, temperature: float, top_k: int | None) -> int:
    """The class whose stretch of the cumulative probabilities holds u, a number in [0, 1)."""
    best = np.argsort(-logits, kind="stable")[:top_k]  # likeliest first
    if temperature == 0:
        return int(best[0])
    p = np.exp((logits[best] - logits[best[0]]) / temperature)
    place = np.searchsorted(np.cumsum(p), u * p.sum(), side="right")
    return int(best[min(int(place), len(best) - 1)])
