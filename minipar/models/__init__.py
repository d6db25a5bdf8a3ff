"""Models to train. Each is called as `model(x, draw)`; x is what its dataset gives.

GPT, MLP     bytes  integers [b, t]                           ->  logits [b, t, vocab]
ResNet, ViT  images [b, h, w, c]                              ->  logits [b, classes]
WideDeep     (numbers [b, k], ids integers [b, fields])       ->  logits [b]
"""

from __future__ import annotations

from minipar.models.generate import generate
from minipar.models.gpt import GPT
from minipar.models.mlp import MLP
from minipar.models.reader import Reader, write
from minipar.models.resnet import ResNet
from minipar.models.vit import ViT
from minipar.models.wide_deep import WideDeep

__all__ = ("GPT", "MLP", "Reader", "ResNet", "ViT", "WideDeep", "generate", "write")
