"""Every exception that minipar raises on purpose.

A message says who (rank), where (call, file:line), what was seen and what was expected, and the
usual cause. Whoever catches `MiniparError` catches them all.
"""

from __future__ import annotations


class MiniparError(Exception):
    """The root of minipar's own exceptions."""


class UsageError(MiniparError):
    """The caller asked for something that cannot be; one sentence says what to do instead."""


class ScheduleError(UsageError):
    """A pipeline schedule cannot be run, or its text cannot be read; the grid shows where."""


class ShapeMismatch(MiniparError, ValueError):
    """Two arrays, or an array and a parameter, do not fit together."""


class GraphError(MiniparError, RuntimeError):
    """`backward` was called where there is no graph (any more)."""


class LabelMismatch(MiniparError):
    """A shard, or a partial sum, is used as if it were the whole (found inside `checks()`)."""


class Diverged(MiniparError, ArithmeticError):
    """Training has led to numbers that are not finite."""


class ReplicasDiffer(MiniparError, RuntimeError):
    """What should be copies of one model are not: in their parameters, or in the bits of them."""


class CheckpointError(MiniparError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TraceError(MiniparError):
    """A recorded trace is missing, damaged, or of another version."""


class CommError(MiniparError):
    """Communication between ranks failed; the subclasses say how."""


class CallMismatch(CommError):
    """Ranks made different calls, or the same call with different shapes or dtypes."""


class PeerLost(CommError):
    """A rank that this one waits for has ended: returned, raised, or was killed.

    Where lost ranks are reported (on_lost="report"), `rank` is the number of the lost one in the
    group at hand, and `incarnation` says which one of that rank it was. If it `returns`, the next
    call is with its next incarnation.
    """

    rank: int | None = None
    incarnation: int = 0
    returns: bool = False


class CommTimeout(CommError):
    """A rank waited longer than `timeout_s` for another."""


class Deadlock(CommError):
    """Every rank waits for another one, so none can ever go on."""


class Interrupted(CommError):
    """The launcher was asked to stop (Ctrl-C), and told this rank."""


class SharedMemoryFull(CommError):
    """The operating system has not enough shared memory for the channels between ranks."""


class RankFailed(MiniparError):
    """A rank raised an exception that could not be carried over to the caller as it was."""


def said(error: BaseException) -> str:
    """str(error), also for an exception that cannot say it."""
    try:
        return str(error)
    except Exception:  # whatever its __str__ raises
        return "(its text cannot be had: its __str__ raises)"
