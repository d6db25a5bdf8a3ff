"""Layers: modules that hold parameters."""

from __future__ import annotations

from minipar.nn.attention import CausalSelfAttention
from minipar.nn.layers import Dropout, Embedding, LayerNorm, Linear
from minipar.nn.module import Module

__all__ = ("CausalSelfAttention", "Dropout", "Embedding", "LayerNorm", "Linear", "Module")
