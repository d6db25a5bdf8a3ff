from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from minipar.trace.show import show


def test_a_script_writes_a_file_and_says_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    show(Figure(), "curve")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == "(figure: curve.png)\n"


def test_a_notebook_gets_an_image(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    shown: list[bytes] = []
    display = SimpleNamespace(display=shown.append, Image=lambda data, retina: data)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    show(Figure(), "curve")
    assert shown[0].startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())
