"""Checks that users can run on their own ops, models, transports and collectives."""

from minipar.testing.gradcheck import GradientMismatch, gradcheck
from minipar.testing.promise import PromiseBroken
from minipar.testing.transports import PROMISES, check_transport

__all__ = ("PROMISES", "GradientMismatch", "PromiseBroken", "check_transport", "gradcheck")
