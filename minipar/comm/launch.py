"""Start ranks and give each its group: in a notebook, from a script, from the command line.

    def work(group, x):                            # runs on every rank
        return group.all_reduce(x)

    minipar.run(work, ranks=4, args=(np.ones(3),))                      # threads, deterministic
    minipar.run(work, ranks=4, args=(np.ones(3),), backend="process")   # one process a rank

The result is the list of what the ranks returned. If one raises, its exception is raised here.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any, NoReturn

from minipar import ambient
from minipar.comm.cluster import Cluster
from minipar.comm.control import MAIN_ALIAS
from minipar.comm.environment import open_standard_streams
from minipar.comm.failure import Failure, add_notes, left_cleanly
from minipar.comm.group import Group
from minipar.comm.history import History, first_partings
from minipar.comm.hosts.nodes import Nodes
from minipar.comm.hosts.sites import OneHost, SeveralHosts
from minipar.comm.local import LocalWorld
from minipar.comm.local_transport import LocalTransport
from minipar.comm.nccl import start as nccl
from minipar.comm.output import Output
from minipar.comm.roll import Roll
from minipar.comm.signals import sigterm_interrupts
from minipar.comm.site import Site
from minipar.comm.supervisor import ProcessJob
from minipar.comm.tracing import tracing_if_asked
from minipar.comm.transport import DEFAULT_TIMEOUT_S
from minipar.comm.virtual import Gone
from minipar.comm.whereabouts import story
from minipar.errors import CommError, Interrupted, PeerLost, UsageError
from minipar.events import Recorder

BACKENDS = ("local", "process", "mpi", "nccl")
WAKE_S = 0.1  # how often the main thread looks whether it has been interrupted


def run(
    fn: Callable[..., Any],
    ranks: int,
    *,
    args: Sequence[Any] = (),
    backend: str = "local",
    timeout_s: float = DEFAULT_TIMEOUT_S,
    on_lost: str = "abort",
    restarts: int = 0,
    cluster: Cluster | None = None,
    share_gpu: bool = False,
) -> list[Any]:
    """Call fn(group, *args) on every rank; what the ranks returned, in rank order.

    backend:   "local" (threads passing a baton, any function), "process" (one process a rank;
               fn must be importable, args and results picklable) or "nccl" (the same, a GPU each,
               whose arrays go through NCCL). "mpi" cannot start ranks.
    timeout_s: the longest that a rank of "process" waits for another.
    on_lost:   what the end of a rank that raises, or whose process dies, does to the others:
               "abort" ends them, "report" only the calls that involve that rank (`losses`). Then
               its entry in the result is the exception that "abort" would raise.
    restarts:  how many lost ranks are started again, with "report".
    cluster:   the declared speeds of links and ranks ("local" only): time is then virtual, the same
               on every machine (see `Cluster`, `Group.spend` and `Group.now_ns`).
    share_gpu: let ranks of "nccl" share a GPU, to try things out: slow.
    Raises:    the first failing rank's own exception; PeerLost if a rank's process was killed;
               Deadlock; UsageError. With "report" only if all ranks are lost, or wait for each
               other.
    """
    check(ranks, backend, share_gpu)
    budget = _budget(on_lost, restarts)
    if budget is not None and backend == "nccl":
        raise UsageError("on_lost='report' is not for nccl: NCCL ends with its first lost rank")
    if cluster is not None:
        check_cluster(cluster, ranks, backend)
    if backend == "local":
        world = LocalWorld(ranks, restarts=budget, cluster=cluster)
        results, failed = run_threads(fn, ranks, args, world)
        if failed is not None:
            _, error, notes = failed
            add_notes(error, notes)
            raise error
        return results
    work = function_work(fn, args)
    if backend == "nccl":
        work = nccl_work(work, nccl.Options(share_gpu))
    job = run_processes(work, ranks, timeout_s=timeout_s, restarts=budget)
    if job.failure is not None:
        job.failure.raise_it()
    return job.results


def _budget(on_lost: str, restarts: int) -> int | None:
    """How many lost ranks are started again; None if a lost rank ends the job."""
    if on_lost not in ("abort", "report"):
        raise UsageError(f"on_lost is 'abort' or 'report', not {on_lost!r}")
    if restarts < 0:
        raise UsageError(f"restarts counts ranks that are started again, so it is not {restarts}")
    if on_lost == "abort" and restarts:
        raise UsageError("restarts needs on_lost='report': with 'abort' a lost rank ends the job")
    return None if on_lost == "abort" else restarts


# -- processes --------------------------------------------------------------------------------


class Finished:
    """A job of processes that has ended."""

    def __init__(self, results: list[Any], failure: Failure | None) -> None:
        self.results, self.failure = results, failure


def run_processes(
    work: tuple[Any, ...],
    ranks: int,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    plain: Iterable[int] = (),
    log_dir: str | None = None,
    nodes: Nodes | None = None,
    restarts: int | None = None,
) -> Finished:
    """Run `work` (function_work or script_work) on so many processes of this host.

    plain: ranks whose output is shown without a label.  log_dir: for one file of output per rank.
    nodes: of a job on several hosts.  restarts: None if a lost rank ends the job; else lost ranks
    are reported, and so many of them started again; the same on all hosts.
    Raises: UsageError, SharedMemoryFull, CommError, OSError if what ranks print cannot be written,
            KeyboardInterrupt.
    """
    if not timeout_s > 0:  # nan is not
        raise UsageError(f"a rank waits for another for more than 0 seconds, not {timeout_s}")
    if nodes is not None:
        nodes.reports = restarts is not None
        if nodes.reports and nodes.memory is not None:
            raise UsageError(
                "lost ranks cannot be reported where torchrun or srun has started a launcher for "
                "each rank; start one launcher for each host, with --nnodes."
            )
    open_standard_streams()
    here, everywhere = (None, ranks) if nodes is None else (nodes.mine, nodes.ranks)
    outputs = {
        name: Output(stream, everywhere, plain=plain, log_dir=log_dir, here=here)
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
    }
    with sigterm_interrupts():
        site: Site = OneHost(ranks) if nodes is None else SeveralHosts(nodes)
        roll = None
        if restarts is not None:
            roll = Roll(site.segment, site.board, site.here, site.ranks, restarts)
        job = ProcessJob(work, site, timeout_s=timeout_s, outputs=outputs, roll=roll)
        return Finished(job.run(), job.failure)


def script_work(path: str, arguments: Sequence[str] = ()) -> tuple[Any, ...]:
    """Work for run_processes: run the script as `__main__`."""
    return ("script", path, list(arguments))


def nccl_work(work: tuple[Any, ...], options: nccl.Options) -> tuple[Any, ...]:
    """That work, on ranks whose arrays of the GPU go through NCCL."""
    return ("nccl", options, work)


def function_work(fn: Callable[..., Any], args: Sequence[Any] = ()) -> tuple[Any, ...]:
    """Work for run_processes: call fn(group, *args).  Raises: UsageError if fn has no address."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", type(fn).__name__)
    if "<" in name:
        _refuse(name, "a lambda or a function inside a function")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if module is None or found is not fn:
        _refuse(name, "not a function that stands under its own name in a module")
    script = module == "__main__"
    if script:
        path = getattr(sys.modules["__main__"], "__file__", None)
        if path is None or not os.path.exists(path):
            _refuse(name, "a function of a notebook or of an interactive session")
        module = os.path.abspath(path)
        sys.modules[MAIN_ALIAS] = sys.modules["__main__"]  # results of its classes come back so
    try:
        packed = pickle.dumps(tuple(args))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise UsageError(f"the arguments of {name} cannot be sent to processes: {error}") from error
    return ("function", list(sys.path), module, script, name, packed)


