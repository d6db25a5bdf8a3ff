"""Who stands where: the ranks of a job as a grid with an axis for each way of sharing the work.

    Mesh(world, dp=2, pp=2, tp=2)            world rank = (dp · 2 + pp) · 2 + tp

              pp 0            pp 1
    dp 0    tp 0  1         tp 2  3          tp group: ranks that share each layer
    dp 1    tp 4  5         tp 6  7          pp group: 0 2, 1 3, 4 6, 5 7: a pipeline
                                             dp group: 0 4, 1 5, 2 6, 3 7: replicas

A strategy gets the group of the axis it works along, and knows nothing of the others. What is
summed over several axes at once, such as the norm of slices, gets the group of a set of axes:
mesh.group("dp", "tp") are the ranks 0 1 4 5 of one stage, and 2 3 6 7 of the other. tp stands
innermost, because its ranks talk most, several times in each layer, and neighbours in number are
neighbours in the machine. pp talks once for each micro-batch and stage, dp once in a step.

Paper: Shoeybi et al. 2019, section 3; Narayanan et al. 2021, section 3.1.
"""

from __future__ import annotations

import math

from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.spans import name_group

AXES = ("dp", "pp", "tp")  # from the outermost to the innermost


class Mesh:
    """mesh.dp, mesh.pp and mesh.tp are this rank's groups along the axes."""

    def __init__(self, world: Group, dp: int = 1, pp: int = 1, tp: int = 1) -> None:
        """Collective: all ranks of world call this.

        Raises: UsageError if dp · pp · tp is not the number of ranks.
        Cost:   a split for each axis of several ranks, unless it is the only one.
        """
        self.world, self.sizes = world, {"dp": dp, "pp": pp, "tp": tp}
        if min(self.sizes.values()) < 1 or math.prod(self.sizes.values()) != world.size:
            asked = " · ".join(f"{axis} {n}" for axis, n in self.sizes.items())
            raise UsageError(
                f"Mesh: {asked} makes {dp * pp * tp} ranks, but there are {world.size}."
            )
        self._groups: dict[tuple[str, ...], Group] = {}
        self.dp, self.pp, self.tp = (self.group(axis) for axis in AXES)
        for axis in AXES:
            name_group(self.group(axis), axis)
            if self.sizes[axis] > 1:
                self.group(axis).lies_along(axis)

    def group(self, *axes: str) -> Group:
        """The ranks that differ from this one on these axes only, in the order of the world.

        Collective where it is new: all ranks ask for the same sets of axes, in the same order. A
        set is made once, whatever the order of its names; an axis of one rank adds nothing to it;
        all axes of several ranks are the world itself.
        """
        if unknown := set(axes) - set(AXES):
            raise UsageError(f"Mesh: there is no axis {min(unknown)}; there are {', '.join(AXES)}.")
        long = [axis for axis in AXES if self.sizes[axis] > 1]
        key = tuple(axis for axis in long if axis in axes)
        if key not in self._groups:
            self._groups[key] = self.world if key == tuple(long) else self._along(key)
        return self._groups[key]

    def place(self, world_rank: int) -> dict[str, int]:
        """Where a rank stands on each axis."""
        found = {}
        for axis in reversed(AXES):
            world_rank, found[axis] = divmod(world_rank, self.sizes[axis])
        return found

    def _along(self, axes: tuple[str, ...]) -> Group:
        mine = self.place(self.world.rank)
        color = 0
        for other in AXES:
            if other not in axes:
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
