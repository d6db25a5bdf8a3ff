"""What is drawn when a run has failed, and what is said where nothing can be."""

import subprocess
import sys

import pytest

from minipar.trace.last_moments import NAME, last_moments
from tests.trace.test_trace_file import write


def test_the_end_of_the_trace_is_drawn_beside_it(tmp_path):
    write(tmp_path, 1, 3)
    assert last_moments(tmp_path) == f"the last moments are drawn in {tmp_path / NAME}"
    assert (tmp_path / NAME).stat().st_size > 5000


def test_without_a_trace_there_is_a_reason(tmp_path):
    said = last_moments(tmp_path)
    assert said.startswith("nothing is known of the last moments: there is no trace in")


@pytest.mark.slow
def test_a_script_that_fails_under_trace_says_where_they_are(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, signal, minipar\n"
        "group = minipar.init()\n"
        "group.barrier()\n"
        "if group.rank == 1:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "group.barrier()\n"
    )
    command = [sys.executable, "-m", "minipar", "run", "-n", "3", "--trace", "t", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("minipar: the last moments are drawn in")
    assert (tmp_path / "t" / NAME).exists()
