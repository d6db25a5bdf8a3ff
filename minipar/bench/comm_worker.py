"""One rank of one contender: it waits for an order, times a call, and answers.

    order   {"op": "all_reduce", "algorithm": "ring", "bytes": 1048576, "times": 40}
    answer  {"seconds": 0.000123}            only rank 0 answers

Orders come one to each rank, over a socket of its own, in which a rank that has nothing to do
sleeps: waiting in a barrier, it would take the core from the contender whose turn it is.

Peers run this file in whatever Python they are installed in, so at the top it imports nothing but
NumPy. Arrays are float32, zero, and touched before; where a call can write into an array, it does.

Letters: x what goes in, y what comes out (where the call does not write into x), p ranks.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Call = Callable[[], Any]
ORDER_BYTES = 512


class Contender(Protocol):
    """What the same calls are called elsewhere."""

    version: str
    rank: int
    size: int
    refusal: type[Exception]  # raised on all ranks alike by a call that it does not have

    def array(self, n: int) -> np.ndarray:
        """n float32 where the contender likes them best."""

    def largest(self, value: float) -> float:
        """The largest value of all ranks."""

    def calls(self, x: np.ndarray, y: np.ndarray, algorithm: str | None) -> Mapping[str, Call]:
        """all_reduce, reduce_scatter, all_gather, broadcast, all_to_all, barrier; send and recv
        of x between ranks 0 and 1."""


class Minipar:
    def __init__(self, group: Any, memory: str) -> None:
        from minipar import __version__
        from minipar.errors import UsageError

        self.refusal: type[Exception] = UsageError
        self.group, self.memory = group, memory
        self.version, self.rank, self.size = f"minipar {__version__}", group.rank, group.size

    def array(self, n: int) -> np.ndarray:
        if self.memory == "shared":
            return self.group.empty((n,), np.float32)
        return np.empty(n, np.float32)

    def largest(self, value: float) -> float:
        return float(self.group.all_reduce(np.array(value), op="max"))

    def calls(self, x: np.ndarray, y: np.ndarray, algorithm: str | None) -> Mapping[str, Call]:
        g, how = self.group, {"algorithm": algorithm}
        return {
            "all_reduce": lambda: g.all_reduce(x, out=x, **how),
            "reduce_scatter": lambda: g.reduce_scatter(x, out=y, **how),
            "all_gather": lambda: g.all_gather(x, out=y.reshape(g.size, -1), **how),
            "broadcast": lambda: g.broadcast(x, out=x, **how),
            "all_to_all": lambda: g.all_to_all(
                x.reshape(g.size, -1), out=y.reshape(g.size, -1), **how
            ),
            "barrier": lambda: g.barrier(**how),
            "send": lambda: g.send(x, 1 - g.rank),
            "recv": lambda: g.recv(1 - g.rank, out=x),
        }


class OpenMPI:
    refusal: type[Exception] = RuntimeError

    def __init__(self) -> None:
        from mpi4py import MPI

        self.mpi, self.world = MPI, MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size
        self.version = MPI.Get_library_version().split(",")[0]
        if not self.version.startswith("Open MPI"):
            sys.exit(f"mpi4py uses {self.version}, which is not Open MPI")

    def array(self, n: int) -> np.ndarray:
        return np.empty(n, np.float32)

    def largest(self, value: float) -> float:
        return self.world.allreduce(value, op=self.mpi.MAX)

    def calls(self, x: np.ndarray, y: np.ndarray, algorithm: str | None) -> Mapping[str, Call]:
        world, in_place, other = self.world, self.mpi.IN_PLACE, 1 - self.rank
        return {
            "all_reduce": lambda: world.Allreduce(in_place, x),
            "reduce_scatter": lambda: world.Reduce_scatter_block(x, y),
            "all_gather": lambda: world.Allgather(x, y),
            "broadcast": lambda: world.Bcast(x),
            "all_to_all": lambda: world.Alltoall(x, y),
            "barrier": world.Barrier,
            "send": lambda: world.Send(x, other),
            "recv": lambda: world.Recv(x, other),
        }


class Gloo:
    refusal: type[Exception] = RuntimeError

    def __init__(self, rank: int, size: int, file: str) -> None:
        import torch
        import torch.distributed as dist

        warnings.simplefilter("ignore", FutureWarning)  # older names, for older versions of torch
        self.torch, self.dist, self.rank, self.size = torch, dist, rank, size
        self.version = f"torch {torch.__version__}"
        store = dist.FileStore(file, size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)

    def array(self, n: int) -> np.ndarray:
        return np.empty(n, np.float32)

    def largest(self, value: float) -> float:
        tensor = self.torch.tensor(value, dtype=self.torch.float64)
        self.dist.all_reduce(tensor, op=self.dist.ReduceOp.MAX)
        return tensor.item()

    def calls(self, x: np.ndarray, y: np.ndarray, algorithm: str | None) -> Mapping[str, Call]:
        dist, other = self.dist, 1 - self.rank
        a, b = self.torch.from_numpy(x), self.torch.from_numpy(y)  # the same memory
        return {
            "all_reduce": lambda: dist.all_reduce(a),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(b, a),
            "all_gather": lambda: dist.all_gather_into_tensor(b, a),
            "broadcast": lambda: dist.broadcast(a, 0),
            "all_to_all": lambda: dist.all_to_all_single(b, a),
            "barrier": dist.barrier,
            "send": lambda: dist.send(a, other),
            "recv": lambda: dist.recv(a, other),
        }

    def close(self) -> None:
        self.dist.destroy_process_group()  # or its threads are there when Python ends


# -- timing -----------------------------------------------------------------------------------


class Timer:
    """Times calls of one contender; keeps the arrays as long as the sizes stay."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._kept: tuple[tuple[str, int], list[np.ndarray]] = ("", 0), []

    def seconds(self, op: str, algorithm: str | None, nbytes: int, times: int) -> float | None:
        """Seconds of one call, on the slowest rank; None on a rank that takes no part."""
        self._arrays(op, nbytes)  # on all ranks alike: they may lie in memory that all share
        apart = {"send_recv": 2, "add": 1}.get(op)  # how many ranks do it; the others sleep on
        if apart is not None and self.contender.rank >= apart:
            return None
        call, ready = self._call(op, algorithm, nbytes)
        ready()
        start = time.perf_counter()
        for _ in range(times):
            call()
        seconds = (time.perf_counter() - start) / times
        if apart is None:
            return self.contender.largest(seconds)
        return seconds / apart  # there and back is two messages

    def _call(self, op: str, algorithm: str | None, nbytes: int) -> tuple[Call, Call]:
        """What is timed, and what brings the ranks together before."""
        x, y = self._arrays(op, nbytes)
        if op == "add":
            return lambda: np.add(x, y, out=x), lambda: None
        calls = self.contender.calls(x, y, algorithm)
        if op != "send_recv":
            return calls[op], self.contender.calls(x, y, None)["barrier"]
        first, then = calls["send"], calls["recv"]
        if self.contender.rank == 1:
            first, then = then, first

        def there_and_back() -> None:
            first()
            then()

        return there_and_back, there_and_back

    def _arrays(self, op: str, nbytes: int) -> list[np.ndarray]:
        kept_for, arrays = self._kept
        if kept_for != (op, nbytes):
            self._kept = ("", 0), []  # the old ones go before the new ones come
            n = nbytes // 4
            part = n // self.contender.size
            shapes = {"reduce_scatter": (n, part), "all_gather": (part, n)}
            both = shapes.get(op, (n, n if op in ("all_to_all", "add") else 0))
            arrays = [self.contender.array(length) for length in both]
            for array in arrays:
                array.fill(0)
            self._kept = (op, nbytes), arrays
        return arrays


