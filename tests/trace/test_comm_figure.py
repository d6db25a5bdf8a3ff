"""The figure of communication: that its dots and lines are the rows."""

import pytest

from minipar.trace.comm_figure import COLOURS, GREY, draw_comm

FIT = {
    "alpha_s": 1e-5, "beta_s_per_byte": 1e-10, "gamma_s_per_byte": 5e-11, "relative_error": 0.1,
    "ranks": 2, "cores": 4,
}  # fmt: skip


def row(op, algorithm, nbytes, seconds, backend="process"):
    return {"op": op, "algorithm": algorithm, "bytes": nbytes, "seconds": seconds,
            "backend": backend, "ranks": 2}  # fmt: skip


def rows():
    return [
        {"fit": FIT},
        row("all_reduce", "ring", 8, 3e-5),
        row("all_reduce", "ring", 2**20, 3e-4),
        row("all_reduce", "native", 8, 1e-6, backend="openmpi"),
        row("broadcast", "tree", 8, 2e-5),
        row("broadcast", "tree", 64, None),  # a note
        row("barrier", "tree", 0, 2e-5),  # has no bytes
    ]


def drawn(axes, colour):
    return [tuple(map(tuple, line.get_data())) for line in axes.lines if line.get_color() == colour]


def test_dots_are_measured_and_lines_predicted():
    figure = draw_comm(rows())
    reduced, broadcast = figure.axes
    assert (reduced.get_title(), broadcast.get_title()) == ("all_reduce", "broadcast")
    dots, line = drawn(reduced, COLOURS["ring"])
    assert dots == ((8, 2**20), (3e-5, 3e-4))
    assert line[0][0] == 8 and line[0][-1] == pytest.approx(2**20)
    assert line[1][-1] == pytest.approx(2e-5 + 2**20 * 1e-10 + 2**19 * 5e-11)  # ring, 2 ranks
    assert ((8,), (1e-6,)) in drawn(reduced, GREY)
    assert drawn(broadcast, COLOURS["tree"])[0] == ((8,), (2e-5,))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["tree", "ring", "openmpi"]
    assert "2 ranks on 4 cores" in figure.get_suptitle()
    assert "10 µs a message" in figure.get_suptitle() and "10 GB/s sent" in figure.get_suptitle()


def test_without_a_fit_there_are_dots_only(tmp_path):
    figure = draw_comm(rows()[1:])
    assert len(drawn(figure.axes[0], COLOURS["ring"])) == 1
    draw_comm([]).savefig(tmp_path / "empty.png")
