"""Data: texts, and the order in which training goes through them."""

from __future__ import annotations

from minipar.data.sampler import Sampler
from minipar.data.text import TextWindows, load_text, stdlib_sources

__all__ = ("Sampler", "TextWindows", "load_text", "stdlib_sources")
