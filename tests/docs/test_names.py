"""The names on docs/names.md exist: minipar's always, the others' where they are installed."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minipar
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.launch import BACKENDS
from minipar.comm.local import LocalWorld
from minipar.comm.local_transport import LocalTransport
from minipar.comm.reduction import reduction_for

PAGE = (Path(__file__).parents[2] / "docs/names.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and "---" not in line]


def column(number: int) -> str:
    """Of the tables that have so many."""
    cells = [row.split("|") for row in ROWS]
    return "\n".join(row[number] for row in cells if len(row) > number)


def test_what_is_called_on_a_group_can_be_called_so() -> None:
    group = minipar.Group(LocalTransport(LocalWorld(1), 0))
    names = re.findall(r"group\.(\w+)(?:\((.*?)\))?`", PAGE)
    assert len(names) > 25
    for name, arguments in names:
        member = getattr(group, name)
        if arguments:
            words = [word.strip() for word in arguments.split(",")]
            given = [word for word in words if "=" not in word]
            named = {word.split("=")[0]: 0 for word in words if "=" in word}
            inspect.signature(member).bind(*given, **named)


def test_every_collective_has_a_row() -> None:
    for op in (*ALGORITHMS, "send", "recv", "isend", "irecv", "sendrecv", "poll", "split"):
        assert f"`group.{op}(" in column(4), op


def test_other_names_of_minipar_exist() -> None:
    for name in re.findall(r"`minipar\.(\w+)|minipar\.(ANY)", PAGE):
        assert hasattr(minipar, name[0] or name[1])
    for name in re.findall(r'backend="(\w+)"', column(4)):
        assert name in BACKENDS
    for name in re.findall(r'op="(\w+)"', column(4)):
        reduction_for("all_reduce", name, minipar.Tensor([1.0]).data)
    for name in re.findall(r'algorithm="(\w+)"', column(4)):
        assert name in ALGORITHMS["all_reduce"]


def test_names_of_torch_exist() -> None:
    dist = pytest.importorskip("torch.distributed")
    for name in set(re.findall(r"`dist\.(\w+)", PAGE)):
        assert hasattr(dist, name), name


def test_names_of_mpi4py_exist() -> None:
    """In a process of its own, since MPI can be imported in only one way."""
    pytest.importorskip("mpi4py")
    names = sorted(set(re.findall(r"`comm\.([A-Z]\w+)", PAGE)))
    code = (
        "import sys, mpi4py; mpi4py.rc.initialize = False\n"  # names need no MPI that runs
        "from mpi4py import MPI\n"
        "sys.exit(', '.join(n for n in sys.argv[1:] if not hasattr(MPI.Intracomm, n)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert not done.stderr.strip(), done.stderr
