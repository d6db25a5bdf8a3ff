"""What a transport promises, as checks that any transport can be held against.

    def work(group):                                   # on every rank
        check_transport(group)                         # or Group(MyTransport(...))

A promise is a function that all ranks call, named after what it holds the transport to. Its
docstring is what the error says if it is broken: the first line, and the usual cause. They are
meant to be read one after the other: together they are the contract of `comm.transport`.

Letters: p ranks, r own rank; left and right are the ranks before and after it, in a circle.

Left out on purpose: failures. What happens when a rank dies is a promise of whoever starts ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minipar.array import describe
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.group import Group
from minipar.comm.transport import ANY
from minipar.errors import CallMismatch
from minipar.testing.promise import Promise, PromiseBroken, check_promise, expect

LARGE = 100_000  # numbers: 800 KB, more than a transport buffers


def check_transport(
    group: Group, promises: Sequence[Promise] = (), patience_s: float = 60.0
) -> None:
    """Hold what carries the messages of this group against every promise; all ranks call this.

    promises:   those to check, in order (all, if not given); the same on every rank.
    patience_s: how long one may take. A transport owes that every wait ends.
    Raises:     PromiseBroken, which names the promise, the rank, what came and what was expected.
    """
    for promise in promises or PROMISES:
        check_promise(group, promise, patience_s)


# -- messages ---------------------------------------------------------------------------------


def a_message_arrives(group: Group) -> None:
    """What one rank sends, the other receives: once, and whole.

    Usual cause: a message that is dropped, sent twice, or cut where it comes in pieces.
    """
    left, right = _neighbours(group)
    for n in (1, LARGE):
        group.send(np.arange(n) + group.rank, right)
        expect(group.recv(left), np.arange(n) + left, f"the message from rank {left}")
    group.barrier()
    if group.poll():
        raise PromiseBroken("all messages were received, and yet there is another one")


def shape_and_dtype_arrive(group: Group) -> None:
    """An array arrives with its shape and dtype, also if it is empty, a scalar, or strided.

    Usual cause: bytes that are sent without a header, or an array whose memory is not contiguous.
    """
    left, right = _neighbours(group)
    for dtype in ("bool", "uint8", "int32", "int64", "float16", "float32", "float64"):
        for shape in ((), (0,), (3, 0, 2), (2, 1, 3)):
            x = np.ones(shape, dtype)
            expect(group.sendrecv(x, right, left), x, f"a message of {describe(x)}")
    strided = np.arange(24.0).reshape(4, 6)[:, ::2].T  # neither C nor Fortran order
    expect(group.sendrecv(strided, right, left), strided, "a message of a strided array")


def order_is_kept(group: Group) -> None:
    """Messages from one rank to another arrive in the order in which they were sent.

    Usual cause: small and large messages that take different ways, or several threads per pair.
    """
    left, right = _neighbours(group)
    sizes = [LARGE if i % 4 == 1 else i for i in range(16)]
    sends = [group.isend(np.full(n, i), right) for i, n in enumerate(sizes)]
    early = [group.irecv(left) for _ in sizes[:4]]
    for i, n in enumerate(sizes):
        got = early[i].wait() if i < len(early) else group.recv(left)
        expect(got, np.full(n, i), f"message {i} from rank {left}")
    for send in sends:
        send.wait()


def a_sent_array_may_change(group: Group) -> None:
    """When `send` returns, the array may be changed: the receiver has, or will get, what it was.

    Usual cause: the transport keeps the sender's array instead of a copy.
    """
    left, right = _neighbours(group)
    for n in (3, LARGE):
        x, request = np.full(n, group.rank), group.irecv(left)
        group.send(x, right)
        x[:] = -1
        expect(request.wait(), np.full(n, left), f"what rank {left} sent, then changed,")


def a_received_array_is_the_receivers(group: Group) -> None:
    """Who has received an array may write to it, and the sender's stays as it was.

    Usual cause: sender and receiver, in one process, get the same array.
    """
    left, right = _neighbours(group)
    for n in (3, LARGE):
        x = np.full(n, group.rank)
        send = group.isend(x, right)
        group.recv(left)[:] = -1
        send.wait()
        group.barrier()
        expect(x, np.full(n, group.rank), "the array that was sent, after its receiver wrote,")


def opposite_sends_do_not_block(group: Group) -> None:
    """Ranks that all send first and then receive get through, however large the messages are.

    Usual cause: a send that waits for its receive. While it waits, a rank must take in what comes.
    """
    left, right = _neighbours(group)
    big = np.full(3 * LARGE, group.rank)
    group.send(big, right)
    expect(group.recv(left), np.full(big.shape, left), "a large message")
    others = [other for other in range(group.size) if other != group.rank]
    sends = [group.isend(big, other) for other in others]
    for other in others:
        expect(group.recv(other), np.full(big.shape, other), "a large message")
    for send in sends:
        send.wait()


def small_sends_wait_for_nobody(group: Group) -> None:
    """A hundred small messages can be sent to a rank that does not listen yet.

    Usual cause: no buffer, or one for fewer messages. 256 KB per pair are owed.
    """
    left, right = _neighbours(group)
    for i in range(100):
        group.send(np.full(16, i), right)
    group.barrier()
    for i in range(100):
        expect(group.recv(left), np.full(16, i), f"small message {i}")


def a_rank_may_send_to_itself(group: Group) -> None:
    """A message to oneself arrives like any other.

    Usual cause: a connection for each *other* rank, and none for the own one.
    """
    for n in (1, LARGE):
        group.send(np.full(n, group.rank), group.rank)
        expect(group.recv(group.rank), np.full(n, group.rank), "the message to oneself")


# -- receives ---------------------------------------------------------------------------------


def any_takes_each_once(group: Group) -> None:
    """`recv(ANY)` gives the messages of all ranks, each once, with the rank that sent it.

    Usual cause: a receive that stays posted with the others after one of them has been served.
    """
    for n in (1, LARGE):
        group.barrier()
        if group.rank:
            group.send(np.full(n, group.rank), 0)
            continue
        got = [group.recv(ANY) for _ in range(group.size - 1)]
        expect(np.array(sorted(src for src, _ in got), int), np.arange(1, group.size), "senders")
        for src, x in got:
            expect(x, np.full(n, src), f"the message said to be from rank {src}")


def out_is_filled(group: Group) -> None:
    """`recv(out=)` writes into the array that it is given, and returns it; with ANY, too.

    Usual cause: `out` is not passed on, or several messages are written into it at once.
    """
    left, right = _neighbours(group)
    for n in (3, LARGE):
        out = np.zeros((2, n))
        send = group.isend(np.full((2, n), float(group.rank)), right)
        if group.recv(left, out=out) is not out:
            raise PromiseBroken("recv(out=x) returned another array than x")
        expect(out, np.full((2, n), float(left)), "out")
        send.wait()
    if group.rank:
        group.send(np.full(LARGE, float(group.rank)), 0)
        return
    line = np.zeros(LARGE)
    for _ in range(group.size - 1):
        src, got = group.recv(ANY, out=line)
        expect(got, np.full(LARGE, float(src)), f"out, filled by rank {src},")


def a_wrong_shape_is_told(group: Group) -> None:
    """A receive into an array of another shape raises CallMismatch: the header travels along.

    Usual cause: the header is made up by the receiver, from what it expects.
    """
    left, right = _neighbours(group)
    group.send(np.zeros(3), right)
    try:
        group.recv(left, out=np.zeros(4))
    except CallMismatch:
        return
    raise PromiseBroken("3 numbers were received into an array of 4, and nothing was said")


def done_and_poll_tell_the_truth(group: Group) -> None:
    """`done()` and `poll()` are False before the message is there, and True some time after.

    Usual cause: neither looks for what has come. A loop that only asks must come to an end.
    """
    left, right = _neighbours(group)
    request = group.irecv(left)
    if request.done() or group.poll(left):
        raise PromiseBroken(f"rank {left} has sent nothing, but there is something from it")
    group.barrier()
    group.send(np.full(1, group.rank), right)
    group.send(np.full(2, group.rank), right)
    while not request.done():
        pass
    while not group.poll(left):
        pass
    expect(request.wait(), np.full(1, left), "the receive asked with done()")
    expect(group.recv(left), np.full(2, left), "the message seen by poll()")


# -- calls and groups -------------------------------------------------------------------------


def calls_and_groups_stay_apart(group: Group) -> None:
    """Messages of collectives, of sends and of other groups overtake each other, and never mix.

    Usual cause: messages are matched by sender alone; they belong to a lane (`Call.lane`), too.
    """
    p, r = group.size, group.rank
    half = group.split(r % 2, key=-r)  # the ranks of the same parity, in reverse order
    assert half is not None
    expect(np.array(half.world_ranks), np.array(group.world_ranks)[r % 2 :: 2][::-1], "the half")
    for n in (1, LARGE):
        sends = [g.isend(np.full(n, g.size), (g.rank + 1) % g.size) for g in (group, half)]
        for g in (half, group):
            expect(g.all_reduce(np.ones(n)), np.full(n, float(g.size)), "the sum of ones")
            expect(g.recv((g.rank - 1) % g.size), np.full(n, g.size), f"a send among {g.size}")
        for send in sends:
            send.wait()
    alone = group.subgroup([p - 1])
    if (alone is None) != (r != p - 1):
        raise PromiseBroken(f"subgroup([{p - 1}]) gave this rank {alone}")


def every_collective_works(group: Group) -> None:
    """Every collective, by each of its algorithms, for small and large arrays, is NumPy's result.

    Usual cause: one of the promises above; the algorithms use nothing but send, recv and sendrecv.
    """
    p = group.size
    for n in (0, 1, 5, 40_000):
        xs = np.stack([np.arange(float(p * n)).reshape(p, n) + 2.0**q for q in range(p)])
        for op, known in ALGORITHMS.items():
            for algorithm in (None, *known):
                for root in {0, p - 1} if op in ROOTED else {0}:
                    got = _call(group, op, xs[group.rank], root, algorithm)
                    expect(got, _result(op, xs, group.rank, root), f"{op} by {algorithm}")


PROMISES: tuple[Promise, ...] = (
    a_message_arrives,
    shape_and_dtype_arrive,
    order_is_kept,
    a_sent_array_may_change,
    a_received_array_is_the_receivers,
    opposite_sends_do_not_block,
    small_sends_wait_for_nobody,
    a_rank_may_send_to_itself,
    any_takes_each_once,
    out_is_filled,
    a_wrong_shape_is_told,
    done_and_poll_tell_the_truth,
    calls_and_groups_stay_apart,
    every_collective_works,
)
ROOTED = ("broadcast", "reduce", "gather", "scatter")


def _call(group: Group, op: str, x: np.ndarray, root: int, algorithm: str | None) -> Any:
    if op == "barrier":
        return group.barrier(algorithm)
    rooted = {"root": root} if op in ROOTED else {}
    return getattr(group, op)(x, algorithm=algorithm, **rooted)


def _result(op: str, xs: np.ndarray, r: int, root: int) -> Any:
    """What rank r must get.  xs: [p, p, n], rank q passes xs[q]."""
    if op == "barrier" or (op in ("reduce", "gather") and r != root):
        return None
    results = {
        "broadcast": lambda: xs[root],
        "reduce": lambda: xs.sum(0),
        "all_reduce": lambda: xs.sum(0),
        "gather": lambda: xs,
        "scatter": lambda: xs[root, r],
        "all_gather": lambda: xs,
        "reduce_scatter": lambda: xs.sum(0)[r : r + 1],
        "all_to_all": lambda: xs[:, r],
    }
    return results[op]()


def _neighbours(group: Group) -> tuple[int, int]:
    return (group.rank - 1) % group.size, (group.rank + 1) % group.size
