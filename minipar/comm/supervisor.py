"""The launcher's side of a job of processes: start them, pass on what they print, see them end.

    launcher ==control socket== rank     "start" ->                          <- "result" | "error"
             <=stdout, stderr== rank     "lost", "finished", "deadlock", "interrupt" ->

The socket tells each side at once when the other is gone. When a rank fails, the launcher tells
the others who and why, so that their waits end with that reason; whoever has not ended after
GRACE_S is terminated, then killed. Nothing has a name in the file system, so nothing is left.
If the job has ranks on other hosts as well, their launchers hear all this, too, through the `Site`.
"""

from __future__ import annotations

import pickle
import selectors
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from minipar.comm.child import Child
from minipar.comm.failure import Failure
from minipar.comm.history import Parting, first_partings
from minipar.comm.output import Output
from minipar.comm.roll import Roll
from minipar.comm.signals import sigint_held_back
from minipar.comm.site import Site
from minipar.comm.stopped import StoppedWatch
from minipar.errors import CommError

GRACE_S = 1.0  # between asking the ranks to stop and terminating them
KILL_AFTER_S = 0.5  # between terminating and killing them
POLL_S = 0.05
AGREEING_S = 3.0  # in which all hosts should know of a failure
LINGERING_S = 5.0  # after which a process that has returned and does not exit is mentioned


