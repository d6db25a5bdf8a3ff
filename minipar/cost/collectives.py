"""What the textbook says communication costs: messages, bytes and seconds, as formulas.

`Cost` counts along the longest chain of a call, on links that are all free: every rank sends one
message and receives one at a time. For most algorithms that is what leaves the busiest rank. The
docstring of each formula is the formula; the tests read it, and hold it against the function and
against messages that were really sent.

Letters: p ranks, n bytes of the whole array (of all ranks' pieces together), α seconds per message,
β per byte sent, γ per byte added; and for the algorithms that work in doublings
    k      the rounds of a tree: log2 p, rounded up
    q      the largest power of two that is not above p
    [p>q]  1 if p is no power of two, else 0
    m      the pieces that are taken along for ranks that stand by: the sum of min(d, p-q) over
           d = 1, 2, 4, ... below q

Source: Thakur, Rabenseifner & Gropp 2005; Patarasuk & Yuan 2009 (ring); Hensgen et al. 1988. The
terms with m are ours.
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """What one call costs, on its longest chain."""

    messages: int
    sent: float  # bytes
    added: float  # bytes

    def seconds(self, alpha: float, beta: float, gamma: float) -> float:
        """alpha seconds per message, beta per byte sent, gamma per byte added."""
        return alpha * self.messages + beta * self.sent + gamma * self.added


def of(op: str, algorithm: str, p: int, n: float) -> Cost:
    """The cost of a call by name, e.g. of("all_reduce", "ring", 4, 1000)."""
    name = f"{algorithm}_{op}"
    formula = globals()[name]
    return formula(p) if op == "barrier" else formula(p, n)


# -- ring and pairwise ------------------------------------------------------------------------


def ring_reduce_scatter(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β + (p-1)/p·n·γ"""
    return Cost(p - 1, (p - 1) / p * n, (p - 1) / p * n)


