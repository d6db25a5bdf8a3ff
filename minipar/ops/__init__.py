"""The ops, and the operators of Tensor made of them.

`Tensor` stands on a lower floor and knows no op, so this package attaches `+`, `@`, `.sum()` and
their like to it. What an op computes is written here, for NumPy and CuPy alike; where the arrays
are CuPy's, many of them take a kernel of `minipar.cuda` instead.
"""

from __future__ import annotations

from typing import Any

from minipar.ops.arithmetic import (
    abs,
    add,
    clip,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    sqrt,
    sub,
    where,
)
from minipar.ops.attention import causal_attention
from minipar.ops.batch_norm import batch_norm
from minipar.ops.conv import conv2d
from minipar.ops.dropout import drawn_dropout, dropout
from minipar.ops.embedding import embedding
from minipar.ops.erf import erf, gelu_erf
from minipar.ops.half import in_float32
from minipar.ops.linear_gelu import linear_gelu
from minipar.ops.loss import binary_cross_entropy_with_logits, cross_entropy, mse, nll
from minipar.ops.nonlinear import gelu, relu, sigmoid, silu, tanh
from minipar.ops.normalize import layer_norm, log_softmax, rms_norm, softmax
from minipar.ops.pool import avg_pool2d, max_pool2d
from minipar.ops.products import linear, matmul
from minipar.ops.reduce import logsumexp, max, mean, min, sum, var
from minipar.ops.rotary import rotary
from minipar.ops.sdpa import scaled_dot_product_attention
from minipar.ops.shape import (
    broadcast_to,
    concat,
    gather,
    getitem,
    pad,
    reshape,
    split,
    stack,
    transpose,
)
from minipar.tensor import Tensor

__all__ = (
    "abs", "add", "avg_pool2d", "batch_norm", "binary_cross_entropy_with_logits", "broadcast_to",
    "causal_attention", "clip", "concat", "conv2d", "cross_entropy", "div", "drawn_dropout",
    "dropout", "embedding",
    "erf", "exp", "gather", "gelu", "gelu_erf", "getitem", "layer_norm", "linear", "linear_gelu",
    "log", "log_softmax", "logsumexp", "matmul", "max", "max_pool2d", "maximum", "mean", "min",
    "minimum", "mse", "mul", "neg", "nll", "pad", "pow", "relu", "reshape", "rms_norm", "rotary",
    "scaled_dot_product_attention", "sigmoid", "silu", "softmax", "split", "sqrt", "stack", "sub",
    "sum", "tanh", "transpose", "var", "where",
)  # fmt: skip


def _in_float32(names: str, **how: bool) -> None:
    """Have ops compute in float32 and round once if they are given float16 or bfloat16."""
    for name in names.split():
        globals()[name] = in_float32(globals()[name], **how)


_in_float32("abs mul div pow exp log sqrt clip tanh sigmoid silu erf gelu_erf dropout")
_in_float32("sum mean var max min logsumexp softmax log_softmax batch_norm rotary conv2d gather")
_in_float32("avg_pool2d max_pool2d")
_in_float32("gelu linear linear_gelu matmul layer_norm rms_norm drawn_dropout", kernel=True)
_in_float32("causal_attention scaled_dot_product_attention", kernel=True)
_in_float32("cross_entropy", rounded=False, kernel=True)
_in_float32("nll mse binary_cross_entropy_with_logits", rounded=False)


def _attach(**operators: Any) -> None:
    for name, op in operators.items():
        setattr(Tensor, name, op)


_attach(
    __add__=add,
    __radd__=add,
    __sub__=sub,
    __rsub__=lambda x, y: sub(y, x),
    __mul__=mul,
    __rmul__=mul,
    __truediv__=div,
    __rtruediv__=lambda x, y: div(y, x),
    __matmul__=matmul,
    __pow__=pow,
    __rpow__=lambda x, y: pow(y, x),
    __neg__=neg,
    __abs__=abs,
    __getitem__=getitem,
    __iter__=lambda x: (getitem(x, n) for n in range(len(x))),
    sum=sum,
    mean=mean,
    var=var,
    max=max,
    min=min,
    reshape=reshape,
    transpose=transpose,
    T=property(transpose),
)
