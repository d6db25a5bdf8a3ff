"""Every tutorial runs as a script in an empty folder, and opens as a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TUTORIALS = sorted((REPOSITORY / "tutorials").glob("*.py"))


def test_there_are_tutorials() -> None:
    assert [path.name for path in TUTORIALS[:2]] == ["01_autograd.py", "02_all_reduce.py"]


LONG = (  # three seconds or more
    *(
        "02_all_reduce",
        "03_collectives",
        "04_data_parallel",
        "05_local_sgd_and_compression",
        "06_zero",
        "07_parameter_server",
        "10_together",
    ),
)


def in_time(path: Path) -> object:
    marks = [pytest.mark.slow] if path.stem in LONG else []
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("path", [in_time(path) for path in TUTORIALS])
def test_it_runs_as_a_script(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("DISPLAY", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert {file.suffix for file in tmp_path.iterdir()} <= {".png"}  # its figures, no more


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_it_is_in_percent_format(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# %% [markdown]"
    assert lines[1].startswith("# # "), "the first line of text is the title"
    assert [line for line in lines if line.startswith("# # ")] == [lines[1]], "one title only"
    assert not [line for line in lines if line.startswith("#%%")]
    text = False
    for number, line in enumerate(lines, start=1):
        if line.startswith("# %%"):
            assert line in ("# %%", "# %% [markdown]"), f"line {number}"
            text = line.endswith("[markdown]")
        elif text:
            assert not line or line.startswith("#"), f"line {number}: code in a cell of text"


@pytest.mark.slow
def test_a_tutorial_runs_on_several_ranks(tmp_path: Path) -> None:
    command = ["-m", "minipar", "run", "-n", "2", str(TUTORIALS[1])]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[all 2] init() gave me a group of 2; a one from each makes 2" in done.stdout
