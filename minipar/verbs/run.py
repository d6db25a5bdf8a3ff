"""`minipar run`: a script on N ranks, of this host or of several."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import verb


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "run",
        "run a script on N ranks; it gets its group from minipar.init()",
        "minipar run -n 4 tutorials/02_all_reduce.py",
        _run,
    )
    parser.add_argument(
        "-n",
        "--ranks",
        type=int,
        metavar="N",
        help="number of ranks on this host (default: 2, or mpirun's)",
    )
    parser.add_argument("--nnodes", type=int, metavar="K", help="number of hosts of the job")
    parser.add_argument("--node-rank", type=int, metavar="I", help="which of them this is, from 0")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="an address and port of host 0")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="process, local, mpi or nccl (default: process, or mpirun's)",
    )
    parser.add_argument(
        "--share-gpu", action="store_true", help="nccl: several ranks on one GPU; slow, for trying"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="longest wait for a rank (default: 300)",
    )
    parser.add_argument("--log-dir", metavar="DIR", help="one file per rank of what it prints")
    parser.add_argument(
        "--trace", metavar="DIR", help="record what every rank does; see minipar timeline"
    )
    parser.add_argument(
        "--cluster",
        metavar="FILE",
        help="local: in virtual time, on links of declared speeds (see docs/communication.md)",
    )
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="mpi, nccl: native collectives without comparing calls",
    )
    parser.add_argument("script", help="a Python file")
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the script itself")
    rest.required = False


def _run(arguments: argparse.Namespace) -> int:
    from minipar.comm import script
    from minipar.comm.cluster import Cluster
    from minipar.comm.hosts import plan
    from minipar.comm.tracing import VARIABLE
    from minipar.trace.last_moments import last_moments

    cluster = None if arguments.cluster is None else Cluster.from_file(arguments.cluster)
    if arguments.trace is not None:
        try:  # now, and not when all has run
            os.makedirs(arguments.trace, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--trace {arguments.trace} cannot be a folder: {error}") from None
        os.environ[VARIABLE] = os.path.abspath(arguments.trace)
    for word in set(arguments.arguments) & set(arguments.options):
        print(f"minipar: {word} stands after the script, so it goes to the script", file=sys.stderr)
    meeting = plan.asked_for(
        arguments.nnodes,
        arguments.node_rank,
        arguments.rendezvous,
        2 if arguments.ranks is None else arguments.ranks,
        arguments.timeout,
        os.environ,
    )
    if meeting is None and arguments.ranks is None:
        meeting = plan.found(arguments.backend, arguments.timeout, os.environ)
    code = script.run_script(
        arguments.script,
        arguments.arguments,
        arguments.ranks if meeting is None else meeting.ranks,
        backend=arguments.backend,
        timeout_s=arguments.timeout,
        log_dir=arguments.log_dir,
        check_native=not arguments.no_check,
        meeting=meeting,
        cluster=cluster,
        share_gpu=arguments.share_gpu,
    )
    if code and arguments.trace is not None and (meeting is None or meeting.node == 0):
        print(f"minipar: {last_moments(arguments.trace)}", file=sys.stderr)
    return code
