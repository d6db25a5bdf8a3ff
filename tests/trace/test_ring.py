"""The drawn states are those that the ring must go through, worked out from the geometry."""

from __future__ import annotations

import matplotlib.figure
import pytest

from minipar.errors import UsageError
from minipar.trace.ring import draw_ring, ring_snapshots, ring_text


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
    assert start.arrived == ()
    for step, snapshot in enumerate(later, start=1):
        if step < p:
            expected = [(r - step - 1) % p for r in range(p)]
        else:
            expected = [(r - (step - p) - 1) % p for r in range(p)]
        assert list(snapshot.arrived) == expected, snapshot.title


def test_the_text_of_two_ranks() -> None:
    assert (
        ring_text(ring_snapshots(2))
        == """\
start
          chunk 0  chunk 1
  rank 0      0.       0.
  rank 1      .1       .1

reduce-scatter, step 1
          chunk 0  chunk 1
  rank 0    >[01]      0.
  rank 1      .1     >[01]

all-gather, step 1
          chunk 0  chunk 1
  rank 0     [01]    >[01]
  rank 1    >[01]     [01]"""
    )


@pytest.mark.parametrize("p", [1, 2, 4])
def test_it_can_be_drawn(p: int, tmp_path) -> None:
    draw_ring(ring_snapshots(p)).savefig(tmp_path / "ring.png")
    assert (tmp_path / "ring.png").stat().st_size > 1000


def test_it_draws_into_a_figure_that_it_is_given() -> None:
    figure = matplotlib.figure.Figure()
    assert draw_ring(ring_snapshots(2), figure) is figure


def test_too_many_ranks_to_read() -> None:
    with pytest.raises(UsageError, match="1 to 8"):
        ring_snapshots(9)