# -- orders -----------------------------------------------------------------------------------


def serve(contender: Contender, path: str, orders: Callable[[Any], Iterable[str]] = iter) -> None:
    """Carry out what comes over the socket at `path`, until it ends."""
    timer = Timer(contender)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        lines = sock.makefile("r")
        _say(sock, {"rank": contender.rank, "version": contender.version, "pid": os.getpid()})
        contender.largest(0.0)  # ranks that take turns all connect before one waits for orders
        for line in orders(lines):
            try:
                answer: dict[str, Any] = {"seconds": timer.seconds(**_order(line))}
            except contender.refusal as error:
                answer = {"note": f"{type(error).__name__}: {error}".splitlines()[0]}
            if contender.rank == 0:
                _say(sock, answer)


def _order(line: str) -> dict[str, Any]:
    order = json.loads(line)
    order["nbytes"] = order.pop("bytes")
    return order


def _say(sock: socket.socket, what: Mapping[str, Any]) -> None:
    sock.sendall(json.dumps(what).encode() + b"\n")


def serve_group(group: Any, path: str, memory: str) -> None:
    """A rank of minipar's."""

    def from_rank_0(lines: Any) -> Iterator[str]:
        """Orders for ranks that take turns: one that reads from a socket keeps its turn."""
        while True:
            text = np.zeros(ORDER_BYTES, np.uint8)
            line = lines.readline().encode() if group.rank == 0 else b""
            text[: len(line)] = np.frombuffer(line, np.uint8)
            line = group.broadcast(text).tobytes().rstrip(b"\0")
            if not line:
                return
            yield line.decode()

    serve(Minipar(group, memory), path, from_rank_0 if group.backend == "local" else iter)


def main(arguments: Sequence[str] | None = None) -> None:
    """gloo SOCKET RANK RANKS FILE;  openmpi SOCKET;  BACKEND SOCKET RANKS MEMORY"""
    name, path, *more = sys.argv[1:] if arguments is None else arguments
    if name == "gloo":
        rank, ranks, file = more
        gloo = Gloo(int(rank), int(ranks), file)
        serve(gloo, path)
        gloo.close()
    elif name == "openmpi":
        serve(OpenMPI(), path)
    elif name == "mpi":
        from minipar import init

        serve_group(init(), path, more[1])
    else:
        from minipar.comm.launch import run

        ranks, memory = more
        run(serve_group, int(ranks), args=(path, memory), backend=name)
