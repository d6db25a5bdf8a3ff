"""A few training steps on whatever ranks there are; worker 0 prints the losses and norms.

python in_place.py '{"tp": 2, "steps": 4, ...}'        options of a Config, as JSON
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import minipar
from minipar.config import Config
from minipar.parallel.parameter_server import Roles
from minipar.recipes import find
from minipar.strategies import serve_run
from minipar.training import Trainer

TINY = Config(
    layers=2, d=16, heads=2, block=8, batch=12, steps=5, warmup=2, dropout=0.1, dtype="float64"
)


def numbers(group, config):
    """[loss, norm of the gradient] of each step; None on a server."""
    roles = Roles(group, config.servers) if config.ps != "none" else None
    if roles is not None and roles.is_server:
        train = find(config.model).task.load(config)[0]
        serve_run(config, roles, train, Path(tempfile.mkdtemp()))
        return None
    trainer = Trainer(group, config, roles)
    metrics = [trainer.train_step() for _ in range(config.steps)]
    if roles is not None:
        trainer.strategy.close()
    return [[m["loss"], m["grad_norm"]] for m in metrics]


if __name__ == "__main__":
    world = minipar.init()
    found = numbers(world, replace(TINY, **json.loads(sys.argv[1])))
    if world.rank == 0:
        print(json.dumps(found))
