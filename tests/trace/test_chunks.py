"""The drawn states are those that the ring must go through, worked out from the geometry."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from minipar import cost
from minipar.comm.algorithms import ALGORITHMS
from minipar.errors import UsageError
from minipar.trace.chunks import chunk_snapshots, chunk_text, stories

SHOWN = ("broadcast", "reduce", "all_reduce", "gather", "all_gather", "reduce_scatter")
EVERY = [(op, name) for op in SHOWN for name in ALGORITHMS[op]]
AT_THE_END = ("direct", "flat")  # these add up when everything has come


def ring_snapshots(p: int) -> list:
    return chunk_snapshots("all_reduce", "ring", p)


def arrived(snapshot) -> list[int]:
    """The chunk that came to each rank, in rank order."""
    return [move.chunk for move in sorted(snapshot.moves, key=lambda move: move.dst)]


def contributed(p: int, r: int, c: int, step: int) -> set[int]:
    """Whose parts are in chunk c on rank r after so many of the 2(p-1) steps.

    Chunk c sets out from rank c+1 and comes to rank r after t steps, with the parts of the t ranks
    it has passed; there the part of r is added. Complete at rank c, it goes round once more.
    """
    t = (r - c - 1) % p
    if step < t or t == 0:
        travelled = {r}
    else:
        travelled = {(r - k) % p for k in range(t + 1)}
    rounds_since = step - (p - 1)  # steps of the all-gather that are done
    return set(range(p)) if (r - c) % p <= rounds_since else travelled


def as_set(bits: int) -> set[int]:
    return {q for q in range(bits.bit_length()) if bits >> q & 1}


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 8])
def test_each_chunk_holds_the_parts_of_the_ranks_it_has_passed(p: int) -> None:
    snapshots = ring_snapshots(p)
    assert len(snapshots) == 2 * (p - 1) + 1
    for step, snapshot in enumerate(snapshots):
        for r in range(p):
            for c in range(p):
                assert as_set(int(snapshot.parts[r, c])) == contributed(p, r, c, step)


@pytest.mark.parametrize("p", [2, 3, 4, 7])
def test_one_chunk_arrives_at_each_rank_in_each_step(p: int) -> None:
    start, *later = ring_snapshots(p)
    assert start.moves == ()
    for step, snapshot in enumerate(later, start=1):
        if step < p:
            expected = [(r - step - 1) % p for r in range(p)]
        else:
            expected = [(r - (step - p) - 1) % p for r in range(p)]
        assert arrived(snapshot) == expected, snapshot.title


def test_the_text_of_two_ranks() -> None:
    assert (
        chunk_text(ring_snapshots(2))
        == """\
start
          chunk 0  chunk 1
  rank 0      0.       0.
  rank 1      .1       .1

step 1: add
          chunk 0  chunk 1
  rank 0    >[01]      0.
  rank 1      .1     >[01]

step 2: copy
          chunk 0  chunk 1
  rank 0     [01]    >[01]
  rank 1    >[01]     [01]"""
    )


@pytest.mark.parametrize("p", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize(("op", "name"), EVERY)
def test_there_are_as_many_steps_as_the_formula_has_alphas(op: str, name: str, p: int) -> None:
    _, *steps = chunk_snapshots(op, name, p)
    assert len(steps) == cost.of(op, name, p, 1).messages
    for step in steps:
        froms = {(move.dst, move.src) for move in step.moves}
        assert len({dst for dst, _ in froms}) == len(froms)  # one message in at a time


@pytest.mark.parametrize("p", [2, 4, 7])
@pytest.mark.parametrize("name", [n for n in ALGORITHMS["all_reduce"] if n not in AT_THE_END])
def test_what_comes_is_what_its_sender_had(name: str, p: int) -> None:
    """It is added to what was there, without anybody's part twice, or takes its place."""
    snapshots = chunk_snapshots("all_reduce", name, p)
    for before, after in pairwise(snapshots):
        expected = before.parts.copy()
        for src, dst, c in after.moves:
            had, sent = int(before.parts[dst, c]), int(before.parts[src, c])
            adding = int(after.parts[dst, c]) != sent
            assert not adding or (had & sent == 0 and after.added)
            expected[dst, c] = had + sent if adding else sent
        assert (after.parts == expected).all()
    assert snapshots[-1].complete.all() and (snapshots[-1].parts == (1 << p) - 1).all()


@pytest.mark.parametrize(("op", "name"), EVERY)
def test_in_the_end_complete_is_what_the_call_promises(op: str, name: str) -> None:
    complete = chunk_snapshots(op, name, 4)[-1].complete
    if op in ("reduce", "gather"):
        assert complete[0].all()
    elif op == "reduce_scatter":
        assert complete.diagonal().all()
    else:
        assert complete.all()


def test_a_function_of_ones_own_can_be_watched() -> None:
    def swap(link, buf) -> None:
        link.add(buf, link.sendrecv(buf, 1 - link.rank, 1 - link.rank))

    start, end = chunk_snapshots("all_reduce", swap, 2)
    assert start.parts.tolist() == [[1, 1], [2, 2]]
    assert (end.parts == 3).all() and end.title == "step 1: add"
    assert np.array(end.moves).tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]]


def test_too_many_ranks_to_read() -> None:
    with pytest.raises(UsageError, match="1 to 8"):
        ring_snapshots(9)


def test_calls_without_an_array_of_chunks() -> None:
    with pytest.raises(UsageError, match="chunks of all_to_all cannot be shown"):
        chunk_snapshots("all_to_all", "direct", 2)


@pytest.mark.parametrize("p", [2, 3, 5, 8])
def test_it_is_known_what_each_message_of_the_ring_carries(p: int) -> None:
    """One chunk: rank r sends chunk r-1, then r-2, ..., and gets those of the rank before it."""
    for r, story in enumerate(stories("all_reduce", "ring", p)):
        carried = [(r - 1 - step) % p for step in range(p - 1)]
        carried += [(r - step) % p for step in range(p - 1)]
        assert story.sent == [((r + 1) % p, [c]) for c in carried]
        assert story.got == [((r - 1) % p, [(c - 1) % p]) for c in carried]
        assert len(story.states) == 1 + len(story.got)


def test_what_is_copied_is_there_when_it_has_come() -> None:
    """Also where an algorithm puts it into its array later, or has it only to pass it on."""
    for op, name in (("all_gather", "direct"), ("broadcast", "ring"), ("scatter", "tree")):
        for story in stories(op, name, 4):
            for (_, chunks), state in zip(story.got, story.states[1:]):
                assert (state[chunks] > 0).all(), (op, name)


def test_of_all_to_all_chunks_are_called_by_whom_they_come_from() -> None:
    for name in ALGORITHMS["all_to_all"]:
        for r, story in enumerate(stories("all_to_all", name, 4)):
            assert story.states[0].tolist() == [(1 << q) * (q == r) for q in range(4)]
            assert story.states[-1].tolist() == [1, 2, 4, 8]
    assert stories("all_to_all", "pairwise", 4)[1].got == [(0, [0]), (3, [3]), (2, [2])]
    with pytest.raises(UsageError, match="barrier cannot be shown"):
        stories("barrier", "naive", 4)
