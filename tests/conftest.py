"""Fixtures of more than one test file."""

import sys

import pytest

from tests import strict_cupy


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in for CuPy, where `import cupy` finds it; what it counts begins at nothing."""
    module = strict_cupy.module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    strict_cupy.counts.clear()
    return module
