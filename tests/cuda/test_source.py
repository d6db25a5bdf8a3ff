"""The text of the kernels: it compiles, all of it is used, and its twins take the same."""

import inspect
import re
from pathlib import Path

import pytest

from minipar import cuda
from minipar.cuda.optimizer import SLOT
from minipar.cuda.source import FLOATS, options, source
from tests.cuda.twins import TWINS

HERE = Path(cuda.__file__).parent
FILES = sorted(path.stem for path in HERE.glob("*.cu"))
KERNEL = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\((.*?)\)', re.DOTALL
)


def kernels():
    """{name: the names of its parameters}."""
    found = {}
    for file in FILES:
        for name, parameters in KERNEL.findall(source(file)):
            found[name] = [p.split()[-1].lstrip("*") for p in parameters.split(",")]
    return found


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("number", [number for _, number in FLOATS])
@pytest.mark.parametrize("file", FILES)
def test_it_compiles_without_a_gpu(file, number, width):
    if file == "flash" and (number == "float" or width == 1):
        pytest.skip("of 16 bits and 16 channels only")
    compiler = pytest.importorskip("cupy.cuda.compiler")
    pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    try:
        program = compiler._NVRTCProgram(source(file), f"{file}.cu")
    except RuntimeError as error:  # CuPy is there, NVRTC is not
        pytest.skip(str(error))
    program.compile(("-arch=sm_90", *options(number, width, channels=8 * width)))


def test_every_kernel_has_a_twin_with_the_same_parameters():
    twins = {name: list(inspect.signature(f).parameters)[1:] for name, f in TWINS.items()}
    assert {**twins, "last_sums": twins["column_sums"]} == kernels()


def test_every_kernel_is_launched_by_name():
    text = "".join(path.read_text() for path in HERE.glob("*.py"))
    assert {name for name in kernels() if f'"{name}"' not in text} == set()


def test_the_table_of_parameters_lies_as_its_kernels_read_it():
    (fields,) = re.findall(r"struct Slot {(.*?)};", source("optimizer"))
    assert re.findall(r"(\w+)[,;]", fields) == list(SLOT.names)
    assert SLOT.itemsize == 8 * len(SLOT.names)
