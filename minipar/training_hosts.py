"""`minipar train` on several hosts: the same command on each, but for --node-rank.

node 0   meets the others, prepares the run folder       "job": options, folder    ->  all
all      start their ranks, which train
node 0   compares with one rank, draws, reports; the others have ended

Ranks are counted through, node by node, so servers, which are the last ranks, are on the last host.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from minipar.comm.failure import Failure
from minipar.comm.hosts import plan
from minipar.comm.hosts.meeting import Meeting
from minipar.comm.hosts.nodes import Nodes
from minipar.comm.hosts.rendezvous import meet
from minipar.config import Config, option
from minipar.errors import CommError, UsageError
from minipar.forecast import table
from minipar.ranks import on_ranks
from minipar.run_folder import RunFolder
from minipar.training import train_rank
from minipar.training_job import Job, Result, conclude, prepare


def asked_for(
    nodes: int | None,
    node: int | None,
    rendezvous: str | None,
    ranks: int | None,
    given: Mapping[str, Any],
) -> Meeting | None:
    """The meeting that the options describe; None on one host.  Raises: UsageError."""
    if (nodes, node, rendezvous) == (None, None, None):
        if ranks is not None:
            raise UsageError("-n goes with --nnodes; on one host the options say how many ranks.")
        return None
    if given.get("backend", "process") != "process":
        raise UsageError(f"--backend {given['backend']} has no --nnodes; it takes 'process'.")
    if nodes is None:
        raise UsageError("--node-rank and --rendezvous go with --nnodes, the number of hosts.")
    if ranks is None:
        raise UsageError("several hosts take -n N, too: how many of the ranks are on this one.")
    timeout_s = given.get("timeout_s", Config.timeout_s)
    return plan.asked_for(nodes, node, rendezvous, ranks, timeout_s, os.environ)


def execute(
    meeting: Meeting,
    given: Mapping[str, Any],
    out: str | None,
    resume: str | None,
    log_dir: str | None = None,
) -> Result | None:
    """Train on the ranks of this host, with those of the others; node 0 has what there is to say.

    given: options that were set.  Raises: UsageError, CommError, CheckpointError, RanksFailed.
    """
    begun, nodes = time.monotonic(), meet(meeting)
    first = nodes.node == 0
    try:
        job = _prepared(nodes, given, out, resume) if first else _told(nodes, given)
    except BaseException as error:
        nodes.note_failure(Failure(nodes.mine[0], str(error) or "it was interrupted"))
        nodes.close()
        raise
    if job.plan is not None:
        print(table(job.plan.needs), file=sys.stderr)
    work = str(job.run.path), job.resume
    ranks = on_ranks(train_rank, job.config, work, log_dir, nodes)
    return conclude(job, ranks[0], begun) if first else None


def _prepared(nodes: Nodes, given: Mapping[str, Any], out: str | None, resume: str | None) -> Job:
    """On node 0: the job, of which the others are told."""
    here = len(nodes.mine)
    job = prepare({**given, "backend": "process"}, out, resume, nodes.ranks, here)
    nodes.say("job", json.dumps([asdict(job.config), str(job.run.path), job.resume]))
    return job


def _told(nodes: Nodes, given: Mapping[str, Any]) -> Job:
    """Elsewhere: node 0's job, if it is what was asked for here.  Raises: UsageError, CommError."""
    config, path, resume = json.loads(_word_of_node_0(nodes))
    for name, value in given.items():
        if config.get(name) != value:
            raise UsageError(
                f"--{option(name)} is {value} here and {config.get(name)} on node 0; the command "
                "must be the same on all hosts, but for --node-rank and -n."
            )
    return Job(Config(**config), RunFolder(path), resume)


def _word_of_node_0(nodes: Nodes) -> str:
    while True:
        for kind, *values in nodes.hear():
            if kind == "job":
                return str(values[0])
            if kind == "failed":
                raise CommError(f"node 0 has ended: {values[0].summary}")
            if kind == "interrupt":
                raise KeyboardInterrupt(" on node 0")
        time.sleep(0.01)
