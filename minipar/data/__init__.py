"""Data: texts, images and tables, and the order in which training goes through them."""

from __future__ import annotations

from minipar.data.click_table import AVAZU, CRITEO, Layout
from minipar.data.clicks import Clicks, load_clicks
from minipar.data.images import Images, load_images
from minipar.data.sampler import Sampler
from minipar.data.text import TextWindows, load_text, stdlib_sources

__all__ = (
    "AVAZU",
    "CRITEO",
    "Clicks",
    "Images",
    "Layout",
    "Sampler",
    "TextWindows",
    "load_clicks",
    "load_images",
    "load_text",
    "stdlib_sources",
)
