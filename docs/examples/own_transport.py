"""A transport of one's own: a queue in front of each rank, over threads started by hand."""

import queue
import threading
import time

import numpy as np

from minipar import Group
from minipar.comm.frame import header_for
from minipar.comm.mailbox import Mailbox, Receive, pending_receive
from minipar.comm.transport import Message, Pending, Transport
from minipar.errors import CommTimeout
from minipar.testing import PromiseBroken, check_transport


class QueueTransport(Transport):
    """Everything that is sent to rank r goes into queues[r]; its Mailbox sorts it."""

    backend = "queue"

    def __init__(self, rank, queues, timeout_s=10.0):
        self.rank, self.size = rank, len(queues)
        self._queues, self._timeout_s = queues, timeout_s
        self._mailbox = Mailbox()

    def isend(self, array, dst, call):
        message = Message(self.rank, header_for(call, array), array.copy())
        self._queues[dst].put(message)
        return Pending(self, ready=lambda: True, whom=dst, call=call)

    def irecv(self, src, call, out=None):
        return pending_receive(self, self._mailbox, Receive(src, call, out), call)

    def wait(self, ready, whom, call):
        deadline = time.monotonic() + self._timeout_s
        while not ready():
            try:
                left_s = max(0.0, deadline - time.monotonic())
                self._mailbox.deliver(self._queues[self.rank].get(timeout=left_s))
            except queue.Empty:
                raise CommTimeout(f"rank {self.rank} waited for rank {whom} in {call}") from None

    def progress(self):
        while not self._queues[self.rank].empty():  # nobody else takes from it
            self._mailbox.deliver(self._queues[self.rank].get())

    def poll(self, src, call):
        self.progress()
        return self._mailbox.holds(src, call)

    def check(self, whom, call):
        """A queue does not know who is still there."""

    def announce(self, call):
        """Only reports about waits need this."""

    def close(self):
        return self._mailbox.never_taken(self.rank, "it did not make {}".format)


class Forgetful(QueueTransport):
    """The same with a mistake: it keeps the sender's array instead of a copy."""

    def isend(self, array, dst, call):
        self._queues[dst].put(Message(self.rank, header_for(call, array), array))
        return Pending(self, ready=lambda: True, whom=dst, call=call)


def on_threads(kind, ranks, work):
    """Call work(group) on so many ranks; what each returned or raised."""
    queues = [queue.SimpleQueue() for _ in range(ranks)]
    ends = [None] * ranks

    def live(rank):
        try:
            ends[rank] = work(Group(kind(rank, queues)))
        except PromiseBroken as error:
            ends[rank] = error

    threads = [threading.Thread(target=live, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


if __name__ == "__main__":
    print(on_threads(QueueTransport, 3, lambda g: g.all_reduce(np.ones(2)).tolist()))
    print("check_transport:", on_threads(QueueTransport, 3, check_transport))
    print(on_threads(Forgetful, 1, check_transport)[0])
