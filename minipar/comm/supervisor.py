"""The launcher's side of a job of processes: start them, pass on what they print, see them end.

    launcher ==control socket== rank     "start" ->                         <- "result" | "error"
             <=stdout, stderr== rank     "lost", "finished", "deadlock", ... ->

The socket tells each side at once when the other is gone. When a rank fails, the launcher tells
the others who and why, so that their waits end with that reason; whoever has not ended after
GRACE_S is terminated, then killed. Nothing has a name in the file system, so nothing is left.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from minipar.comm.board import Segment, create_segment
from minipar.comm.control import receive_message, send_message
from minipar.comm.deadlock import DeadlockWatch
from minipar.comm.environment import python_command, rank_environment
from minipar.comm.failure import Failure
from minipar.comm.output import Output

GRACE_S = 1.0  # between asking the ranks to stop and terminating them
KILL_AFTER_S = 0.5  # between terminating and killing them
POLL_S = 0.05


@dataclass
class _Rank:
    """One child process as the launcher sees it."""

    number: int
    process: subprocess.Popen[bytes]
    control: socket.socket
    streams: list[IO[bytes]] = field(default_factory=list)
    result: Any = None
    ended: bool = False  # returned, failed or died; nothing more is expected of it
    exited: bool = False


class ProcessJob:
    """Some ranks, from start to end."""

    def __init__(
        self,
        work: tuple[Any, ...],
        ranks: int,
        *,
        timeout_s: float,
        outputs: Mapping[str, Output],
    ) -> None:
        """work: what a rank shall do, as `worker` reads it.  outputs: for "stdout", "stderr"."""
        self.failure: Failure | None = None
        self._outputs = outputs
        self._selector = selectors.DefaultSelector()
        self._stop_at: float | None = None
        self._interrupted = False
        self._signals_sent = 0
        self._ranks: list[_Rank] = []
        segment = create_segment(ranks)
        try:
            mapped = Segment(segment, ranks)
            self._board, self._watch = mapped.board(), DeadlockWatch(mapped, ranks)
            with _sigint_held_back() as held:
                for number in range(ranks):
                    self._ranks.append(self._start(number, ranks, segment))
            if held:
                raise KeyboardInterrupt
        except BaseException:
            self._stop_at = time.monotonic() - GRACE_S
            self._finish()
            raise
        finally:
            os.close(segment)
        for rank in self._ranks:
            send_message(rank.control, "start", rank.number, ranks, timeout_s, work)

    def _start(self, number: int, ranks: int, segment: int) -> _Rank:
        ours, theirs = socket.socketpair()
        process = subprocess.Popen(
            python_command("minipar.comm.worker", str(theirs.fileno()), str(segment)),
            env=_child_environment(ranks),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(theirs.fileno(), segment),
        )
        theirs.close()
        rank = _Rank(number, process, ours)
        self._selector.register(ours, selectors.EVENT_READ, (rank, "control"))
        for name in ("stdout", "stderr"):
            stream = getattr(process, name)
            os.set_blocking(stream.fileno(), False)
            rank.streams.append(stream)
            self._selector.register(stream, selectors.EVENT_READ, (rank, name))
        return rank

    # -- running ------------------------------------------------------------------------------

    def run(self) -> list[Any]:
        """Wait until all ranks have ended; their results.  `failure` is set if one failed.

        Raises: KeyboardInterrupt, after the ranks have been asked, terminated, killed.
        """
        try:
            while not all(rank.exited for rank in self._ranks):
                self._step()
        except KeyboardInterrupt:
            self._interrupted = True
            self._broadcast("interrupt")
            raise
        finally:
            self._finish()
        return [rank.result for rank in self._ranks]

    def _finish(self) -> None:
        """See every rank to its end, whatever happens, and print what they still had to say."""
        self._stop_at = self._stop_at or time.monotonic() + GRACE_S
        with _sigint_held_back():
            while not all(rank.exited for rank in self._ranks):
                self._step()
            for rank in self._ranks:
                for stream in rank.streams:
                    self._forward(rank, stream)
                    stream.close()
                rank.control.close()
                for output in self._outputs.values():
                    output.end(rank.number)
            self._selector.close()
            for output in self._outputs.values():
                output.close()

    def _step(self) -> None:
        due = [output.flush() for output in self._outputs.values()]
        for key, _ in self._selector.select(min([POLL_S, *(d for d in due if d is not None)])):
            rank, what = key.data
            if what == "control":
                self._listen(rank)
            elif not self._forward(rank, key.fileobj):
                self._selector.unregister(key.fileobj)
        for rank in self._ranks:
            if not rank.exited and rank.process.poll() is not None:
                self._exited(rank)
        if self._stop_at is None:
            report = self._watch.look(rank.number for rank in self._ranks if not rank.ended)
            if report is not None:
                self._stop_at = time.monotonic() + GRACE_S
                self._broadcast("deadlock", report)
        self._enforce()

    def _listen(self, rank: _Rank) -> None:
        message = receive_message(rank.control)
        if message is None:  # the process is ending; its exit status says how
            self._selector.unregister(rank.control)
        elif message[0] == "result":
            rank.ended, rank.result = True, message[1]
            self._broadcast("finished", rank.number)
        elif message[0] == "error":
            self._failed(message[1], rank)

    def _forward(self, rank: _Rank, stream: Any) -> bool:
        """Pass on what the stream has; False at its end."""
        name = "stdout" if stream is rank.streams[0] else "stderr"
        while raw := _read(stream):
            self._outputs[name].feed(rank.number, raw.decode(errors="replace"))
        return raw is not None

    def _exited(self, rank: _Rank) -> None:
        rank.exited = True
        if rank.control in self._selector.get_map():
            while not rank.ended and _has_data(rank.control):
                self._listen(rank)
                if rank.control not in self._selector.get_map():
                    break
        if not rank.ended and not self._interrupted:
            how = _describe_exit(rank.process.returncode)
            last = self._board.read(rank.number)
            text = f"rank {rank.number} {how}; its last call was {last}"
            self._failed(Failure(rank.number, text), rank)

    # -- failing ------------------------------------------------------------------------------

    def _failed(self, failure: Failure, rank: _Rank) -> None:
        rank.ended = True
        if self.failure is None:
            self.failure = failure
            self._stop_at = self._stop_at or time.monotonic() + GRACE_S
            self._broadcast("lost", rank.number, failure.summary)
        elif self._signals_sent == 0 and failure.summary != self.failure.summary:
            # It was not terminated from here, and has something else to say than the first.
            said = failure.summary.removeprefix(f"rank {rank.number} ")  # the label says it
            self._outputs["stderr"].feed(rank.number, f"{said}\n")

    def _broadcast(self, *message: Any) -> None:
        for rank in self._ranks:
            if not rank.exited:
                send_message(rank.control, *message)

    def _enforce(self) -> None:
        """Terminate, then kill, whoever is still there after the time to stop."""
        if self._stop_at is None:
            return
        late = time.monotonic() - self._stop_at
        signals = ((0.0, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL))
        for after, number in signals[self._signals_sent :]:
            if late > after:
                self._signals_sent += 1
                for rank in self._ranks:
                    if not rank.exited:
                        rank.process.send_signal(number)


def _child_environment(ranks: int) -> dict[str, str]:
    """rank_environment, with minipar importable also where it is not installed."""
    env = rank_environment(ranks)
    root = str(Path(__file__).resolve().parents[2])
    if root != sysconfig.get_path("purelib"):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    return env


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status} and without a word"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"was killed by signal {-status}"


def _read(stream: IO[bytes]) -> bytes | None:
    """Up to 64 KB; None at the end of the stream, empty if there is nothing now."""
    try:
        return os.read(stream.fileno(), 1 << 16) or None
    except BlockingIOError:
        return b""


def _has_data(sock: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


@contextmanager
def _sigint_held_back() -> Iterator[list[int]]:
    """Ctrl-C does not interrupt the block, only adds to this list; children started in it never
    get one (a blocked signal stays blocked in them, and then `worker` ignores it).
    """
    noted: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda n, _: noted.append(n)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield noted
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
