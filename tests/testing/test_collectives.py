"""Collectives with a mistake each, and what is said about them."""

import numpy as np
import pytest

from minipar import cost
from minipar.comm.algorithms import ALGORITHMS
from minipar.comm.collectives import ring_all_gather, ring_all_reduce, ring_reduce_scatter
from minipar.comm.wiring import pieces
from minipar.errors import UsageError
from minipar.testing import WrongCollective, check_collective, measured_cost


def forgets_a_chunk(link, buf):
    """Rank 1 keeps its own chunk 2."""
    chunks = np.array_split(buf, link.size)
    mine = [chunk.copy() for chunk in chunks]
    ring_all_reduce(link, buf)
    if link.rank == 1 and link.size > 2:
        chunks[2][...] = mine[2]


def forgets_the_last_step(link, buf):
    chunks = np.array_split(buf, link.size)
    ring_reduce_scatter(link, chunks)
    p, r = link.size, link.rank
    for step in range(p - 2):
        incoming = link.sendrecv(chunks[(r - step) % p], dst=(r + 1) % p, src=(r - 1) % p)
        chunks[(r - step - 1) % p][...] = incoming


def powers_of_two_only(link, buf):
    reach = 1
    while reach < link.size:
        link.add(buf, link.sendrecv(buf, link.rank ^ reach, link.rank ^ reach))
        reach *= 2


def adds_in_its_own_order(link, buf):
    """Everybody adds what comes from the left, the left of the left, ... to its own."""
    p, r, x = link.size, link.rank, buf.copy()
    for step in range(1, p):
        link.add(buf, link.sendrecv(x, (r + step) % p, (r - step) % p))


def adds_twice(link, buf):
    if link.rank:
        link.send(buf, 0)
        buf[...] = link.recv(0)
        return
    parts = [link.recv(other) for other in range(1, link.size)]
    for part in (*parts, *parts[1:2]):
        link.add(buf, part)
    for other in range(1, link.size):
        link.send(buf, other)


def uses_plus(link, buf):
    p, r, x = link.size, link.rank, buf.copy()
    for _ in range(1, p):
        x = link.sendrecv(x, (r + 1) % p, (r - 1) % p)
        buf += x


def sends_before_it_receives(link, buf):
    p, r, x = link.size, link.rank, buf.copy()
    for _ in range(1, p):
        link.send(x, (r + 1) % p)
        x = link.recv((r - 1) % p)
        link.add(buf, x)


def receives_first(link, buf):
    p, r, x = link.size, link.rank, buf.copy()
    for _ in range(1, p):
        incoming = link.recv((r - 1) % p)
        link.send(x, (r + 1) % p)
        link.add(buf, incoming)


def sends_too_much(link, buf):
    ring_all_reduce(link, buf)
    if link.rank:
        link.send(buf, 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (forgets_a_chunk, r"with 3 ranks and 12 elements of int64, rank 1 has \[273 .* 16\], "
         r"expected .*: in chunk 2 \(element 8\) rank 0's part is in it not at all, rank 2's "),
        (forgets_the_last_step, r"with 2 ranks .* rank 1 has \[16\], expected \[17\]: in "
         r"chunk 0 .* rank 0's part is in it not at all\n\(It is right with 1 ranks.\)"),
        (powers_of_two_only, r"with 3 ranks .* there is no rank 3; (.|\n)*\(It is right with 1, 2"),
        (adds_in_its_own_order, "differ in the last bits: each adds in an order of its own"),
        (adds_twice, r"with 3 ranks .* rank 0 has \[529\], expected \[273\]: .* rank 2's part "
         r"is in it twice\n\(It is right with 1, 2 ranks.\)"),
        (uses_plus, r"max instead of sum \(use link.add\), rank 0 has"),
        (sends_before_it_receives, "if a send waits for its receive, the ranks wait for"),
        (receives_first, "the ranks wait for each other: no rank can go on: rank 0 waits"),
        (sends_too_much, "rank 0 was sent a message that it never received"),
    ],
)  # fmt: skip
def test_a_wrong_all_reduce_is_told_what_is_wrong(wrong, says):
    with pytest.raises(WrongCollective, match=says):
        check_collective(wrong, "all_reduce")


