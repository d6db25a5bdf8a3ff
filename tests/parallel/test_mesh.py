"""Each rank's groups along the axes of a grid of ranks."""

import itertools

import numpy as np
import pytest

import minipar
from minipar.comm.group import Group
from minipar.errors import UsageError
from minipar.parallel.mesh import Mesh


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 3, 2), (3, 1, 1), (1, 1, 1)])
def test_a_group_holds_the_ranks_that_differ_only_on_its_axis(sizes):
    """The oracle is NumPy: the ranks as an array of that shape."""
    grid = np.arange(np.prod(sizes)).reshape(sizes)

    def work(group):
        mesh = Mesh(group, *sizes)
        return [(g.world_ranks, g.rank) for g in (mesh.dp, mesh.pp, mesh.tp)], mesh.place(
            group.rank
        )

    found = minipar.run(work, grid.size)
    for place in itertools.product(*map(range, sizes)):
        groups, mine = found[grid[place]]
        assert mine == dict(zip(("dp", "pp", "tp"), place))
        for axis, (ranks, own) in enumerate(groups):
            line = [slice(i, i + 1) for i in place]
            line[axis] = slice(None)
            assert list(ranks) == grid[tuple(line)].reshape(-1).tolist()
            assert own == place[axis]


SETS = [("dp", "tp"), ("pp", "tp"), ("dp", "pp"), ("dp", "pp", "tp"), ("pp",), ()]


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 3, 2), (3, 1, 1)])
def test_a_group_of_several_axes_holds_the_plane_that_they_span(sizes):
    grid = np.arange(np.prod(sizes)).reshape(sizes)

    def work(group):
        mesh = Mesh(group, *sizes)
        return [mesh.group(*axes).world_ranks for axes in SETS]

    found = minipar.run(work, grid.size)
    for place in itertools.product(*map(range, sizes)):
        for axes, ranks in zip(SETS, found[grid[place]]):
            at = [
                slice(None) if axis in axes else slice(i, i + 1)
                for axis, i in zip(("dp", "pp", "tp"), place)
            ]
            assert list(ranks) == grid[tuple(at)].reshape(-1).tolist()


def test_no_group_is_made_twice(monkeypatch):
    made = []
    split = Group.split
    monkeypatch.setattr(
        Group, "split", lambda self, color: made.append(color) or split(self, color)
    )

    def work(group):
        mesh = Mesh(group, dp=2, tp=2)
        count = len(made)
        assert mesh.group("tp", "dp") is mesh.group("dp", "pp", "tp") is group
        assert mesh.group("dp") is mesh.group("dp", "pp") is mesh.dp
        assert mesh.group() is mesh.pp
        assert len(made) == count
        return Mesh(group.split(group.rank), 1).dp.size

    assert minipar.run(work, 4) == [1] * 4
    assert len(made) == 4 * (3 + 1)  # the groups of dp, pp and tp; that of one rank


def test_an_axis_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="there is no axis ep; there are dp, pp, tp"):
        minipar.run(lambda group: Mesh(group).group("dp", "ep"), 1)


def test_a_grid_of_another_number_of_ranks_is_refused():
    with pytest.raises(UsageError, match="dp 2 · pp 1 · tp 2 makes 4 ranks, but there are 3"):
        minipar.run(lambda group: Mesh(group, dp=2, tp=2), 3)


def test_it_prints_who_is_where():
    text = minipar.run(lambda group: str(Mesh(group, dp=2, tp=2)), 4)[2]
    assert text.splitlines()[3].split() == ["2", "1", "0", "0"]
