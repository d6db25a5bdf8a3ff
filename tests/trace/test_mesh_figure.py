"""A mesh drawn: every rank once, where the mesh says it stands."""

import minipar
from minipar.parallel.mesh import Mesh
from minipar.trace.mesh_figure import draw_mesh


def test_each_rank_has_a_box_where_it_stands(tmp_path):
    figure = draw_mesh(2, 3, 2)
    mesh = minipar.run(lambda group: Mesh(group, dp=2, pp=3, tp=2), 12)[0]
    found = {}
    for replica, axes in enumerate(figure.axes):
        assert axes.get_title() == f"replica {replica}"
        for text in axes.texts:
            if text.get_text():
                x, y = text.get_position()
                found[int(text.get_text().split()[1])] = {"dp": replica, "pp": int(x), "tp": int(y)}
    assert found == {rank: mesh.place(rank) for rank in range(12)}
    figure.savefig(tmp_path / "mesh.png")


def test_an_axis_of_one_rank_is_not_in_the_legend():
    says = [text.get_text() for text in draw_mesh(1, 1, 4).texts]
    assert says == ["tp: in every layer"]
