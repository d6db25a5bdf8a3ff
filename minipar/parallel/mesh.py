"""Who stands where: the ranks of a job as a grid with an axis for each way of sharing the work.

    Mesh(world, dp=2, pp=2, tp=2)            world rank = (dp · 2 + pp) · 2 + tp

              pp 0            pp 1
    dp 0    tp 0  1         tp 2  3          tp group: ranks that share each layer
    dp 1    tp 4  5         tp 6  7          pp group: 0 2, 1 3, 4 6, 5 7: a pipeline
                                             dp group: 0 4, 1 5, 2 6, 3 7: replicas

A strategy gets the group of the axis it works along, and knows nothing of the others. tp stands
innermost, because its ranks talk most, several times in each layer, and neighbours in number are
neighbours in the machine. pp talks once for each micro-batch and stage, dp once in a step.

Paper: Shoeybi et al. 2019, section 3; Narayanan et al. 2021, section 3.1.
"""

from __future__ import annotations

import math

from minipar.comm.group import Group
from minipar.errors import UsageError

AXES = ("dp", "pp", "tp")  # from the outermost to the innermost


class Mesh:
    """mesh.dp, mesh.pp and mesh.tp are this rank's groups along the axes."""

    def __init__(self, world: Group, dp: int = 1, pp: int = 1, tp: int = 1) -> None:
        """Collective: all ranks of world call this.

        Raises: UsageError if dp · pp · tp is not the number of ranks.
        Cost:   a split for each axis of more than one rank.
        """
        self.world, self.sizes = world, {"dp": dp, "pp": pp, "tp": tp}
        if min(self.sizes.values()) < 1 or math.prod(self.sizes.values()) != world.size:
            asked = " · ".join(f"{axis} {n}" for axis, n in self.sizes.items())
            raise UsageError(
                f"Mesh: {asked} makes {dp * pp * tp} ranks, but there are {world.size}."
            )
        self.dp, self.pp, self.tp = (self._along(axis) for axis in AXES)

    def place(self, world_rank: int) -> dict[str, int]:
        """Where a rank stands on each axis."""
        found = {}
        for axis in reversed(AXES):
            world_rank, found[axis] = divmod(world_rank, self.sizes[axis])
        return found

    def _along(self, axis: str) -> Group:
        """The group of the ranks that differ from this one on no other axis."""
        mine = self.place(self.world.rank)
        color = 0
        for other in AXES:
            if other != axis:
                color = color * self.sizes[other] + mine[other]
        group = self.world.split(color)
        assert group is not None
        return group

    def __str__(self) -> str:
        """A line for each rank: its number, and its place on each axis."""
        lines = ["rank" + "".join(f"{axis:>5s}" for axis in AXES)]
        for rank in range(self.world.size):
            place = self.place(rank)
            lines.append(f"{rank:4d}" + "".join(f"{place[axis]:5d}" for axis in AXES))
        return "\n".join(lines)
