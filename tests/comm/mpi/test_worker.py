"""`minipar run` under mpirun: the script, its arguments, its environment."""

from tests.comm.mpirun import done, mpirun

HELLO = """
import os, sys, minipar
world = minipar.init()
assert __name__ == "__main__" and world is minipar.init()
print(world.rank, world.size, sys.argv[1:], os.environ["OPENBLAS_NUM_THREADS"], flush=True)
sys.exit(0)
"""


def test_every_rank_runs_the_script_with_its_arguments_and_threads(tmp_path):
    (tmp_path / "hello.py").write_text(HELLO)
    command = mpirun(2, "-m", "minipar", "run", "hello.py", "a b", "-n", "9")
    job = done(command, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    assert job.returncode == 0, job.stderr
    lines = sorted(job.stdout.splitlines())
    assert [line[:-1] for line in lines] == [f"{r} 2 ['a b', '-n', '9'] " for r in range(2)]
    assert all(int(line.split()[-1]) >= 1 for line in lines)
