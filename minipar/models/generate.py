"""Writing text with a model: predict, draw one byte, append it, repeat.

What is drawn depends on the seed and on the place in the text, and on nothing else: no rank, no
cache, and not where the prompt ends. A text that comes back as a prompt goes on as it would have.
"""

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
    Cost: the whole window goes through the model for each byte. `reader.write` remembers it.
    """
    check_writing(prompt, temperature, top_k)
    text = list(prompt)
    with no_grad():
        for _ in range(count):
            idx = np.array([text[-model.block :]])
            logits = to_numpy(model(idx).data)[0, -1].astype(np.float64)
            text.append(choose(logits, chance(seed, len(text)), temperature, top_k))
    return bytes(text)


def check_writing(prompt: Any, temperature: float, top_k: int | None) -> None:
    """Raises: UsageError."""
    if not len(prompt):
        raise UsageError("generate needs a prompt of at least one byte, for example b'\\n'.")
    if not 0 <= temperature < np.inf:
        raise UsageError(
            "generate: the temperature is a number from 0 (always the likeliest) on, not "
            f"{temperature}."
        )
    if top_k is not None and top_k < 1:
        raise UsageError(f"generate: top_k is how many bytes may be drawn, from 1 on, not {top_k}.")


def chance(seed: int, n: int) -> float:
    """The number in [0, 1) by which token n of a text is drawn."""
    return float(uniform(seed, "generate", (1,), step=n)[0])


def choose(logits: np.ndarray, u: float, temperature: float, top_k: int | None) -> int:
    """The class whose stretch of the cumulative probabilities holds u, a number in [0, 1)."""
    best = np.argsort(-logits, kind="stable")[:top_k]  # likeliest first
    if temperature == 0:
        return int(best[0])
    p = np.exp((logits[best] - logits[best[0]]) / temperature)
    place = np.searchsorted(np.cumsum(p), u * p.sum(), side="right")
    return int(best[min(int(place), len(best) - 1)])
