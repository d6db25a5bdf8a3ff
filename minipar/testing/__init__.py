"""Checks that users can run on their own ops, transports, collectives and strategies."""

from minipar.testing.collectives import WrongCollective, check_collective, measured_cost
from minipar.testing.gradcheck import GradientMismatch, gradcheck
from minipar.testing.promise import PromiseBroken
from minipar.testing.strategies import WrongStrategy, check_strategy
from minipar.testing.transports import PROMISES, check_transport

__all__ = (
    "PROMISES",
    "GradientMismatch",
    "PromiseBroken",
    "WrongCollective",
    "WrongStrategy",
    "check_collective",
    "check_strategy",
    "check_transport",
    "gradcheck",
    "measured_cost",
)
