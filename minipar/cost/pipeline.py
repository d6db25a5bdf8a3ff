"""What a pipeline schedule leaves idle, and what it stores, if all stages take the same time.

The bubble is the part of the stages' time in which they wait: 0.25 is a quarter of it. What is
stored is counted in micro-batches whose activations a stage holds at once.

Letters: s stages, m micro-batches, v chunks per stage, i a stage (0 is the first); f, b, w the
times of a forward and of the two halves of a backward (gradients by the input, and by the weights:
w is at most b).
Each docstring is the formula alone: tests hold it against the simulator and the checker.
"""

from __future__ import annotations


def naive_bubble(s: int) -> float:
    """(s-1)/s"""
    return (s - 1) / s


def gpipe_bubble(s: int, m: int) -> float:
    """(s-1)/(m+s-1)"""
    return (s - 1) / (m + s - 1)


def one_f_one_b_bubble(s: int, m: int) -> float:
    """(s-1)/(m+s-1)"""
    return (s - 1) / (m + s - 1)


def interleaved_bubble(s: int, m: int, v: int) -> float:
    """(s-1)/(v·m+s-1)"""
    return (s - 1) / (v * m + s - 1)


def zero_bubble_bubble(s: int, m: int, f: float = 1, b: float = 1, w: float = 1) -> float:
    """1-m·(f+b+w)/(m·(f+b+w)+(s-1)·(f+b-w)+max(0, s-m)·w)"""
    idle = (s - 1) * (f + b - w) + max(0, s - m) * w
    return idle / (m * (f + b + w) + idle)


def forward_bubble(s: int, m: int) -> float:
    """(s-1)/(m+s-1)"""
    return (s - 1) / (m + s - 1)


def naive_stored() -> int:
    """1"""
    return 1


def gpipe_stored(m: int) -> int:
    """m"""
    return m


def one_f_one_b_stored(s: int, m: int, i: int) -> int:
    """min(m, s-i)"""
    return min(m, s - i)


def interleaved_stored(s: int, m: int, v: int, i: int) -> float:
    """min(v·m, 2·(s-i-1)+(v-1)·s+1)/v"""
    return min(v * m, 2 * (s - i - 1) + (v - 1) * s + 1) / v


def zero_bubble_stored(s: int, m: int) -> int:
    """min(m, s)"""
    return min(m, s)


def of_schedule(
    name: str, s: int, m: int, v: int = 1, times: tuple[float, float, float] = (1, 1, 1)
) -> tuple[float, list[float]]:
    """The bubble of the schedule of that name, and what each stage stores.

    times: f, b, w.
    """
    stages = range(s)
    formulas: dict[str, tuple[float, list[float]]] = {
        "naive": (naive_bubble(s), [naive_stored() for _ in stages]),
        "gpipe": (gpipe_bubble(s, m), [gpipe_stored(m) for _ in stages]),
        "1f1b": (one_f_one_b_bubble(s, m), [one_f_one_b_stored(s, m, i) for i in stages]),
        "interleaved": (
            interleaved_bubble(s, m, v),
            [interleaved_stored(s, m, v, i) for i in stages],
        ),
        "zero-bubble": (
            zero_bubble_bubble(s, m, *times),
            [zero_bubble_stored(s, m) for _ in stages],
        ),
        "forward": (forward_bubble(s, m), [0.0 for _ in stages]),
    }
    return formulas[name]
