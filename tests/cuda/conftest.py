"""The array module that the tests of kernels run on."""

import pytest

from tests.cuda import twins


@pytest.fixture(params=["twins", pytest.param("gpu", marks=pytest.mark.gpu)])
def xp(request, monkeypatch):
    """CuPy, or its stand-in with the twins."""
    return pytest.importorskip("cupy") if request.param == "gpu" else twins.module(monkeypatch)
