"""Measurements beside peers, interleaved, so that what counts is the ratio."""