def order_reversed(link, buf, cuts):
    """All-gather in which rank r's piece travels as if it were piece p-1-r."""
    chunks = pieces(buf, cuts)
    mine = chunks[link.rank].copy()
    reverse = chunks[link.size - 1 - link.rank]
    if mine.shape == reverse.shape:
        reverse[...] = mine
    ring_all_gather(link, chunks)


def shifted(link, buf, cuts):
    """Each piece lands where its neighbour's belongs."""
    chunks = pieces(buf, cuts)
    ring_all_gather(link, chunks)
    sizes = {len(chunk) for chunk in chunks}
    if len(sizes) == 1:
        buf[...] = np.roll(buf, len(chunks[0]))


def leaves_a_piece_out(link, buf, cuts):
    chunks = pieces(buf, cuts)
    ring_all_gather(link, chunks)
    if link.rank == 1:
        chunks[2 % link.size][...] = -7


def scatters_the_wrong_row(link, buf, cuts):
    if link.rank:
        return link.recv(0)
    for other in range(1, link.size):
        link.send(buf[cuts[other - 1] : cuts[other]], other)
    return buf[: cuts[1]]


def leaves_early(link):
    if link.rank:
        link.send(np.zeros(1), 0)
        return
    for other in range(1, link.size):
        link.recv(other)


def forgets_the_diagonal(link, rows, received):
    p, r = link.size, link.rank
    for step in range(1, p):
        dst, src = (r + step) % p, (r - step) % p
        received[src] = link.sendrecv(rows[dst], dst, src)


@pytest.mark.parametrize(
    ("wrong", "op", "says"),
    [
        (shifted, "all_gather", r"chunk 0 \(element 0\) is element \d+ of rank 1"),
        (leaves_a_piece_out, "all_gather", r"rank 1 has .* chunk . \(element .\) was never filled"),
        (scatters_the_wrong_row, "scatter", "rank 1 has .*, expected .*"),
        (leaves_early, "barrier", "with 3 ranks .* rank 1 left before all had entered"),
        (forgets_the_diagonal, "all_to_all", "rank 0 has .*: row 0 was never filled"),
        (lambda link, buf: None, "broadcast", r"with 2 ranks .* rank 1 .* was never filled"),
        (lambda link, buf: None, "reduce", "rank 1's part is in it not at all"),
        (lambda link, buf, cuts: None, "reduce_scatter", "in piece 0 rank 1's part is in it not"),
        (lambda link, buf, cuts: None, "scatter", r"rank 0 has None, expected shape \(0,\)"),
    ],
)
def test_other_collectives_are_told_which_piece_is_wrong(wrong, op, says):
    with pytest.raises(WrongCollective, match=says):
        check_collective(wrong, op)


def test_a_formula_that_promises_too_much():
    says = r"with 2 ranks and 40320 bytes, there are 2 messages .* the formula says 1"
    with pytest.raises(WrongCollective, match=says):
        check_collective(ring_all_reduce, "all_reduce", formula=cost.ring_all_gather)


def test_measured_cost_is_that_of_the_longest_chain():
    measured = measured_cost(ring_all_reduce, "all_reduce", 4, 400)
    assert measured == cost.ring_all_reduce(4, 8 * 400)
    assert measured_cost(ALGORITHMS["broadcast"]["tree"], "broadcast", 5, 10) == (3, 240, 0)


def test_names_that_are_no_collective():
    with pytest.raises(UsageError, match="there is no collective 'allreduce'; there are barrier"):
        check_collective(ring_all_reduce, "allreduce")
