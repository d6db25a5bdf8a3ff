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

import math
from collections.abc import Iterable
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


# -- ways of training -------------------------------------------------------------------------


def data_parallel_bytes(p: int, n: float) -> float:
    """2(p-1)/p·n"""
    return ring_all_reduce(p, n).sent


# -- sharded data parallel: bytes out of a rank in a step, and bytes that a rank holds ------------
#
# n bytes of parameters, and as many of gradients; k·n of optimizer state (Adam: 2). What passes
# through is there only for a while: b a bucket, u a unit of parameters, t the largest gradient of
# one parameter, r the rest of the parameters, which belong to no unit.


def zero1_sent(p: int, n: float) -> float:
    """2(p-1)/p·n"""
    return 2 * (p - 1) / p * n


def zero2_sent(p: int, n: float) -> float:
    """2(p-1)/p·n"""
    return zero1_sent(p, n)


def zero3_sent(p: int, n: float, r: float = 0) -> float:
    """3(p-1)/p·n - (p-1)/p·r"""
    return (p - 1) / p * (3 * n - r)


def zero0_kept(p: int, n: float, k: float) -> float:
    """(2+k)·n"""
    return (2 + k) * n


def zero1_kept(p: int, n: float, k: float) -> float:
    """2n + k/p·n"""
    return 2 * n + k / p * n


def zero2_kept(p: int, n: float, k: float) -> float:
    """n + (1+k)/p·n"""
    return n + (1 + k) / p * n


def zero3_kept(p: int, n: float, k: float) -> float:
    """(2+k)/p·n"""
    return (2 + k) / p * n


def zero2_passing(b: float, t: float) -> float:
    """b + t"""
    return b + t


def zero3_passing(u: float, t: float, r: float = 0) -> float:
    """3u + t + 2r"""
    return 3 * u + t + 2 * r


# -- a step of data parallel with fewer bytes --------------------------------------------------
# Bytes out of a rank in a step, the mean over the ranks; n: bytes of all gradients, c: how many
# numbers they are. Not counted: in which ranks tell each other how many rows they had.


def local_sgd_bytes(p: int, n: float, every: float) -> float:
    """2(p-1)/p·n/every; n: of the weights and the optimizer's state"""
    return 2 * (p - 1) / p * n / every


def central_bytes(p: int, n: float) -> float:
    """2(p-1)/p·n, as in a ring; but of that (p-1)·n leave rank 0, and (p-1)·n come to it"""
    return 2 * (p - 1) / p * n


def float16_bytes(p: int, c: int) -> float:
    """2(p-1)·2·ceil(c/p)"""
    return 2 * (p - 1) * 2 * -(-c // p)


def int8_bytes(p: int, c: int, block: int) -> float:
    """2(p-1)·(block+4)·ceil(c/(p·block))"""
    return 2 * (p - 1) * (block + 4) * -(-c // (p * block))


def top_k_bytes(p: int, k: int, itemsize: int) -> float:
    """(p-1)·k·(4+itemsize)"""
    return (p - 1) * k * (4 + itemsize)


def power_sgd_bytes(p: int, shapes: Iterable[tuple[int, ...]], rank: int, itemsize: int) -> float:
    """2(p-1)/p·itemsize·(Σ rank·(rows+columns) of what this makes smaller + the other numbers)"""
    numbers = 0
    for shape in shapes:
        rows, columns = math.prod(shape[:-1]), shape[-1] if shape else 1
        thin = rank * (rows + columns)
        numbers += min(thin, rows * columns) if len(shape) > 1 else rows * columns
    return 2 * (p - 1) / p * itemsize * numbers


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
