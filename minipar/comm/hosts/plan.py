"""Is this launcher one of several, and if so, where do they meet?

minipar run --nnodes 2 --node-rank 0 --rendezvous a:29500 ...      said on the command line
torchrun ... / srun ... minipar run script.py                      found in the environment
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping

from minipar.comm.hosts.meeting import Meeting, where
from minipar.comm.hosts.secret import job_token
from minipar.comm.started import Started, started, under_mpi
from minipar.errors import UsageError


def asked_for(
    nodes: int | None,
    node: int | None,
    rendezvous: str | None,
    ranks: int,
    timeout_s: float,
    environ: Mapping[str, str],
) -> Meeting | None:
    """The meeting that the options --nnodes, --node-rank, --rendezvous describe.

    Raises: UsageError if they say half of it, or there is no token.
    """
    if nodes is None and node is None and rendezvous is None:
        return None
    if nodes is None or node is None or rendezvous is None:
        raise UsageError(
            "several hosts take all of --nnodes K (how many), --node-rank I (which one this is, "
            "from 0) and --rendezvous HOST:PORT (node 0's address and a free port of it)."
        )
    if not 0 <= node < nodes:
        raise UsageError(f"--node-rank goes from 0 to {nodes - 1}, not {node}.")
    token = job_token(environ)
    return Meeting(where(rendezvous), node, nodes, ranks, token, timeout_s, on_host=ranks)


def found(backend: str | None, timeout_s: float, environ: Mapping[str, str]) -> Meeting | None:
    """The meeting of processes that torchrun or srun has started; None if this one is alone, or
    takes another backend, as it does by itself where MPI is at hand.

    Raises: UsageError if they are on several hosts, and MINIPAR_RENDEZVOUS or the token is missing.
    """
    one = started(environ)
    mine = backend == "process" or (backend is None and under_mpi(environ) is None)
    if not mine or one is None or one.ranks < 2:
        return None
    meeting = Meeting(
        _unix_name(one), one.rank, one.ranks, 1, b"", timeout_s, on_host=one.local_ranks
    )
    if one.local_ranks == one.ranks and sys.platform == "linux":
        return meeting  # without a token: a Unix socket tells whose process calls
    return meeting._replace(where=_rendezvous(one, environ), token=job_token(environ))


def _unix_name(one: Started) -> str:
    job = hashlib.sha256(one.job.encode()).hexdigest()[:16]
    return f"minipar-{os.getuid()}-{one.by}-{job}"


def _rendezvous(one: Started, environ: Mapping[str, str]) -> tuple[str, int]:
    text = environ.get("MINIPAR_RENDEZVOUS")
    if not text:
        raise UsageError(
            f"{one.by} has started {one.ranks} processes, {one.local_ranks} of them on this host. "
            "Set MINIPAR_RENDEZVOUS=HOST:PORT, the address of the host of process 0 and a free "
            "port of it, and a token in MINIPAR_TOKEN or MINIPAR_TOKEN_FILE."
        )
    return where(text)
