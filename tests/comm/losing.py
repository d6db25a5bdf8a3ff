"""Ranks that are lost, as functions that processes can import; see test_losses.py."""

import atexit
import os
import signal
import sys
import threading

import numpy as np

from minipar.comm import loans, reach
from minipar.comm.transport import ANY
from minipar.errors import PeerLost


def die(how="kill"):
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "raise":
        raise ValueError("it has had enough")
    if how == "_exit":
        os._exit(3)
    if how == "exit":
        sys.exit(7)


def told(call, *args, **more):
    """What the error of that call says of the loss."""
    try:
        call(*args, **more)
    except PeerLost as error:
        return error.rank, error.incarnation, error.returns, str(error)
    return None


def in_every_way(group, how):
    """Rank 1 is lost; what the calls of the others say, and that they go on among themselves."""
    pair = group.subgroup([2, 0])
    if group.rank == 1:
        group.send(np.array([5]), 0)
        die(how)
    left, right = group.rank, 2 - group.rank
    says = [group.recv(1)] if left == 0 else []
    says += [told(group.recv, 1), told(group.recv, 1), told(group.send, np.zeros(2), 1)]
    says += [told(group.isend(np.ones(1), right).wait), told(group.all_reduce, np.ones(3))]
    says += [told(group.barrier), told(group.recv, ANY)]
    says += [group.poll(1), group.recv(right), pair.all_reduce(np.full(4, left + 1.0))]
    return [*says, group.incarnation]


def never_begins(group):
    if group.rank == 1:
        die()
    return told(group.barrier), told(group.send, np.zeros(1 << 20), 1)


