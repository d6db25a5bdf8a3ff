"""What NCCL knows: the codes are those of its header, and what it lacks is not asked of it."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from minipar.comm.nccl import library
from minipar.errors import UsageError


@pytest.mark.parametrize(
    ("x", "count", "code"),
    [
        (np.zeros(3, "f4"), 3, 7),
        (np.zeros((2, 2), "f8"), 4, 8),
        (np.zeros(3, "?"), 3, 1),
        (np.zeros(3, "u8"), 3, 5),
        (np.zeros(3, "c8"), 6, 7),
        (np.zeros(3, "c16"), 6, 8),
    ],
)
def test_arrays_as_numbers(x, count, code):
    assert library.as_numbers(x) == (count, code)


def test_bfloat16_goes_by_its_name():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert library.as_numbers(np.zeros(3, ml_dtypes.bfloat16)) == (3, 9)


def test_what_it_cannot_combine():
    assert not library.can_combine("int16", np.add)
    assert not library.can_combine("complex64", np.multiply)
    assert library.can_combine("complex64", np.add) and library.can_combine("bool", np.maximum)


def test_functions_are_known_by_numpys_name(cupy):
    assert cupy.add.__name__ == "cupy_add" and library.function_name(cupy.add) == "add"
    assert library.function_name(np.minimum) == "minimum"


def test_the_codes_are_cupys():
    nccl = pytest.importorskip("cupy.cuda.nccl")
    if not nccl.available:
        pytest.skip("there is no NCCL")
    names = {"bool": "UINT8", "uint8": "UINT8", "bfloat16": "BFLOAT16"}
    for name, code in library.CODES.items():
        assert getattr(nccl, f"NCCL_{names.get(name, name.upper())}") == code
    theirs = {"add": "SUM", "multiply": "PROD", "maximum": "MAX", "minimum": "MIN"}
    for name, code in library.OPS.items():
        assert getattr(nccl, f"NCCL_{theirs[name]}") == code


@pytest.mark.parametrize("there", [True, False])
def test_without_it_it_is_told_how_to_get_it(there, monkeypatch):
    cuda = ModuleType("cupy.cuda")
    if there:
        cuda.nccl = SimpleNamespace(available=False)
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    monkeypatch.delitem(sys.modules, "cupy.cuda.nccl", raising=False)
    with pytest.raises(UsageError, match="pip install nvidia-nccl-cu13"):
        library.load()
