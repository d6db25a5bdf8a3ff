"""The ranks of a training run, started by the launcher: threads or processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minipar.comm.failure import Failure
from minipar.comm.hosts.nodes import Nodes
from minipar.comm.launch import function_work, nccl_work, run_processes, run_threads
from minipar.comm.local import LocalWorld
from minipar.comm.nccl.start import Options
from minipar.comm.script import LabelledOutput
from minipar.config import Config
from minipar.drills import drills_of


class RanksFailed(Exception):
    """Ranks ended in an error, which has been shown."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def on_ranks(
    fn: Any, config: Config, args: Sequence[Any], log_dir: str | None, nodes: Nodes | None = None
) -> list[Any]:
    """fn(group, config, *args) on config.ranks ranks; what those of this host returned.

    nodes: of several hosts.  Raises: RanksFailed, KeyboardInterrupt.
    """
    if config.backend == "local":
        with LabelledOutput(config.ranks, log_dir, plain=(0,)):
            cluster = drills_of(config).cluster()
            world = LocalWorld(config.ranks, restarts=restarts(config), cluster=cluster)
            results, failed = run_threads(fn, config.ranks, (config, *args), world)
        failure = None if failed is None else Failure.of(*failed)
    else:
        work = function_work(fn, (config, *args))
        if config.backend == "nccl":
            work = nccl_work(work, Options(config.share_gpu))
        done = run_processes(
            work,
            config.ranks if nodes is None else len(nodes.mine),
            timeout_s=config.timeout_s,
            plain=(0,),
            log_dir=log_dir,
            nodes=nodes,
            restarts=restarts(config),
        )
        results, failure = done.results, done.failure
    first = nodes is None or nodes.node == 0
    if failure is None and first and isinstance(results[0], BaseException):
        failure = Failure.of(0, results[0])  # lost, though others went on
    if failure is not None:
        failure.show(config.ranks)
        raise RanksFailed(failure.exit_code)
    return results


def restarts(c: Config) -> int | None:
    """How many lost ranks are started again; None: a lost rank ends the run.

    With servers that make snapshots, each server may be lost once.
    """
    goes_on = c.ps in ("async", "ssp") or c.on_worker_loss == "drop" or c.snapshot_every
    return (c.servers if c.snapshot_every else 0) if c.ps != "none" and goes_on else None


def ranks_in_words(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"
