"""`minipar train` on several hosts: launchers of this machine, as if each had one of its own."""

import json
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from minipar import training_hosts
from minipar.config import Config
from minipar.errors import CommError, UsageError
from tests.comm.mpirun import ROOT
from tests.comm.several import environment, free_port
from tests.jobs import started

SMALL = ["mlp", "--layers", "1", "--d", "8", "--block", "4", "--batch", "12", "--steps", "30"]


def train(folder, *options, ranks=(2, 1)):
    """Exit code, stdout and stderr of the launcher of each host."""
    port, ended = free_port(), []
    with ExitStack() as stack:
        command = [sys.executable, "-m", "minipar", "train", *SMALL, *options]
        command += ["--nnodes", str(len(ranks)), "--rendezvous", f"127.0.0.1:{port}"]
        jobs = [
            stack.enter_context(
                started(
                    [*command, "--node-rank", str(node), "-n", str(n)],
                    cwd=folder,
                    env=environment(PYTHONPATH=str(ROOT)),
                )
            )
            for node, n in enumerate(ranks)
        ]
        for job in jobs:
            out, err = job.communicate(timeout=90)
            ended.append((job.returncode, out, err))
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["async", "sync"])
def test_servers_go_on_without_a_worker_of_another_host(rule, tmp_path):
    options = ["--ps", rule, "--kill-worker", "1@step5", "--json"]
    options += ["--on-worker-loss", "drop"] if rule == "sync" else []
    (code, out, err), (other, silent, said) = train(tmp_path, *options, ranks=(1, 2))
    assert (code, other, silent) == (0, 0, ""), err + said
    (server,) = json.loads(out)["servers"]
    assert server["lost_workers"] == [1] and server["applied"] >= 30
    for text in (err, said):
        assert text.count("was killed by signal 9 (SIGKILL)") == 1 and "the others go on" in text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((None, None, None, 2, {}), "-n goes with --nnodes"),
        ((2, 0, "h:1", None, {}), "several hosts take -n N, too"),
        ((None, 1, None, None, {}), "--node-rank and --rendezvous go with --nnodes"),
        ((2, 0, "h:1", 1, {"backend": "local"}), "--backend local has no --nnodes"),
        ((2, None, "h:1", 1, {}), "several hosts take all of --nnodes"),
    ],
)
def test_half_of_it_is_refused(options, says):
    with pytest.raises(UsageError, match=says):
        training_hosts.asked_for(*options)
    assert training_hosts.asked_for(None, None, None, None, {}) is None


def test_another_command_than_that_of_node_0_is_refused():
    told = json.dumps([vars(Config(model="mlp", lr=0.5)), "runs/mlp-1", False])
    nodes = SimpleNamespace(hear=lambda: [("finished", 0), ("job", told)])
    job = training_hosts._told(nodes, {"model": "mlp", "lr": 0.5})
    assert job.config.lr == 0.5 and str(job.run.path) == "runs/mlp-1"
    with pytest.raises(UsageError, match=r"--lr is 0\.1 here and 0\.5 on node 0"):
        training_hosts._told(nodes, {"model": "mlp", "lr": 0.1})
    nodes.hear = lambda: [("failed", SimpleNamespace(summary="the disk is full"))]
    with pytest.raises(CommError, match="node 0 has ended: the disk is full"):
        training_hosts._told(nodes, {})
