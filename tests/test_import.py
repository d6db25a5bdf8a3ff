"""What `import minipar` costs: the first thing that every user runs."""

import subprocess
import sys
import time

import pytest

HEAVY = ("matplotlib", "cupy", "mpi4py", "torch", "multiprocessing", "asyncio")


def test_import_is_light():
    code = f"import sys, minipar; print([m for m in {HEAVY} if m in sys.modules])"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - begun < 5 * 0.2 + 0.5  # promised: 0.2 s; 0.5 for the interpreter


def test_all_public_names_exist():
    import minipar

    assert all(hasattr(minipar, name) for name in minipar.__all__)
    assert sorted(minipar.__all__) == list(minipar.__all__)


def test_train_is_what_the_command_line_calls_and_stays_a_function():
    import minipar
    import minipar.training  # no module of the package has its name
    from minipar.training_job import train

    assert minipar.train is train
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = minipar.trian
