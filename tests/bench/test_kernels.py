"""The bench of the kernels, with their twins in NumPy and without a clock."""

import json
import sys
from functools import partial

import pytest

from minipar.bench import kernels
from minipar.bench.kernel_cases import Sizes
from minipar.cli import main
from tests.cuda import twins

SMALL = Sizes(b=2, t=20, h=2, c=8, v=50, many=2, square=16, numbers=100)


@pytest.fixture
def small(monkeypatch):
    """On small arrays; each call is made once, and takes a millisecond."""
    twins.module(monkeypatch)
    monkeypatch.setattr(kernels, "check", lambda: None)
    monkeypatch.setattr(kernels, "machine", lambda torch: {"device": "a stand-in"})
    monkeypatch.setattr(kernels, "FLOATS", ("float32", "tf32"))
    monkeypatch.setattr(kernels.cuda, "use_tf32", lambda on: None)
    monkeypatch.setattr(kernels, "_seconds", lambda f: (f(), 1e-3)[1])
    monkeypatch.setattr(kernels, "bench_kernels", partial(kernels.bench_kernels, sizes=SMALL))


def exit_code(*arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


def test_it_goes_through_all_kernels(small, capsys):
    assert exit_code("bench", "kernels", "--against", "", "--json") == 0
    found, *rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == {"device": "a stand-in"}
    of = {name: {row["kernel"] for row in rows if row["float"] == name} for name in kernels.FLOATS}
    assert of["float32"] < of["tf32"] and len(of["tf32"]) == 16
    copy = next(row for row in rows if row["kernel"] == "copy")
    assert copy["rate"] == pytest.approx(2 * 4 * SMALL.numbers / 1e-3 / 1e9)
    assert copy["of_copy"] == 1 and copy["torch_ms"] is None


def test_its_rows_for_people(small, capsys):
    assert exit_code("bench", "kernels", "--against", "") == 0
    assert "% of a copy" in capsys.readouterr().out


def test_without_cupy_it_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert exit_code("bench", "kernels", "--against", "") == 2
    said = capsys.readouterr().err
    assert said.startswith("minipar: bench kernels: ") and "minipar doctor" in said
