"""minipar: parallel training by hand, from autograd to collectives, small enough to read.

    import minipar

    def work(group):                                  # runs on every rank
        return group.all_reduce(np.full(3, group.rank))

    minipar.run(work, ranks=4)                        # four ranks in this process
    minipar.train("gpt", dp=2, steps=300)             # what `minipar train gpt` does

The public names are those below; everything else is imported from its own module:
`minipar.ops`, `minipar.nn`, `minipar.optim`, `minipar.models`, `minipar.parallel`, ...
"""

from typing import Any

from minipar import ops  # gives Tensor its operators
from minipar.checks import checks
from minipar.comm.cluster import Cluster
from minipar.comm.group import Group
from minipar.comm.launch import run
from minipar.comm.transport import ANY
from minipar.comm.world import init
from minipar.random import Draw, Init
from minipar.recompute import checkpoint
from minipar.tensor import Tensor, no_grad, record

__version__ = "0.1.0"
__all__ = (
    "ANY", "Cluster", "Draw", "Group", "Init", "Tensor", "checkpoint", "checks", "init", "no_grad",
    "ops", "record", "run", "train",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """`train` comes when it is asked for: it needs more than all the others."""
    if name == "train":
        from minipar.training_job import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
