"""Blocks about the project: examples that are run, a checkpoint, the floors."""

from __future__ import annotations

import runpy
import tempfile
import textwrap
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import minipar
from blocks.text import DOCS, MB, fenced, said


def example(name: str, backend: str, *options: str) -> str:
    """The source of docs/examples/NAME.py, and the answer to it."""
    return f"{source(name)}\n\n{answer(name, backend, *options)}"


def source(name: str) -> str:
    """The source of docs/examples/NAME.py."""
    return fenced((DOCS / "examples" / f"{name}.py").read_text().rstrip(), "python")


def answer(name: str, backend: str, *options: str) -> str:
    """What `minipar run` on 2 ranks says to docs/examples/NAME.py."""
    command = ["run", "-n", "2", "--backend", backend, *options, f"{name}.py"]
    return fenced(f"$ minipar {' '.join(command)}\n{said(command)}")


def script(name: str) -> str:
    """The source of docs/examples/NAME.py, and what plain `python NAME.py` prints."""
    printed = said([f"{name}.py"], program=())
    return f"{source(name)}\n\n{fenced(f'$ python {name}.py' + chr(10) + printed)}"


def own_model_trained() -> str:
    """What the report of the model on the page says on every machine."""
    options = "--backend local --dp 2 --steps 400 --lr 0.05 --dtype float64"
    with tempfile.TemporaryDirectory() as folder:
        command = f"train own_model.py:Rings {options} --out {folder}/run"
        lines = said(command.split()).splitlines()
    return fenced("\n".join(line for line in lines if line.startswith("validation")))


def memory_refused() -> str:
    """What a launcher says that gets too little shared memory (here: a limit of 1 MB)."""
    command = ["run", "-n", "4", "failure.py"]
    return fenced(f"$ ulimit -f 1024; minipar {' '.join(command)}\n{said(command, limit=MB)}")


def floors() -> str:
    """The table of tests/test_floors.py as a picture, the highest floor on top."""
    table = runpy.run_path(str(DOCS.parent / "tests/test_floors.py"))
    lines = []
    for number in range(max(table["FLOORS"].values()), -1, -1):
        here = [name for name, floor in table["FLOORS"].items() if floor == number]
        if number == table["MEETING_FLOOR"] - 1:
            lines.append(f"    {' here the towers meet ':─^86}")
        towers = number < table["MEETING_FLOOR"]
        right = [n for n in here if towers and (n.startswith(("comm.", "cost.")) or n == "events")]
        left = textwrap.wrap(_modules(set(here) - set(right)), 40 if towers else 86)
        rows = zip_longest(left, textwrap.wrap(_modules(right), 46), fillvalue="")
        for n, (a, b) in enumerate(rows):
            lines.append(f"{'' if n else number:>2}  {a:42s}{b}".rstrip())
    lines.append(f"    {'AUTOGRAD TOWER':42s}COMMUNICATION TOWER")
    return fenced("\n".join(lines))


def _modules(names: Iterable[str]) -> str:
    """As paths, packages with a slash; in the text they part at two spaces."""
    root = Path(minipar.__file__).parent
    paths = [name.replace(".", "/") for name in sorted(names)]
    return "  ".join(p + "/" * root.joinpath(p).is_dir() for p in paths)


BLOCKS = (example, source, answer, script, own_model_trained, memory_refused, floors)
