"""Writing a text, as a step that can be timed: with a cache, or without one."""

from __future__ import annotations

from typing import Any

from minipar.bench.workloads import Workload
from minipar.models import Reader, generate, write
from minipar.random import Init

PROMPT = b"import n"


class Writing:
    """A GPT that writes; step(*batch(n)) fills its block after the prompt, and returns the text."""

    def __init__(self, work: Workload, cached: bool) -> None:
        model: Any = work.model(Init(), **work.sizes)
        self.model = model
        self.count = model.block - len(PROMPT)
        self.reader = Reader(model) if cached else None

    def batch(self, n: int) -> tuple[bytes, int]:
        return PROMPT, self.count

    def step(self, prompt: bytes, count: int) -> bytes:
        if self.reader is None:
            return generate(self.model, prompt, count, temperature=0)
        return prompt + bytes(write(self.reader, prompt, count, temperature=0))