class ProcessJob:
    """Some ranks, from start to end."""

    def __init__(
        self,
        work: tuple[Any, ...],
        site: Site,
        *,
        timeout_s: float,
        outputs: Mapping[str, Output],
        roll: Roll | None = None,
    ) -> None:
        """work: what a rank shall do, as `worker` reads it.  outputs: for "stdout", "stderr".

        site: which ranks are started here.  roll: of lost ranks; None if one ends the job.
        """
        self._work, self._timeout_s, self._roll = work, timeout_s, roll
        self.failure: Failure | None = None
        self._outputs, self._site, self._board = outputs, site, site.board
        self._finished: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._stop_at: float | None = None
        self._interrupted = False
        self._left: Failure | None = None  # a failure only if no rank fails otherwise
        self._signals_sent = 0
        self._partings: list[Iterable[Parting]] = []  # of each rank that has ended with a word
        self._children: list[Child] = []
        self._stopped = StoppedWatch()
        for sock in site.sockets:  # what is said there is heard at every step
            self._selector.register(sock, selectors.EVENT_READ, (None, "site"))
        try:
            with sigint_held_back() as held:
                for number in site.here:
                    with _refusal_explained(number):
                        self._children.append(self._start(number))
                    self._begin(self._children[-1])
            if held:
                raise KeyboardInterrupt
        except BaseException:
            self._interrupted, self._stop_at = True, time.monotonic() - GRACE_S
            site.interrupt()
            self._finish()
            raise
        finally:
            if roll is None:
                site.started()

    def _start(self, number: int) -> Child:
        known = self._site.neighbours(number)
        inherited = [] if known is None or known.listener < 0 else [known.listener]
        child = Child(number, self._site.on_host, self._site.memory, *inherited)
        self._selector.register(child.control, selectors.EVENT_READ, (child, "control"))
        for name, stream in child.streams.items():
            self._selector.register(stream, selectors.EVENT_READ, (child, name))
        return child

    def _begin(self, child: Child) -> None:
        """Tell the rank's process what to do."""
        child.started = True
        self._tell(
            child,
            "start",
            child.number,
            self._site.ranks,
            self._timeout_s,
            self._work,
            self._site.neighbours(child.number),
            None if self._roll is None else self._roll.standing(self._finished),
        )

    # -- running ------------------------------------------------------------------------------

    def run(self) -> list[Any]:
        """Wait until all ranks have ended; their results.  `failure` is set if one failed.

        Raises: KeyboardInterrupt, or OSError if what they print cannot be written; after the ranks
                have been asked, terminated, killed.
        """
        try:
            while not all(child.exited for child in self._children):
                self._step()
                self._raise_if_unheard()
            self._agree()
        except (KeyboardInterrupt, OSError):
            self._interrupted = True
            self._broadcast("interrupt")
            self._site.interrupt()
            raise
        finally:
            self._finish()
        self._raise_if_unheard()
        if self.failure is not None:
            notes = first_partings(self._partings)
            if self.failure.in_a_call:
                notes = (self._board.story(range(self._site.ranks)), *notes)
            self.failure = replace(self.failure, notes=notes)
        lost = {} if self._roll is None else self._roll.failures
        return [lost[c.number].error() if c.number in lost else c.result for c in self._children]

    def _raise_if_unheard(self) -> None:
        for output in self._outputs.values():
            if output.error is not None:
                raise output.error

    def _agree(self) -> None:
        """All ranks of this host have ended; see how the job ends."""
        if self._roll is None or not self._roll.lost:
            self.failure = self.failure or self._left or self._site.left()
        elif len(self._roll.failures) == self._site.ranks:
            self.failure = self.failure or self._roll.first
        self._site.note_end(self.failure)
        begun = time.monotonic()
        while not self._site.settled():
            self._step()
            if self.failure is not None and time.monotonic() - begun > AGREEING_S:
                break

    def _finish(self) -> None:
        """See every rank to its end, whatever happens, and print what they still had to say."""
        self._stop_at = self._stop_at or time.monotonic() + GRACE_S
        with sigint_held_back():
            while not all(child.exited for child in self._children):
                self._step()
            for child in self._children:
                if self._interrupted or self.failure is not None:
                    child.send_signal(signal.SIGKILL)  # what it has started and left behind
                for name, output in self._outputs.items():
                    output.feed(child.number, child.last_words(name))
                    output.end(child.number)
                child.close()
            self._selector.close()
            for output in self._outputs.values():
                output.close()
            if self._roll is not None:
                self._site.started()
            self._site.close()

    def _step(self) -> None:
        due = [output.flush() for output in self._outputs.values()]
        for key, _ in self._selector.select(min([POLL_S, *(d for d in due if d is not None)])):
            child, what = key.data
            if what == "site":
                continue
            if what == "control":
                self._listen(child)
            elif (text := child.printed(what)) is None:
                self._selector.unregister(key.fileobj)
            else:
                self._outputs[what].feed(child.number, text)
        for child in self._children:
            self._look_at(child)
        if self._roll is not None and self._roll.absent:
            self._start_again(self._roll)
        for message in self._site.hear():
            self._heed(*message)
        if self._stop_at is None:
            self._look_for_standstill()
        self._enforce()

    def _look_for_standstill(self) -> None:
        """End the job if a rank is stopped, or all wait for each other."""
        there = {c.number: c.process.pid for c in self._children if not c.exited}
        stopped = self._stopped.look(there)
        if stopped is not None:
            child, last = self._children[stopped - self._site.here[0]], self._board.read(stopped)
            text = f"rank {stopped} is stopped (SIGSTOP); its last call was {last}"
            self._failed(Failure(stopped, text), child)
            child.send_signal(signal.SIGKILL)  # it would not see any other
            return
        lost = set() if self._roll is None else self._roll.for_good
        report = self._site.deadlock(self._finished, lost)
        if report is not None:
            self._stop_at = time.monotonic() + GRACE_S
            self._broadcast("deadlock", report)

    def _heed(self, kind: str, about: Any) -> None:
        """What the launcher of another host says."""
        if kind == "finished":
            self._note_finished(about)
        elif kind == "failed":
            self._failed_elsewhere(about)
        elif self._stop_at is None:
            raise KeyboardInterrupt(f" on node {about}")

    def _listen(self, child: Child) -> None:
        for kind, *content, partings in child.hear():
            self._partings.append(partings.values())
            if kind == "result":
                self._returned(child, *content)
            elif kind == "left":
                self._left = self._left or content[0]
            else:
                self._failed(content[0], child)
        if child.hung_up:  # the process is ending; its exit status says how
            self._selector.unregister(child.control)
            return
        self._write_on(child)

    def _tell(self, child: Child, *message: Any) -> None:
        child.say(*message)
        if child.control in self._selector.get_map():
            self._write_on(child)

    def _write_on(self, child: Child) -> None:
        """Send what the socket takes, and come back when it takes more."""
        writing = selectors.EVENT_WRITE if child.push() else 0
        self._selector.modify(child.control, selectors.EVENT_READ | writing, (child, "control"))

    def _look_at(self, child: Child) -> None:
        """See whether the process has exited, or should have."""
        if child.exited:
            return
        if child.process.poll() is not None:
            child.exited = True
            if child.control in self._selector.get_map():
                self._listen(child)
            broken = child.process.returncode != 0 and not child.failed
            if (broken or not child.ended) and not self._interrupted:
                last = self._board.read(child.number)
                text = f"rank {child.number} {child.how_it_ended()}; its last call was {last}"
                self._failed(Failure(child.number, text), child)
            if child.failure is not None and self._roll is not None:
                self._lose(child, self._roll)
        elif child.ended_at is None:
            return
        elif child.failure is not None and time.monotonic() - child.ended_at > KILL_AFTER_S:
            child.send_signal(signal.SIGKILL)  # it has raised, but something keeps it
        elif time.monotonic() - max(child.ended_at, self._site.may_leave_at) > LINGERING_S:
            child.ended_at = float("inf")  # say it once
            text = "has returned, but its process goes on (a thread that is not a daemon?)\n"
            self._outputs["stderr"].feed(child.number, text)

    # -- ending -------------------------------------------------------------------------------

    def _returned(self, child: Child, result: bytes, left: Failure | None) -> None:
        try:
            child.result = pickle.loads(result)
        except Exception as error:  # whatever a foreign class raises when it is read back
            text = f"rank {child.number} returned what cannot be read here: {error!r}"
            self._failed(Failure(child.number, text), child)
            return
        child.end()
        self._left = self._left or left
        self._note_finished(child.number)

    def _note_finished(self, rank: int) -> None:
        """That rank, here or elsewhere, has returned."""
        self._finished.add(rank)
        self._site.note_finished(rank, self._finished)
        self._broadcast("finished", rank)
        if len(self._finished) == self._site.ranks:
            self._broadcast("leave")

    def _failed(self, failure: Failure, child: Child) -> None:
        child.failed = True
        child.end()
        if self._roll is not None and self._stop_at is None:
            child.failure = child.failure or failure  # it is lost once the process has ended
        elif self.failure is None:
            self.failure = failure
            self._stop_at = self._stop_at or time.monotonic() + GRACE_S
            self._broadcast("lost", child.number, failure.summary)
            self._site.note_end(failure)
        elif self._signals_sent == 0 and failure.summary != self.failure.summary:
            # It was not terminated from here, and has something else to say than the first.
            self._say(child.number, failure.summary)

    def _failed_elsewhere(self, failure: Failure) -> None:
        """All hosts end with the failure of which node 0 heard first."""
        mine, self.failure = self.failure, failure
        if mine is None:
            self._stop_at = self._stop_at or time.monotonic() + GRACE_S
            self._broadcast("lost", failure.rank, failure.summary)
        elif mine.rank == failure.rank:
            self.failure = mine  # with its traceback
        elif mine.rank in self._site.here and mine.summary != failure.summary:
            self._outputs["stderr"].feed(mine.rank, f"{mine.summary}\n")

    def _broadcast(self, *message: Any) -> None:
        for child in self._children:
            if child.started and not child.exited:
                self._tell(child, *message)

    # -- lost ranks, if they are reported -----------------------------------------------------

    def _lose(self, child: Child, roll: Roll) -> None:
        """The rank's process has ended; the others go on, perhaps with another in its place."""
        number = child.number
        child.send_signal(signal.SIGKILL)  # what it has started and left behind
        if number in self._finished:  # it broke after its return, so nobody waits for it
            roll.failures[number] = child.failure
            self._say(number, child.failure.why)
            return
        returns = roll.restarts > 0 and self._stop_at is None and self._replace(child)
        lost = roll.lose(child.failure, returns)
        self._say(number, str(lost))
        self._broadcast("reported", lost)

    def _say(self, rank: int, line: str) -> None:
        self._outputs["stderr"].feed(rank, line.removeprefix(f"rank {rank} ") + "\n")  # the label

    def _replace(self, child: Child) -> bool:
        """Start another process in the place of this one; whether the system allows it."""
        number, fresh = child.number, None
        with sigint_held_back() as held:
            try:
                fresh = self._start(number)
            except OSError as error:
                self._say(number, f"cannot be started again: {error.strerror}")
            else:
                self._bury(child)
                self._children[self._children.index(child)] = fresh
        if held:
            raise KeyboardInterrupt
        return fresh is not None

    def _bury(self, child: Child) -> None:
        """Let go of a process in whose place another one is started."""
        for name, output in self._outputs.items():
            output.feed(child.number, child.last_words(name))
            output.end(child.number)
        for key in list(self._selector.get_map().values()):
            if key.data[0] is child:
                self._selector.unregister(key.fileobj)
        child.close()

    def _start_again(self, roll: Roll) -> None:
        """Let those begin of whose loss all others have heard."""
        there = {
            c.number
            for c in self._children
            if c.started and not c.exited and c.number not in self._finished
        }
        for number in roll.due(there):
            roll.clear(number, there)
            self._broadcast("joined", number, roll.incarnation(number))
            self._begin(next(c for c in self._children if c.number == number))
            there.add(number)

    def _enforce(self) -> None:
        """Terminate, then kill, whoever is still there after the time to stop."""
        if self._stop_at is None:
            return
        late = time.monotonic() - self._stop_at
        signals = ((0.0, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL))
        for after, number in signals[self._signals_sent :]:
            if late > after:
                self._signals_sent += 1
                for child in self._children:
                    if not child.exited:
                        child.send_signal(number)


@contextmanager
def _refusal_explained(rank: int) -> Iterator[None]:
    """Raises: CommError if the system does not let the block start the process of this rank."""
    try:
        yield
    except OSError as error:
        raise CommError(
            f"the process of rank {rank} cannot be started: {error.strerror}. Start fewer ranks, "
            "or raise the limit of open files (`ulimit -n`), of processes (`ulimit -u`), or of "
            "memory."
        ) from None
