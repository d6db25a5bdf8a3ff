"""Checks that users can run on their own ops, models and transports."""