def _refuse(name: str, kind: str) -> NoReturn:
    raise UsageError(
        f"{name} is {kind}, which the processes of backend='process' cannot import: "
        "define it at the top level of a file, or use backend='local'."
    )


def check(ranks: int, backend: str, share_gpu: bool = False) -> None:
    """Raises: UsageError if no such job can be started here."""
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
    if not isinstance(ranks, Integral) or ranks < 1:
        raise UsageError(f"a job needs at least 1 rank, as an integer, not {ranks!r}")
    if backend == "mpi":
        raise UsageError(
            "ranks of the mpi backend are started by MPI: type mpirun -n N minipar run script.py, "
            "and let the script get its group from minipar.init()."
        )
    world = ambient.world.get()
    processes = ("process", "nccl")
    if backend in processes and world is not None and world.backend in processes:
        raise UsageError(
            f"run(backend={backend!r}) was called inside a rank. If a script calls it, put the "
            "call under `if __name__ == '__main__':`, because every rank imports the script."
        )
    if share_gpu and backend != "nccl":
        raise UsageError(
            f"share_gpu is for backend 'nccl' (--share-gpu goes with --backend nccl), not "
            f"{backend!r}, whose ranks share a GPU anyway"
        )
    if backend == "nccl":
        nccl.check(ranks, share_gpu)


