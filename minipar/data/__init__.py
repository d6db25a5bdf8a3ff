"""Data: texts, images, tables and streams, and the order in which training goes through them."""

from __future__ import annotations

from minipar.data.click_table import AVAZU, CRITEO, Layout, parse_lines
from minipar.data.clicks import Clicks, load_clicks
from minipar.data.images import Images, load_images
from minipar.data.sampler import Sampler, rows_of
from minipar.data.sources import Wait, counted, lines, pipe_lines
from minipar.data.stream import Stream, dealt, stack
from minipar.data.text import TextWindows, load_text, stdlib_sources

__all__ = (
    "AVAZU",
    "CRITEO",
    "Clicks",
    "Images",
    "Layout",
    "Sampler",
    "Stream",
    "TextWindows",
    "Wait",
    "counted",
    "dealt",
    "lines",
    "load_clicks",
    "load_images",
    "load_text",
    "parse_lines",
    "pipe_lines",
    "rows_of",
    "stack",
    "stdlib_sources",
)
