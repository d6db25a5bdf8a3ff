r"""Which ranks are servers and which are workers.

    world     0   1   2   3   4   5
              └── workers ──┘ └servers┘        Roles(world, servers=2)

Workers come first, so worker w is rank w of the world, and that is the number in every message.
"""

from __future__ import annotations

from minipar.comm.group import Group
from minipar.errors import UsageError


class Roles:
    """The part of each rank of `world`.  Collective, unless this rank was started again.

    worker, server:   the own number, None on the others.
    workers, servers: the group of the own kind, None on the others and on a restarted rank.
    """

    def __init__(self, world: Group, servers: int = 1) -> None:
        if not 0 < servers < world.size:
            raise UsageError(
                f"Roles: {servers} of {world.size} ranks cannot be servers; at least one must be, "
                "and at least one rank is left to work."
            )
        self.world = world
        self.worker_ranks = range(world.size - servers)
        self.server_ranks = range(world.size - servers, world.size)
        self.is_server = world.rank in self.server_ranks
        self.worker = None if self.is_server else world.rank
        self.server = world.rank - self.server_ranks.start if self.is_server else None
        own: Group | None = None
        if not restarted(world):  # the others split when they began, and will not again
            own = world.split(int(self.is_server))
        self.used = False  # whether a run has begun with them
        self.workers: Group | None = None if self.is_server else own
        self.servers: Group | None = own if self.is_server else None

    def check(self) -> None:
        """Before a run.  Raises: UsageError if another one has begun with these roles."""
        if self.used:
            raise UsageError(
                "these Roles have been used by another run, whose server may still be busy. Make "
                "new ones for each: Roles(world, servers=...), on all ranks."
            )


def restarted(world: Group) -> bool:
    """Whether this rank was lost before, and runs again under the same number."""
    return getattr(world, "incarnation", 0) > 0
