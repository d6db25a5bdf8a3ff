"""Whether a run has begun as one rank would: its first steps again, on one rank, and compared."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from minipar.config import Config
from minipar.parallel import checkpoint
from minipar.ranks import on_ranks, ranks_in_words
from minipar.recipes import build_model
from minipar.run_folder import RunFolder
from minipar.strategies import why_not_like_one_rank
from minipar.training import FIRST_STEPS, alone, first_steps_on_one_rank

# How far weights may be apart after FIRST_STEPS. Rounding grows with the rate: resnet, which begins
# with steps of 0.5, comes to 1e-4 in float32; a wrong gradient comes to 1e-2.
SAME = MappingProxyType({"float32": 1e-3, "float64": 1e-10, "float16": 1e-2, "bfloat16": 5e-2})


class Differences(NamedTuple):
    """How far the first steps of a run are from the same steps on one rank."""

    config: Config  # of the first steps; a resumed run may have changed since
    weight: float  # the largest difference of any weight after them
    grad_norm: float  # the largest relative difference of a gradient norm on the way

    @property
    def same(self) -> bool:
        return max(self.weight, self.grad_norm) <= SAME[self.config.computes_in]

    def __str__(self) -> str:
        c, limit = self.config, SAME[self.config.computes_in]
        ranks = "1 rank, twice" if c.ranks == 1 else ranks_in_words(c.ranks)
        steps = min(FIRST_STEPS, c.steps)
        if self.same:
            return (
                f"{ranks:16s} the same as one rank: after {steps} steps no weight differs by more "
                f"than {self.weight:.1e}\n{'':16s} (and on the way no gradient norm by more than "
                f"{self.grad_norm:.1e} of itself)"
            )
        return (
            f"{ranks:16s} NOT the same as one rank: after {steps} steps a weight differs by "
            f"{self.weight:.1e},\n{'':16s} on the way a gradient norm by {self.grad_norm:.1e} of "
            f"itself (allowed: {limit:.0e})"
        )


def differences_to_one_rank(run: RunFolder) -> Differences:
    """Go through the first steps again, on one rank, and compare.

    Weights alone would not show gradients that are too large by a factor (a sum in place of a mean,
    say): clipping and Adam take the factor out again.
    """
    mine, meta = checkpoint.load(run.first_steps)
    config = Config(**meta["config"])
    theirs, norms_of_one = on_ranks(first_steps_on_one_rank, alone(config), (), None)[0]
    norms = [m["grad_norm"] for m in run.metrics() if "grad_norm" in m][: len(norms_of_one)]
    weight = max(float(np.abs(mine[name] - theirs[name]).max(initial=0)) for name in mine)
    if len(norms) != len(norms_of_one):  # other steps were skipped
        return Differences(config, weight, math.inf)
    return Differences(config, weight, float(np.abs(np.divide(norms, norms_of_one) - 1).max()))


def why_not_compared(config: Config, run: RunFolder) -> str | None:
    """What keeps this run, or its first steps, from being like one rank; None: nothing."""
    model = build_model(config)
    if why := why_not_like_one_rank(config, model):
        return why
    if run.first_steps.exists():
        begun = Config(**checkpoint.load(run.first_steps)[1]["config"])
        if why_not_like_one_rank(begun, model) is None:
            return None
    return "it began in a way that is not compared"
