"""Fixtures of more than one test file, and which tests need a GPU.

Marked `gpu`:  needs CuPy and a device that it can use; marked `nccl`: NCCL as well. Elsewhere they
are skipped, and the reason says what is missing.
--device cuda: tests of the stand-in for CuPy take CuPy itself; the stand-in counts nothing then.
"""

import compileall
import functools
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from minipar.cli import main
from tests import strict_cupy

ROOT = Path(__file__).parents[1]


def pytest_configure(config):
    """Compile once what every process of a test imports. Each does it for itself where Python is
    told to write no bytecode, as in many a container: half of what the start of a rank takes.
    """
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):  # before xdist's workers
        compileall.compile_dir(ROOT / "minipar", quiet=2)
        compileall.compile_dir(ROOT / "tests", quiet=2)


def pytest_addoption(parser):
    text = "what `cupy` is in tests: a stand-in that needs no GPU, or (cuda) CuPy itself"
    parser.addoption("--device", choices=["stand-in", "cuda"], default="stand-in", help=text)


def pytest_runtest_setup(item):
    for needs, missing in (("gpu", missing_for_gpu), ("nccl", missing_for_nccl)):
        if item.get_closest_marker(needs) and missing():
            pytest.skip(missing())


@functools.cache
def missing_for_gpu():
    """What keeps tests from using a GPU; nothing if all is there. Asked late: it starts CUDA."""
    try:
        import cupy
    except ImportError as error:
        return f"needs a GPU: {error}"
    if not cupy.is_available():
        return "needs a GPU: CuPy finds no device that it can use"
    return ""


@functools.cache
def missing_for_nccl():
    if missing_for_gpu():
        return missing_for_gpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where the library is missing
        from cupy.cuda import nccl
    return "" if nccl.available else "needs NCCL: CuPy does not find libnccl.so.2"


@pytest.fixture
def cupy(request, monkeypatch):
    """The stand-in for CuPy, where `import cupy` finds it; what it counts begins at nothing."""
    strict_cupy.counts.clear()
    if request.config.getoption("device") == "cuda":
        if missing_for_gpu():
            pytest.skip(missing_for_gpu())
        return pytest.importorskip("cupy")
    module = strict_cupy.module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def command_line(capsys):
    """`minipar ...` in this process, which takes milliseconds: its exit code and what it says."""

    def command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(arguments)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, end.value.code, said.out, said.err)

    return command
