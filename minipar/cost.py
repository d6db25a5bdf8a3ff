"""What the textbook says communication costs: messages, bytes and seconds, as formulas.

Letters: p ranks, n bytes of the whole array, α seconds per message, β per byte sent, γ per byte
added. `Cost` counts what leaves one rank on the longest path, with every link free. The tests hold
the formulas against messages that were really sent.

Source: Thakur, Rabenseifner & Gropp 2005; Patarasuk & Yuan 2009 (ring); Hensgen et al. 1988.
"""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """What one call costs a rank."""

    messages: int
    sent: float  # bytes
    added: float  # bytes

    def seconds(self, alpha: float, beta: float, gamma: float) -> float:
        """alpha seconds per message, beta per byte sent, gamma per byte added."""
        return alpha * self.messages + beta * self.sent + gamma * self.added


def ring_reduce_scatter(p: int, n: float) -> Cost:
    return Cost(p - 1, (p - 1) / p * n, (p - 1) / p * n)


def ring_all_gather(p: int, n: float) -> Cost:
    """n: bytes of the gathered array."""
    return Cost(p - 1, (p - 1) / p * n, 0)


def ring_all_reduce(p: int, n: float) -> Cost:
    return Cost(2 * (p - 1), 2 * (p - 1) / p * n, (p - 1) / p * n)


def tree_broadcast(p: int, n: float) -> Cost:
    """The root's share, which is the longest path."""
    rounds = (p - 1).bit_length()
    return Cost(rounds, rounds * n, 0)


def dissemination_barrier(p: int) -> Cost:
    return Cost((p - 1).bit_length(), 0, 0)
