"""The array module follows the arrays; CuPy is played by a stand-in."""

import sys
from types import ModuleType

import numpy as np
import pytest

from minipar.array import array_module, describe, is_array, to_numpy


class OnTheGpu:
    """As much of a cupy.ndarray as these functions ask for."""

    def get(self):
        return np.arange(3)


@pytest.fixture
def cupy(monkeypatch):
    module = ModuleType("cupy")
    module.ndarray = OnTheGpu
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_the_module_of_the_arrays(cupy):
    assert array_module(np.zeros(1)) is np
    assert array_module(OnTheGpu()) is cupy
    assert array_module(np.zeros(1), OnTheGpu()) is cupy


def test_what_is_an_array(cupy):
    assert is_array(np.zeros(1)) and is_array(OnTheGpu())
    assert not any(map(is_array, ([1.0], 1.0, np.float64(1), None)))


def test_without_cupy(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert array_module(np.zeros(1)) is np and not is_array(OnTheGpu())


def test_to_host_memory(cupy):
    x = np.zeros(2)
    assert to_numpy(x) is x
    assert to_numpy(OnTheGpu()).tolist() == [0, 1, 2]


def test_how_messages_print_an_array():
    assert describe(np.zeros((4, 512), np.float32)) == "float32[4, 512]"
    assert describe(np.zeros((), bool)) == "bool[]"
