"""Layers: modules that hold parameters."""

from __future__ import annotations

from minipar.nn.attention import GroupedSelfAttention, SelfAttention
from minipar.nn.cache import KeyValues
from minipar.nn.images import BatchNorm, Conv2d
from minipar.nn.layers import (
    ONE_RANK,
    Dropout,
    Embedding,
    Kit,
    LayerNorm,
    Linear,
    Output,
    Positions,
    RMSNorm,
)
from minipar.nn.module import Module
from minipar.nn.pieces import Piece, Sequential, chain
from minipar.nn.transformer import Block, FeedForward

__all__ = (
    "ONE_RANK", "BatchNorm", "Block", "Conv2d", "Dropout", "Embedding", "FeedForward",
    "GroupedSelfAttention", "KeyValues", "Kit", "LayerNorm", "Linear", "Module", "Output", "Piece",
    "Positions", "RMSNorm", "SelfAttention", "Sequential", "chain",
)  # fmt: skip
