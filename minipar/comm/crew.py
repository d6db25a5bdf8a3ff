"""The processes of the ranks that are started on this host: talk to them, pass on what they print.

    launcher ==control socket== rank
             <=stdout, stderr== rank

All of them are watched at once, and nothing here waits for one of them: see `child`. What the
messages mean, and how a job ends, is for the `supervisor`.
"""

from __future__ import annotations

import selectors
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from minipar.comm.child import Child
from minipar.comm.output import Output
from minipar.comm.signals import sigint_held_back
from minipar.comm.site import Site
from minipar.errors import CommError

POLL_S = 0.05


class Crew:
    """The `children`, one a rank."""

    def __init__(
        self, site: Site, outputs: Mapping[str, Output], work: tuple[Any, ...], timeout_s: float
    ) -> None:
        """What is said at one of the site's sockets ends a wait in `hear`, too."""
        self._site, self._outputs = site, outputs
        self._work, self._timeout_s = work, timeout_s
        self.children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        for sock in site.sockets:
            self._selector.register(sock, selectors.EVENT_READ, (None, "site"))

    @property
    def gone(self) -> bool:
        """Whether all processes have exited."""
        return all(child.exited for child in self.children)

    def child(self, number: int) -> Child | None:
        """The process of that rank; None if it is on another host."""
        return next((child for child in self.children if child.number == number), None)

    # -- beginning ----------------------------------------------------------------------------

    def start(self, number: int) -> Child:
        """Start the process of a rank.  Raises: CommError if the system does not let us."""
        with _refusal_explained(number):
            self.children.append(self._start(number))
        return self.children[-1]

    def _start(self, number: int) -> Child:
        known = self._site.neighbours(number)
        inherited = [] if known is None or known.listener < 0 else [known.listener]
        child = Child(number, self._site.on_host, self._site.memory, *inherited)
        child.neighbours = known
        self._selector.register(child.control, selectors.EVENT_READ, (child, "control"))
        for name, stream in child.streams.items():
            self._selector.register(stream, selectors.EVENT_READ, (child, name))
        return child

    def begin(self, child: Child, standing: Any = None) -> None:
        """Tell the rank's process what to do.  standing: of lost ranks, if they are reported."""
        child.started = True
        known, ranks = child.neighbours, self._site.ranks
        what = (child.number, ranks, self._timeout_s, self._work, known, standing)
        self._tell(child, "start", *what)

    # -- talking ------------------------------------------------------------------------------

    def broadcast(self, *message: Any) -> None:
        """To all ranks that have begun."""
        for child in self.children:
            if child.started and not child.exited:
                self._tell(child, *message)

    def _tell(self, child: Child, *message: Any) -> None:
        child.say(*message)
        if child.control in self._selector.get_map():
            self._write_on(child)

    def _write_on(self, child: Child) -> None:
        """Send what the socket takes, and come back when it takes more."""
        writing = selectors.EVENT_WRITE if child.push() else 0
        self._selector.modify(child.control, selectors.EVENT_READ | writing, (child, "control"))

    def hear(self) -> Iterator[tuple[Child, tuple[Any, ...]]]:
        """What ranks say in the next POLL_S; meanwhile what they print is passed on."""
        due = [output.flush() for output in self._outputs.values()]
        for key, _ in self._selector.select(min([POLL_S, *(d for d in due if d is not None)])):
            child, what = key.data
            if what == "site":
                continue
            if what == "control":
                yield from self.listen(child)
            elif (text := child.printed(what)) is None:
                self._selector.unregister(key.fileobj)
            else:
                self._outputs[what].feed(child.number, text)

    def listen(self, child: Child) -> Iterator[tuple[Child, tuple[Any, ...]]]:
        """What this one has said by now."""
        if child.control not in self._selector.get_map():
            return
        for message in child.hear():
            yield child, message
        if child.hung_up:  # the process is ending; its exit status says how
            self._selector.unregister(child.control)
        else:
            self._write_on(child)

    def say(self, rank: int, line: str) -> None:
        """Print a line about that rank where its own lines are."""
        self._outputs["stderr"].feed(rank, line.removeprefix(f"rank {rank} ") + "\n")  # the label

    def raise_if_unheard(self) -> None:
        """Raises: OSError if what they print cannot be written."""
        for output in self._outputs.values():
            if output.error is not None:
                raise output.error

    # -- the end ------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """To all that are still there."""
        for child in self.children:
            if not child.exited:
                child.send_signal(number)

    def replace(self, child: Child) -> str:
        """Start another process in the place of this one; why the system does not let us, or ""."""
        number, why = child.number, ""
        with sigint_held_back() as held:
            try:
                fresh = self._start(number)
            except OSError as error:
                why = f"it cannot be started again: {error.strerror}"
            else:
                self._bury(child)
                self.children[self.children.index(child)] = fresh
        if held:
            raise KeyboardInterrupt
        return why

    def _bury(self, child: Child) -> None:
        """Let go of a process in whose place another one is started."""
        self._print_the_rest(child)
        for key in list(self._selector.get_map().values()):
            if key.data[0] is child:
                self._selector.unregister(key.fileobj)
        child.close()

    def _print_the_rest(self, child: Child) -> None:
        for name, output in self._outputs.items():
            output.feed(child.number, child.last_words(name))
            output.end(child.number)

    def close(self, kill: bool) -> None:
        """All have exited.  kill: what they have started and left behind, too."""
        for child in self.children:
            if kill:
                child.send_signal(signal.SIGKILL)
            self._print_the_rest(child)
            child.close()
        self._selector.close()
        for output in self._outputs.values():
            output.close()


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
