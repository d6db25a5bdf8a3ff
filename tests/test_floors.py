"""Imports point down: every file stands on a floor and imports only from strictly lower ones."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import minipar

ROOT = Path(minipar.__file__).parent

# Towers: a autograd, c communication, d pure data. They meet only from floor 7 on.
FLOORS = {
    "errors": 0,
    "array": 0,
    "ambient": 0,
    "blocks": 0,
    "cost": 0,
    "events": 1,
    "bench.fit": 1,
    "graph": 1,
    "tensor": 2,
    "random": 1,
    "ops": 3,
    "nn.module": 3,
    "nn.layers": 4,
    "nn.attention": 5,
    "optim": 4,
    "data": 4,
    "comm.frame": 1,
    "comm.byte_ring": 0,
    "comm.control": 0,
    "comm.environment": 0,
    "comm.failure": 1,
    "comm.transport": 2,
    "comm.output": 1,
    "comm.board": 2,
    "comm.wiring": 0,
    "comm.choose": 0,
    "comm.subgroups": 1,
    "comm.reduction": 1,
    "comm.tree": 1,
    "comm.naive": 1,
    "comm.collectives": 2,
    "comm.halving_doubling": 2,
    "comm.algorithms": 3,
    "comm.link": 3,
    "comm.child": 1,
    "comm.deadlock": 3,
    "comm.local": 4,
    "comm.process": 4,
    "comm.streams": 3,
    "comm.group": 4,
    "comm.supervisor": 4,
    "comm.worker": 5,
    "comm.launch": 5,
    "comm.script": 6,
    "parallel.data": 7,
    "parallel.checkpoint": 7,
    "models": 8,
    "testing": 8,
    "trace": 8,
    "config": 9,
    "run_folder": 10,
    "doctor": 9,
    "bench.workloads": 9,
    "bench.comm_worker": 9,
    "bench.comm_table": 9,
    "bench.comm_peers": 10,
    "bench.comm": 11,
    "bench.torch_peer": 10,
    "bench.worker": 11,
    "bench.train": 10,
    "tutorial_files": 9,
    "train": 11,
    "training_job": 12,
    "cli": 13,
}
AUTOGRAD = {"tensor", "graph", "random", "ops", "nn", "optim", "data", "blocks"}
MEETING_FLOOR = 7
FACADES = {"", "ops", "nn", "data", "models", "comm", "parallel", "trace", "testing", "bench"}


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(ROOT)], "minipar.")
    return sorted(m.name.removeprefix("minipar.") for m in found if m.name != "minipar.__main__")


def floor(module: str) -> int:
    """A module's floor, or that of its package; a package of several floors has its highest."""
    inside = [number for name, number in FLOORS.items() if name.startswith(f"{module}.")]
    if inside:
        return max(inside)
    while module not in FLOORS:
        assert "." in module, f"{module} stands on no floor: add it to FLOORS and docs/floors.md"
        module = module.rpartition(".")[0]
    return FLOORS[module]


def imports(module: str) -> set[str]:
    """The minipar modules that a file imports, anywhere in it."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
            found |= {n if is_module(n) else base for n in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {n.removeprefix("minipar.") for n in found if n.startswith("minipar.")}


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def tower(module: str) -> str:
    top = module.split(".")[0]
    return "autograd" if top in AUTOGRAD else "comm" if top == "comm" else ""


@pytest.mark.parametrize("module", [m for m in modules() if m not in FACADES])
def test_a_file_imports_only_from_lower_floors(module):
    for other in imports(module):
        assert floor(other) < floor(module), f"{module} imports {other}"
        if floor(module) < MEETING_FLOOR and tower(other):
            assert tower(other) == tower(module), f"{module} reaches into the other tower: {other}"


def test_the_table_names_only_what_exists():
    known = set(modules())
    assert {name for name in FLOORS if name not in known} == set()


@pytest.mark.parametrize("module", ["", *modules()])
def test_no_module_keeps_mutable_state(module):
    """Only the three context variables of `ambient` change; constants are immutable types."""
    if module == "bench.torch_peer":
        pytest.importorskip("torch")
    loaded = importlib.import_module(f"minipar.{module}".rstrip("."))
    for name, value in vars(loaded).items():
        if not name.startswith("__"):
            assert not isinstance(value, list | dict | set | bytearray), f"{module}.{name}"