def check_cluster(cluster: Cluster, ranks: int, backend: str) -> None:
    """Raises: UsageError if that is no cluster for these ranks."""
    if backend != "local":
        raise UsageError(
            "virtual time exists on local only: --backend local, or backend='local', goes with a "
            f"declared cluster, not {backend!r}"
        )
    in_pairs = {rank for pair in cluster.pairs for rank in pair}
    for name, ranks_of in (("slow", cluster.slow), ("pairs", in_pairs), ("lost", cluster.lost)):
        strangers = sorted(rank for rank in ranks_of if not 0 <= rank < ranks)
        if strangers:
            raise UsageError(
                f"{name}, of the cluster, names rank {strangers[0]}, but there are ranks 0 to "
                f"{ranks - 1}"
            )


# -- threads ----------------------------------------------------------------------------------


def run_threads(
    fn: Callable[..., Any], ranks: int, args: Sequence[Any] = (), world: LocalWorld | None = None
) -> tuple[list[Any], tuple[int, BaseException, tuple[str, ...]] | None]:
    """`run` on the local backend: the results, and the first rank that failed with its exception
    and notes, as Failure.of takes them.

    world:  for these ranks, if not the usual one: LocalWorld(ranks, buffer_bytes=0) is rendezvous.
            If it reports lost ranks, only a loss of all counts as a failure.
    Raises: KeyboardInterrupt.
    """
    world = world or LocalWorld(ranks)
    results: list[Any] = [None] * ranks
    failures: list[tuple[int, BaseException]] = []
    losses: list[tuple[int, BaseException]] = []  # which were reported
    histories = [History() for _ in range(ranks)]

    def live(rank: int) -> None:
        world.enter(rank)
        failed, lost = attempt(rank), None
        while failed is not None and (lost := world.lose(rank, failed)) is not None:
            print(lost, file=sys.stderr, flush=True)
            if not lost.returns:
                break
            failed = attempt(rank, again=True)
        if failed is not None:
            results[rank] = failed
            (failures if lost is None else losses).append((rank, failed))
        world.leave(rank, failed)

    def attempt(rank: int, again: bool = False) -> BaseException | None:
        try:
            if again:
                world.start_again(rank)
            group = Group(LocalTransport(world, rank), history=histories[rank])
            ambient.world.set(group)
            ambient.recorder.set(Recorder())
            with tracing_if_asked(group):
                results[rank] = fn(group, *args)
            group.close()
        except Gone as gone:
            return PeerLost(str(gone))
        except BaseException as error:
            return None if left_cleanly(error) else error
        return None

    threads = [
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(live, rank),
            name=f"rank {rank}",
            daemon=True,
        )
        for rank in range(ranks)
    ]
    try:
        for thread in threads:
            thread.start()
        world.start()
        for thread in threads:
            _await(thread)
    except KeyboardInterrupt:
        world.stop(Interrupted("the job was interrupted"))
        raise
    failures += losses if len(losses) == ranks else []
    failed = failures[0] if failures else world.mismatch_at_the_end()
    if failed is None:
        return results, None
    rank, error = failed
    told = story(world.whereabouts(), rank, type(error).__name__, isinstance(error, CommError))
    partings = first_partings(history.partings.values() for history in histories)
    return results, (rank, error, (*told, *partings))


def _await(thread: threading.Thread) -> None:
    """Return when the thread has ended.  Raises: KeyboardInterrupt.

    A signal wakes the main thread only if it sleeps already. One that comes between Python's last
    look for signals and the sleep is noted and not looked at before something else wakes it: time.
    """
    while thread.is_alive():
        thread.join(timeout=WAKE_S)
