"""Fast kernels for CuPy's arrays: each beside the readable op that says what it computes.

    op        asks fast(x)      yes: arrays of CuPy, of float32, float16 or bfloat16
    this      *.py shapes, allocation, how many blocks      *.cu what a thread does

An op of `minipar.ops` is a definition that runs on any array, NumPy's or CuPy's. Where a GPU pays
for the definition with a launch and a pass over the memory for each of its steps, there is a kernel
here that makes one pass. Nothing here knows a Tensor, and nothing imports CuPy before it is called.
"""

from minipar.cuda.attention import causal_attention, scaled_dot_product_attention
from minipar.cuda.cross_entropy import cross_entropy
from minipar.cuda.dropout import dropout
from minipar.cuda.embedding import sum_to_table
from minipar.cuda.linear import gelu, linear, linear_gelu
from minipar.cuda.normalize import LONGEST_ROW, layer_norm, rms_norm
from minipar.cuda.optimizer import Part, Rates, adamw, scale, squared_norm, updates
from minipar.cuda.products import matmul, use_tf32
from minipar.cuda.source import fast

__all__ = (
    "LONGEST_ROW",
    "Part",
    "Rates",
    "adamw",
    "causal_attention",
    "cross_entropy",
    "dropout",
    "fast",
    "gelu",
    "layer_norm",
    "linear",
    "linear_gelu",
    "matmul",
    "rms_norm",
    "scale",
    "scaled_dot_product_attention",
    "squared_norm",
    "sum_to_table",
    "updates",
    "use_tf32",
)
