"""Gradients that are sent with fewer bytes: Compressed(model, group, make_optimizer, how)."""

from types import MappingProxyType

from minipar.parallel.compress.compressed import Apart, Compressed, Compressor
from minipar.parallel.compress.power_sgd import PowerSGD
from minipar.parallel.compress.quantized import Float16, Int8
from minipar.parallel.compress.top_k import TopK

COMPRESSORS = MappingProxyType(
    {"float16": Float16, "int8": Int8, "top-k": TopK, "powersgd": PowerSGD}
)  # as --compress names them

__all__ = (
    "COMPRESSORS", "Apart", "Compressed", "Compressor", "Float16", "Int8", "PowerSGD", "TopK",
)  # fmt: skip
