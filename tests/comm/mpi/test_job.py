"""How ranks under MPI fail: what the user reads, the exit code, how soon, and that none hangs."""

import re
import signal
import subprocess
import time

import pytest

from tests.comm.mpirun import ROOT, SCRIPT, done, mpirun, ranks_do
from tests.jobs import started

START_S, FAILED_IN_S = 5.0, 5 * 2.0  # promised: 2 s after the failure
SLOW = pytest.mark.slow
# how, exit code, who may be the first, what is said
WAYS = [
    ("raise", 1, "1", "ValueError: rank 1 has had enough"),
    (
        "return",
        1,
        "02",
        r"for a rank that has returned \(last calls: rank 1: barrier #0 .* at tests",
    ),
    pytest.param("shape", 1, "012", r"float32\[3\]", marks=SLOW),
    pytest.param("others compute", 1, "1", "ValueError: rank 1 has had enough", marks=SLOW),
    pytest.param("odd", 1, "1", "OddError: odd", marks=SLOW),
    pytest.param("other", 1, "012", "barrier #1", marks=SLOW),
    pytest.param("dtype", 1, "012", r"float64\[2\]", marks=SLOW),
    pytest.param("op", 1, "012", r"mean float32\[2\]", marks=SLOW),
    pytest.param("send", 1, "02", r"not asked for so far: rank 1's send #0", marks=SLOW),
    pytest.param("behind a handle", 1, "012", r"float64\[3\]", marks=SLOW),
    pytest.param("left out", 1, "12", "but never took part in rank 0's broadcast", marks=SLOW),
]


@pytest.mark.parametrize(("how", "code", "first", "says"), WAYS)
def test_a_failing_rank_ends_the_job_and_its_traceback_is_whole(how, code, first, says):
    begun = time.monotonic()
    job = ranks_do(3, "fail", how)
    assert time.monotonic() - begun < START_S + FAILED_IN_S
    assert job.returncode == code
    last = r"^(minipar: (?!who waits for whom|the last calls).*)\n"
    ours, summary, _ = re.split(last, job.stderr, maxsplit=1, flags=re.MULTILINE)
    who = re.findall(r"^\[rank (\d)\] Traceback|^\[rank (\d)\] minipar.errors", ours, re.MULTILINE)
    assert set("".join(who[0])) <= set(first), job.stderr
    assert re.search(says, summary) or re.search(says, ours), job.stderr
    if how in ("raise", "shape"):  # everybody else says why it stops, in one line, before that
        lines = [line for line in ours.splitlines() if "; rank" in line or "sent" in line]
        assert {line[:8] for line in lines} >= {f"[rank {r}]" for r in range(3)} - {
            f"[rank {''.join(who[0])}]"
        }
    if how == "raise":
        traceback = [line for line in ours.splitlines() if line.startswith("[rank 1]")]
        assert traceback[-1] == "[rank 1] ValueError: rank 1 has had enough"
        assert any("ranks.py" in line for line in traceback) and "minipar/comm" not in ours
        assert "rank 0 was in all_reduce #1 (sum float32[2] by tree) at tests/comm/ranks.py" in ours


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        pytest.param("exit", 7, r"rank 1 called sys.exit\(7\)", marks=SLOW),
        pytest.param("_exit", 3, "1", marks=SLOW),
        pytest.param("kill", None, "rank 1", marks=SLOW),
    ],
)
def test_the_exit_code_is_that_of_the_rank(how, code, says):
    begun = time.monotonic()
    job = ranks_do(3, "fail", how)
    assert time.monotonic() - begun < START_S + FAILED_IN_S
    assert job.returncode == code or (code is None and job.returncode != 0)
    assert re.search(says, job.stderr), job.stderr


def test_plain_python_ends_the_job_as_well():
    begun = time.monotonic()
    job = done(mpirun(2, SCRIPT, "fail", "raise"), cwd=ROOT)
    assert time.monotonic() - begun < START_S + FAILED_IN_S
    assert job.returncode == 1
    assert "[rank 1] ValueError: rank 1 has had enough\nminipar: rank 1 raised" in job.stderr
    assert "[rank 0] rank 1 raised ValueError" in job.stderr


@SLOW
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_on_mpirun_leaves_nothing(number, tmp_path):
    command = mpirun(3, "-m", "minipar", "run", SCRIPT, "busy", str(tmp_path))
    with started(command) as job:
        until = time.monotonic() + 4 * START_S
        while len(list(tmp_path.iterdir())) < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.1)  # until the numbers stand in the files
        pids = [path.read_text() for path in tmp_path.iterdir()]
        job.send_signal(number)
        job.communicate(timeout=FAILED_IN_S)
    assert job.returncode != 0
    command = ["ps", "-o", "pid=", "-p", ",".join(pids)]
    until = time.monotonic() + FAILED_IN_S
    while subprocess.run(command, capture_output=True).stdout:
        assert time.monotonic() < until, "ranks are still there"
        time.sleep(0.05)


@SLOW
def test_a_rank_that_raises_may_be_lost_while_the_others_go_on():
    job = ranks_do(3, "lost")
    assert job.returncode == 0 and job.stdout == "done\n", job.stderr
    assert job.stderr.count("[rank 1] rank 1 raised ValueError: it has had enough; the others") == 1