def ring_all_gather(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β"""
    return Cost(p - 1, (p - 1) / p * n, 0)


def ring_all_reduce(p: int, n: float) -> Cost:
    """2(p-1)·α + 2(p-1)/p·n·β + (p-1)/p·n·γ"""
    return Cost(2 * (p - 1), 2 * (p - 1) / p * n, (p - 1) / p * n)


def ring_broadcast(p: int, n: float) -> Cost:
    """(k+p-1)·α + 2(p-1)/p·n·β"""
    return Cost(_rounds(p) + p - 1, 2 * (p - 1) / p * n, 0)


def ring_reduce(p: int, n: float) -> Cost:
    """(p-1+k)·α + 2(p-1)/p·n·β + (p-1)/p·n·γ"""
    return Cost(p - 1 + _rounds(p), 2 * (p - 1) / p * n, (p - 1) / p * n)


def pairwise_all_to_all(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β"""
    return Cost(p - 1, (p - 1) / p * n, 0)


def dissemination_barrier(p: int) -> Cost:
    """k·α"""
    return Cost(_rounds(p), 0, 0)


# -- direct: what is shown in shared memory, counted as messages -------------------------------


def flat_all_reduce(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)·n·β + (p-1)·n·γ"""
    return Cost(p - 1, (p - 1) * n, (p - 1) * n)


def direct_all_reduce(p: int, n: float) -> Cost:
    """2(p-1)·α + 2(p-1)/p·n·β + (p-1)/p·n·γ"""
    return ring_all_reduce(p, n)


def direct_reduce_scatter(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β + (p-1)/p·n·γ"""
    return ring_reduce_scatter(p, n)


def direct_all_gather(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β"""
    return ring_all_gather(p, n)


def direct_broadcast(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)·n·β"""
    return naive_broadcast(p, n)


def direct_all_to_all(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β"""
    return pairwise_all_to_all(p, n)


def direct_barrier(p: int) -> Cost:
    """(p-1)·α"""
    return Cost(p - 1, 0, 0)


# -- tree -------------------------------------------------------------------------------------


def tree_broadcast(p: int, n: float) -> Cost:
    """k·α + k·n·β"""
    k = _rounds(p)
    return Cost(k, k * n, 0)


def tree_reduce(p: int, n: float) -> Cost:
    """k·α + k·n·β + k·n·γ"""
    k = _rounds(p)
    return Cost(k, k * n, k * n)


def tree_all_reduce(p: int, n: float) -> Cost:
    """2k·α + 2k·n·β + k·n·γ"""
    k = _rounds(p)
    return Cost(2 * k, 2 * k * n, k * n)


def tree_gather(p: int, n: float) -> Cost:
    """k·α + (p-1)/p·n·β"""
    return Cost(_rounds(p), (p - 1) / p * n, 0)


def tree_scatter(p: int, n: float) -> Cost:
    """k·α + (p-1)/p·n·β"""
    return tree_gather(p, n)


def tree_all_gather(p: int, n: float) -> Cost:
    """2k·α + ((p-1)/p+k)·n·β"""
    k = _rounds(p)
    return Cost(2 * k, ((p - 1) / p + k) * n, 0)


def tree_reduce_scatter(p: int, n: float) -> Cost:
    """2k·α + ((p-1)/p+k)·n·β + k·n·γ"""
    k = _rounds(p)
    return Cost(2 * k, ((p - 1) / p + k) * n, k * n)


def tree_barrier(p: int) -> Cost:
    """2k·α"""
    return Cost(2 * _rounds(p), 0, 0)


# -- halving and doubling ---------------------------------------------------------------------


def halving_doubling_broadcast(p: int, n: float) -> Cost:
    """2·log2(q)·α + 2(q-1)/q·n·β + [p>q]·(α + n·β)"""
    q, odd, rounds = _doublings(p)
    return Cost(2 * rounds + odd, (2 * (q - 1) / q + odd) * n, 0)


def halving_doubling_reduce(p: int, n: float) -> Cost:
    """2·log2(q)·α + 2(q-1)/q·n·β + (q-1)/q·n·γ + [p>q]·(2α + n·β + n/2·γ)"""
    q, odd, rounds = _doublings(p)
    return Cost(2 * rounds + 2 * odd, (2 * (q - 1) / q + odd) * n, ((q - 1) / q + odd / 2) * n)


def halving_doubling_all_reduce(p: int, n: float) -> Cost:
    """2·log2(q)·α + 2(q-1)/q·n·β + (q-1)/q·n·γ + [p>q]·(3α + 2n·β + n/2·γ)"""
    q, odd, rounds = _doublings(p)
    return Cost(2 * rounds + 3 * odd, (2 * (q - 1) / q + 2 * odd) * n, ((q - 1) / q + odd / 2) * n)


def halving_doubling_all_gather(p: int, n: float) -> Cost:
    """log2(q)·α + (q-1+m)/p·n·β + [p>q]·(2α + (1+1/p)·n·β)"""
    q, odd, rounds = _doublings(p)
    return Cost(rounds + 2 * odd, ((q - 1 + _taken_along(p)) / p + odd * (1 + 1 / p)) * n, 0)


def halving_doubling_reduce_scatter(p: int, n: float) -> Cost:
    """log2(q)·α + (q-1+m)/p·n·β + (q-1+m)/p·n·γ + [p>q]·(3α + (1+1/p)·n·β + n/2·γ)"""
    q, odd, rounds = _doublings(p)
    halves = (q - 1 + _taken_along(p)) / p
    return Cost(rounds + 3 * odd, (halves + odd * (1 + 1 / p)) * n, (halves + odd / 2) * n)


# -- naive, through rank 0 --------------------------------------------------------------------


def naive_broadcast(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)·n·β"""
    return Cost(p - 1, (p - 1) * n, 0)


def naive_reduce(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)·n·β + (p-1)·n·γ"""
    return Cost(p - 1, (p - 1) * n, (p - 1) * n)


def naive_all_reduce(p: int, n: float) -> Cost:
    """2(p-1)·α + 2(p-1)·n·β + (p-1)·n·γ"""
    return Cost(2 * (p - 1), 2 * (p - 1) * n, (p - 1) * n)


def naive_gather(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β"""
    return Cost(p - 1, (p - 1) / p * n, 0)


def naive_scatter(p: int, n: float) -> Cost:
    """(p-1)·α + (p-1)/p·n·β"""
    return naive_gather(p, n)


def naive_all_gather(p: int, n: float) -> Cost:
    """2(p-1)·α + (p-1)·(1/p+1)·n·β"""
    return Cost(2 * (p - 1), (p - 1) * (1 / p + 1) * n, 0)


def naive_reduce_scatter(p: int, n: float) -> Cost:
    """2(p-1)·α + (p-1)·(1+1/p)·n·β + (p-1)·n·γ"""
    return Cost(2 * (p - 1), (p - 1) * (1 + 1 / p) * n, (p - 1) * n)


def naive_all_to_all(p: int, n: float) -> Cost:
    """2(p-1)·α + 2(p-1)·n·β"""
    return Cost(2 * (p - 1), 2 * (p - 1) * n, 0)


def naive_barrier(p: int) -> Cost:
    """2(p-1)·α"""
    return Cost(2 * (p - 1), 0, 0)


# -- letters ----------------------------------------------------------------------------------


def _rounds(p: int) -> int:
    """k"""
    return (p - 1).bit_length()


def _doublings(p: int) -> tuple[int, int, int]:
    """q, [p>q], and log2 q"""
    rounds = p.bit_length() - 1
    q = 1 << rounds
    return q, int(p > q), rounds


def _taken_along(p: int) -> int:
    """m"""
    q, _, rounds = _doublings(p)
    return sum(min(1 << i, p - q) for i in range(rounds))
