"""Show a figure wherever the code runs, without ever waiting for somebody to close a window."""

from __future__ import annotations

import sys
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figure: Figure, name: str) -> None:
    """In a notebook the figure appears below the cell; elsewhere it is written to NAME.png in the
    working folder, and a line says so."""
    if "ipykernel" in sys.modules:
        png = BytesIO()
        figure.savefig(png)
        jupyter = import_module("IPython.display")
        jupyter.display(jupyter.Image(png.getvalue(), retina=True))
    else:
        path = Path(f"{name}.png")
        figure.savefig(path)
        print(f"(figure: {path})")
