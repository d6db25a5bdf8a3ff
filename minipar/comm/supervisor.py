"""The launcher's side of a job of processes: start them, tell them of each other, see them end.

    launcher ==control socket== rank     "start" ->                          <- "result" | "error"
             <=stdout, stderr== rank     "lost", "finished", "deadlock", "interrupt" ->

The socket tells each side at once when the other is gone. When a rank fails, the launcher tells
the others who and why, so that their waits end with that reason; whoever has not ended after
GRACE_S is terminated, then killed. Nothing has a name in the file system, so nothing is left.
If the job has ranks on other hosts as well, their launchers hear all this, too, through the `Site`.
`Crew` holds the processes; here is what happens when one of them says something, or ends. What
happens when one is lost and the others go on: `roll`.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from minipar.comm.child import Child
from minipar.comm.crew import Crew
from minipar.comm.failure import Failure
from minipar.comm.history import Parting, first_partings
from minipar.comm.output import Output
from minipar.comm.roll import Roll, begin_again, call_for_return, note_loss, report_loss
from minipar.comm.signals import sigint_held_back
from minipar.comm.site import Site
from minipar.comm.stopped import StoppedWatch
from minipar.comm.whereabouts import FINISHED, LAST_CALLS, Whereabouts, story

GRACE_S = 1.0  # between asking the ranks to stop and terminating them
KILL_AFTER_S = 0.5  # between terminating and killing them
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
        self.failure: Failure | None = None
        self._outputs, self._site, self._board, self._roll = outputs, site, site.board, roll
        self._finished: set[int] = set()
        self._fates: dict[int, str] = {}  # what has become of ranks that have failed here
        self._stop_at: float | None = None
        self._interrupted = False
        self._left: Failure | None = None  # a failure only if no rank fails otherwise
        self._signals_sent = 0
        self._partings: list[Iterable[Parting]] = []  # of each rank that has ended with a word
        self._stopped = StoppedWatch()
        self._crew = Crew(site, outputs, work, timeout_s)
        standing = None if roll is None else roll.standing(())
        try:
            with sigint_held_back() as held:
                for number in site.here:
                    self._crew.begin(self._crew.start(number), standing)
            if held:
                raise KeyboardInterrupt
        except BaseException:
            self._interrupted, self._stop_at = True, time.monotonic() - GRACE_S
            site.interrupt()
            self._finish()
            raise
        finally:
            site.started()
            if roll is None:
                site.forget_memory()

    # -- running ------------------------------------------------------------------------------

    def run(self) -> list[Any]:
        """Wait until all ranks have ended; their results.  `failure` is set if one failed.

        Raises: KeyboardInterrupt, or OSError if what they print cannot be written; after the ranks
                have been asked, terminated, killed.
        """
        try:
            while not self._crew.gone:
                self._step()
                self._crew.raise_if_unheard()
            self._agree()
        except (KeyboardInterrupt, OSError):
            self._interrupted = True
            self._crew.broadcast("interrupt")
            self._site.interrupt()
            raise
        finally:
            self._finish()
        self._crew.raise_if_unheard()
        if self.failure is not None:
            failed, kind = self.failure.rank, self.failure.kind
            told = story(self._whereabouts(), failed, kind, self.failure.in_a_call)
            self.failure = replace(self.failure, notes=(*told, *first_partings(self._partings)))
        lost = {} if self._roll is None else self._roll.failures
        return [
            lost[child.number].error() if child.number in lost else child.result
            for child in self._crew.children
        ]

    def _agree(self) -> None:
        """All ranks of this host have ended; see how the job ends."""
        if self._roll is None or not self._roll.lost:
            self.failure = self.failure or self._left or self._site.left()
        elif len(self._roll.failures) == self._site.ranks:
            self.failure = self.failure or self._roll.first
        self._site.note_end(self.failure)
        if self.failure is not None:
            self._site.note_fates(self._fates)
        begun = time.monotonic()
        while not self._site.settled():
            self._step()
            if self.failure is not None and time.monotonic() - begun > AGREEING_S:
                break

    def _whereabouts(self) -> list[Whereabouts]:
        """Of all ranks, when the job had failed."""
        assert self.failure is not None
        fates = {**self._site.fates, **self._fates}
        fates.setdefault(self.failure.rank, self.failure.fate)
        found = []
        for rank in range(self._site.ranks):
            calls = tuple(map(str, self._board.last(rank)[-LAST_CALLS:]))
            fate = FINISHED if rank in self._finished else fates.get(rank, "")
            found.append(Whereabouts(calls, None if fate else self._board.awaited(rank), fate))
        return found

    def _finish(self) -> None:
        """See every rank to its end, whatever happens, and print what they still had to say."""
        self._stop_at = self._stop_at or time.monotonic() + GRACE_S
        with sigint_held_back():
            while not self._crew.gone:
                self._step()
            self._crew.close(kill=self._interrupted or self.failure is not None)
            if self._roll is not None:
                self._site.forget_memory()
            self._site.close()

    def _step(self) -> None:
        for child, message in self._crew.hear():
            self._hear(child, *message)
        for child in self._crew.children:
            self._look_at(child)
        if self._roll is not None and self._roll.ports:
            call_for_return(self._roll, self._crew, self._site, self._finished)
        for message in self._site.hear():
            self._heed(*message)
        if self._stop_at is None:
            self._look_for_standstill()
        self._enforce()

    def _look_for_standstill(self) -> None:
        """End the job if a rank is stopped, or all wait for each other."""
        there = {c.number: c.process.pid for c in self._crew.children if not c.exited}
        stopped = self._stopped.look(there)
        if stopped is not None:
            child = self._crew.children[stopped - self._site.here[0]]
            last = self._board.read(stopped)
            text = f"rank {stopped} is stopped (SIGSTOP); its last call was {last}"
            self._failed(Failure(stopped, text), child)
            child.send_signal(signal.SIGKILL)  # it would not see any other
            return
        lost = set() if self._roll is None else self._roll.for_good
        report = self._site.deadlock(self._finished, lost)
        if report is not None:
            self._stop_at = time.monotonic() + GRACE_S
            self._crew.broadcast("deadlock", report)

    def _heed(self, kind: str, *about: Any) -> None:
        """What the launcher of another host says, or what all of them hear in one order."""
        if kind == "finished":
            self._note_finished(*about)
        elif kind == "failed":
            self._failed_elsewhere(*about)
        elif kind == "interrupt" and self._stop_at is None:
            raise KeyboardInterrupt(f" on node {about[0]}")
        elif self._roll is not None:
            self._note_loss_or_return(self._roll, kind, *about)

    def _note_loss_or_return(self, roll: Roll, kind: str, *about: Any) -> None:
        if kind == "reported":
            note_loss(roll, self._crew, self._site, *about)
            self._let_go_if_all_are_through()
        elif kind == "joined":
            begin_again(roll, self._crew, self._site, self._finished, *about)
        elif kind == "gone":
            ranks, why = about
            for rank in set(ranks) - self._finished - roll.for_good:
                self._site.tell("reported", rank, f"rank {rank} is lost with {why}", False)

    def _hear(self, child: Child, kind: str, *about: Any) -> None:
        """What a rank started here says, with the partings of its calls."""
        *content, partings = about
        self._partings.append(partings.values())
        if kind == "result":
            self._returned(child, *content)
        elif kind == "left":
            self._left = self._left or content[0]
        else:
            self._failed(content[0], child)

    def _look_at(self, child: Child) -> None:
        """See whether the process has exited, or should have."""
        if child.exited:
            return
        if child.process.poll() is not None:
            child.exited = True
            for _, message in self._crew.listen(child):
                self._hear(child, *message)
            broken = child.process.returncode != 0 and not child.failed
            if (broken or not child.ended) and not self._interrupted:
                last = self._board.read(child.number)
                text = f"rank {child.number} {child.how_it_ended()}; its last call was {last}"
                self._failed(Failure(child.number, text), child)
            if child.failure is not None and self._roll is not None:
                stopping = self._stop_at is not None
                report_loss(child, self._roll, self._crew, self._site, self._finished, stopping)
        elif child.ended_at is None:
            return
        elif child.failure is not None and time.monotonic() - child.ended_at > KILL_AFTER_S:
            child.send_signal(signal.SIGKILL)  # it has raised, but something keeps it
        elif time.monotonic() - max(child.ended_at, self._site.may_leave_at) > LINGERING_S:
            child.ended_at = float("inf")  # say it once
            text = "has returned, but its process goes on (a thread that is not a daemon?)"
            self._crew.say(child.number, text)

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
        self._site.note_finished(rank)
        self._crew.broadcast("finished", rank)
        self._let_go_if_all_are_through()

    def _let_go_if_all_are_through(self) -> None:
        lost = set() if self._roll is None else self._roll.for_good
        if len(self._finished | lost) == self._site.ranks:
            self._site.note_all_finished()
            self._crew.broadcast("leave")

    def _failed(self, failure: Failure, child: Child) -> None:
        child.failed = True
        child.end()
        if self._signals_sent == 0:
            self._fates.setdefault(child.number, failure.fate)
        if self._roll is not None and self._stop_at is None:
            child.failure = child.failure or failure  # it is lost once the process has ended
        elif self.failure is None:
            self.failure = failure
            self._stop_at = self._stop_at or time.monotonic() + GRACE_S
            self._site.note_end(failure)
            self._crew.broadcast("lost", child.number, failure.summary)
        elif self._signals_sent == 0 and failure.summary != self.failure.summary:
            # It was not terminated from here, and has something else to say than the first.
            self._crew.say(child.number, failure.summary)

    def _failed_elsewhere(self, failure: Failure) -> None:
        """All hosts end with the failure of which node 0 heard first."""
        mine, self.failure = self.failure, failure
        if mine is None:
            self._stop_at = self._stop_at or time.monotonic() + GRACE_S
            self._crew.broadcast("lost", failure.rank, failure.summary)
        elif mine.rank == failure.rank:
            self.failure = mine  # with its traceback
        elif mine.rank in self._site.here and mine.summary != failure.summary:
            self._outputs["stderr"].feed(mine.rank, f"{mine.summary}\n")

    def _enforce(self) -> None:
        """Terminate, then kill, whoever is still there after the time to stop."""
        if self._stop_at is None:
            return
        late = time.monotonic() - self._stop_at
        signals = ((0.0, signal.SIGTERM), (KILL_AFTER_S, signal.SIGKILL))
        for after, number in signals[self._signals_sent :]:
            if late > after:
                self._signals_sent += 1
                self._crew.signal(number)
