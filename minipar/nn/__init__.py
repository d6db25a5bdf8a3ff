"""Layers: modules that hold parameters."""

from __future__ import annotations

from minipar.nn.attention import SelfAttention
from minipar.nn.images import BatchNorm, Conv2d
from minipar.nn.layers import Dropout, Embedding, LayerNorm, Linear, RMSNorm
from minipar.nn.module import Module
from minipar.nn.pieces import Piece, Sequential, chain
from minipar.nn.transformer import Block, FeedForward

__all__ = (
    "BatchNorm", "Block", "Conv2d", "Dropout", "Embedding", "FeedForward", "LayerNorm", "Linear",
    "Module", "Piece", "RMSNorm", "SelfAttention", "Sequential", "chain",
)  # fmt: skip
