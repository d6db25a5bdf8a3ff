"""What a rank's process does on its own: see also test_process.py and test_script.py."""

import subprocess
import sys


def test_a_worker_without_a_launcher_ends():
    code = """
import os, socket, subprocess, sys
from minipar.comm.segment import create_segment
from minipar.comm.environment import python_command
ours, theirs = socket.socketpair()
segment = create_segment(2)
child = subprocess.Popen(
    python_command("minipar.comm.worker", str(theirs.fileno()), str(segment), str(segment)),
    pass_fds=(theirs.fileno(), segment),
)
theirs.close()
ours.close()
print(child.wait(timeout=20))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
