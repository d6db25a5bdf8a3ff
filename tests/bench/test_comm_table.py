"""The table of `bench comm`: that each number stands in its column."""

from minipar.bench.comm_table import lines

FIT = {
    "alpha_s": 12.5e-6, "beta_s_per_byte": 1e-10, "gamma_s_per_byte": 5e-11, "cores": 4,
    "relative_error": 0.25, "ranks": 2, "rounds": 5, "memory": "private",
    "versions": ["a 1", "b 2"],
}  # fmt: skip


def row(**given):
    nothing = dict.fromkeys(("algorithm", "seconds", "bus_gb_s", "predicted_seconds", "ratio"))
    return nothing | {"note": None} | given


def test_each_row_is_a_line_as_soon_as_it_is_there():
    came = []

    def rows():
        for each in (
            row(backend="gloo", op=None, bytes=None, note="torch is not installed"),
            {"fit": FIT},
            row(backend="process", op="all_reduce", bytes=1536, algorithm="ring", seconds=12.34e-6,
                bus_gb_s=0.1245, predicted_seconds=1.5e-3, ratio={"openmpi": 1.234}),
            row(backend="openmpi", op="all_reduce", bytes=3 * 2**20, algorithm="native",
                seconds=2.0, bus_gb_s=0.5),
            row(backend="openmpi", op="barrier", bytes=0, algorithm="native",
                note="RuntimeError: no"),
        ):  # fmt: skip
            came.append(each)
            yield each

    table = lines(rows())
    assert next(table) == "gloo: torch is not installed" and len(came) == 1
    assert next(table) == "2 ranks on 4 cores; median of 5 rounds in turn; a 1, b 2; private memory"
    assert next(table) == (
        "fitted: α = 12.5 µs a message, β = 1/(10 GB/s) sent, γ = 1/(20 GB/s) added, to within 25%"
    )
    head, mine, peer, note = table
    assert head.endswith("predicted   × gloo  × openmpi")
    assert mine.split()[:5] == ["all_reduce", "1.5", "KB", "process", "ring"]
    assert mine.split()[5:] == ["12.3", "µs", "0.124", "1.5", "ms", "1.2"]
    assert mine.index("1.2", 80) > head.index("× openmpi")  # and not in the column of gloo
    assert peer.split() == ["all_reduce", "3", "MB", "openmpi", "native", "2", "s", "0.5"]
    assert note.split(maxsplit=5) == ["barrier", "0", "B", "openmpi", "native", "RuntimeError: no"]