def half_sent(group, nbytes, heap):
    """Rank 1 dies with a message under way; rank 2's, begun likewise, comes."""
    x = (group.empty if heap else np.empty)(nbytes // 8, np.float64)
    x[:] = group.rank
    if group.rank == 0:
        says, out = [], np.empty_like(x)
        for src in (1, 2):
            try:
                got = group.recv(src, out)
                says.append(bool((got == src).all()))
            except PeerLost as error:
                says.append(error.rank)
        return says
    sending = group.isend(x, 0)
    if group.rank == 1:
        die()
    return sending.wait()


def dies_while_helping(group, n, heap):
    """Rank 1 dies in the midst of a piece that it copies for its receiver."""
    if group.rank == 1:
        group.send(np.ones(n), 0)
        x = (group.empty if heap else np.empty)(n, np.float64)
        x[:] = 1
        loans._Helper._write = lambda helper, piece: die()
        group.send(x, 0)
        die()  # it was not asked to help
    assert (group.recv(1) == 1).all()
    try:
        got = group.recv(1)
    except PeerLost as error:
        return error.rank
    return bool((got == 1).all()) or "torn"


def dies_while_it_is_read(group, n):
    """Rank 0 kills rank 1 in the midst of reading its memory; then it reads that of the next."""
    if group.rank == 1:
        group.send(np.array(os.getpid()), 0)
        group.recv(0)
        for _ in range(2):  # from the second on, the receiver knows that it can read
            group.send(np.full(n, group.incarnation), 0)
        return group.incarnation
    victim, fetch = int(group.recv(1)), reach.Private.fetch

    def kill(window, start, into):
        if start and window._pid == victim:
            os.kill(victim, signal.SIGKILL)
            while not _has_gone(victim):
                pass
        fetch(window, start, into)

    reach.Private.fetch = kill
    group.send(np.zeros(1), 1)
    says = [bool((group.recv(1) == 0).all()), told(group.recv, 1)[:3]]
    group.recv(1)
    group.send(np.zeros(1), 1)
    return says + [bool((group.recv(1) == 1).all()) for _ in range(2)]


def _has_gone(pid):
    """Whether its memory has: a process that has ended, but was not waited for, has none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def inside_a_collective(group, call, sends, how):
    """Rank 1 dies at its n-th send of a collective; all others are told, then or at the next."""
    x = np.ones(100_000)
    pair = group.subgroup([2, 0])
    if group.rank == 1:
        isend, left = group._transport.isend, [sends]

        def last_one(*args):
            left[0] -= 1
            return isend(*args) if left[0] else die(how)

        group._transport.isend = last_one
    calls = {
        "all_reduce": lambda: group.all_reduce(x),
        "async": lambda: group.all_reduce(x, async_op=True).wait(),
        "split": lambda: group.split(0),
        "broadcast": lambda: group.broadcast(x, 1),
        "all_to_all": lambda: group.all_to_all(np.ones((3, 50_000))),
    }
    says = None
    while says is None:
        says = told(calls[call])
    handle = pair.all_reduce(np.full(2, group.rank + 1.0), async_op=True)
    return says[0], told(group.barrier)[0], handle.wait().tolist()


def serve(group, lives, pushes):
    """Rank 0 answers whoever asks; the others ask, and die now and then after a push."""
    if group.rank:
        for i in range(pushes):
            group.send(np.array([group.incarnation, i]), 0)
            if group.incarnation < lives.get(group.rank, 0) and i == group.incarnation + 1:
                die()
            assert group.recv(0)[0] == group.incarnation
        group.send(np.array([group.incarnation, -1]), 0)
        return group.incarnation
    heard, left = {r: [] for r in range(1, group.size)}, group.size - 1
    while left:
        try:
            src, x = group.recv(ANY)
        except PeerLost as error:
            heard[error.rank].append(f"lost {error.incarnation}")
            left -= not error.returns
            continue
        heard[src].append(x.tolist())
        left -= x[1] == -1
        if x[1] >= 0:
            told(group.send, x, src)
    return heard


def server_dies(group, n, how="kill"):
    """The other way round: rank 0 is lost, and its workers ask the next one again."""
    if group.rank == 0:
        answered = []
        while answered.count(10) < group.size - 1:
            src, x = group.recv(ANY)
            if group.incarnation == 0 and answered:
                die(how)
            answered.append(x[-1])
            group.send(x + group.incarnation, src)
        return group.incarnation
    says = []
    for i in range(2):
        x = np.full(n, 10.0 * i)
        while True:
            try:
                group.send(x, 0)
                says.append(float(group.recv(0)[-1]))
                break
            except PeerLost as error:
                assert (error.rank, error.incarnation, error.returns) == (0, 0, True)
                says.append("lost")
    return says


def something_keeps_it(group):
    """Rank 1 raises, and a thread of it goes on."""
    if group.rank == 1:
        threading.Thread(target=threading.Event().wait).start()
        die("raise")
    return told(group.recv, 1)


def two_at_once(group, how):
    """Ranks 1 and 3 are lost, and meet again."""
    if group.rank in (1, 3) and group.incarnation == 0:
        group.isend(np.zeros(1 << 20), 4 - group.rank)
        die(how)
    if group.rank in (1, 3):
        other = 4 - group.rank
        while True:
            try:
                x = group.sendrecv(np.array([group.rank]), other, other)
                break
            except PeerLost:
                pass
        return int(x[0])
    return [told(group.recv, r)[0] for r in (1, 3)]


def waits_for_each_other(group):
    if group.rank == 1:
        die("raise")
    group.recv(2 - group.rank)


def breaks_after_its_return(group):
    """Rank 1 breaks, and rank 2 is lost afterwards: its next incarnation begins all the same."""
    if group.rank == 1:
        group.send(np.array(os.getpid()), 2)
        atexit.register(os._exit, 5)
    elif group.rank == 2 and group.incarnation == 0:
        pid = int(group.recv(1))
        while not _has_gone(pid):
            pass
        die()
    return group.incarnation


def many_lives(group, lives):
    """Rank 1 dies again and again, with messages of every size under way, both ways."""
    sizes = (1, 1000, 200_000, 1_500_000)
    if group.rank == 1:
        for i in range(4):
            group.isend(np.full(sizes[i], 100.0 * group.incarnation + i), 0)
            if group.incarnation < lives and i == group.incarnation % 4:
                die()
            x = group.recv(0)
            assert (x == 100 * group.incarnation + i).all() and len(x) == sizes[i]
        group.send(np.zeros(0), 0)
        return group.incarnation
    ends, life, i = 0, 0, 0
    while True:
        try:
            x = group.recv(1)
            if not len(x):
                return ends
            assert (x == 100 * life + i).all(), (life, i, x)
            i += 1
            group.isend(x, 1)
        except PeerLost as error:
            assert error.incarnation == life
            ends, life, i = ends + 1, life + 1, 0


def serve_by_name(group, lives, pushes):
    """`serve`, with what JSON makes of its arguments and results."""
    found = serve(group, {int(rank): n for rank, n in lives.items()}, pushes)
    return {str(rank): said for rank, said in found.items()} if group.rank == 0 else found


def ends_its_launcher(group):
    """Rank 1 kills the launcher of its host."""
    if group.rank == 1:
        os.kill(os.getppid(), signal.SIGKILL)
    return [told(group.recv, r) for r in (1, 2) if r != group.rank]
