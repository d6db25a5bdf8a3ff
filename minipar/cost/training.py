"""What a step of training sends, and what a rank holds, for each way of sharing the work.

Letters: p ranks, n bytes of parameters (and of gradients); the others at their formulas. Each
docstring is the formula alone: the pages print it, and tests hold it against what is counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from minipar.cost.collectives import ring_all_reduce

# -- data parallel ----------------------------------------------------------------------------


def data_parallel_bytes(p: int, n: float) -> float:
    """2(p-1)/p·n"""
    return ring_all_reduce(p, n).sent


# -- sharded data parallel: bytes out of a rank in a step, and bytes that a rank holds ------------
#
# n bytes of parameters, and as many of gradients; k·n of optimizer state (Adam: 2). What passes
# through is there only for a while: b a bucket, u a unit of parameters, t the largest gradient of
# one parameter, r the rest of the parameters, which belong to no unit. Of a stage of a pipeline: m
# micro-batches, w the weights that it owns and other stages use as well, g how often a micro-batch
# has a layer gathered (2; with recomputation 3).


def zero1_sent(p: int, n: float) -> float:
    """2(p-1)/p·n"""
    return 2 * (p - 1) / p * n


def zero2_sent(p: int, n: float) -> float:
    """2(p-1)/p·n"""
    return zero1_sent(p, n)


def zero3_sent(p: int, n: float, r: float = 0) -> float:
    """3(p-1)/p·n - (p-1)/p·r"""
    return (p - 1) / p * (3 * n - r)


def zero2_piped_sent(p: int, n: float, m: int, w: float = 0) -> float:
    """(p-1)/p·((m+1)·n + w)"""
    return (p - 1) / p * ((m + 1) * n + w)


def zero3_piped_sent(p: int, n: float, m: int, w: float = 0, g: int = 2) -> float:
    """(p-1)/p·((g+1)·m·n - (g·m-2)·w)"""
    return (p - 1) / p * ((g + 1) * m * n - (g * m - 2) * w)


def zero0_kept(p: int, n: float, k: float) -> float:
    """(2+k)·n"""
    return (2 + k) * n


def zero1_kept(p: int, n: float, k: float) -> float:
    """2n + k/p·n"""
    return 2 * n + k / p * n


def zero2_kept(p: int, n: float, k: float) -> float:
    """n + (1+k)/p·n"""
    return n + (1 + k) / p * n


def zero3_kept(p: int, n: float, k: float) -> float:
    """(2+k)/p·n"""
    return (2 + k) / p * n


def zero2_passing(b: float, t: float) -> float:
    """b + t"""
    return b + t


def zero3_passing(u: float, t: float, r: float = 0) -> float:
    """3u + t + 2r"""
    return 3 * u + t + 2 * r


# -- a step of data parallel with fewer bytes --------------------------------------------------
# Bytes out of a rank in a step, the mean over the ranks; n: bytes of all gradients, c: how many
# numbers they are. Not counted: in which ranks tell each other how many rows they had.


def local_sgd_bytes(p: int, n: float, every: float) -> float:
    """2(p-1)/p·n/every; n: of the weights and the optimizer's state"""
    return 2 * (p - 1) / p * n / every


def central_bytes(p: int, n: float) -> float:
    """2(p-1)/p·n, as in a ring; but of that (p-1)·n leave rank 0, and (p-1)·n come to it"""
    return 2 * (p - 1) / p * n


def float16_bytes(p: int, c: int) -> float:
    """2(p-1)·2·ceil(c/p)"""
    return 2 * (p - 1) * 2 * -(-c // p)


def int8_bytes(p: int, c: int, block: int) -> float:
    """2(p-1)·(block+4)·ceil(c/(p·block))"""
    return 2 * (p - 1) * (block + 4) * -(-c // (p * block))


def top_k_bytes(p: int, k: int, itemsize: int) -> float:
    """(p-1)·k·(4+itemsize)"""
    return (p - 1) * k * (4 + itemsize)


def power_sgd_bytes(p: int, shapes: Iterable[tuple[int, ...]], rank: int, itemsize: int) -> float:
    """2(p-1)/p·itemsize·(Σ rank·(rows+columns) of what this makes smaller + the other numbers)"""
    numbers = 0
    for shape in shapes:
        rows, columns = math.prod(shape[:-1]), shape[-1] if shape else 1
        thin = rank * (rows + columns)
        numbers += min(thin, rows * columns) if len(shape) > 1 else rows * columns
    return 2 * (p - 1) / p * itemsize * numbers


# -- tensor parallel: bytes out of a rank in a step (the mean over the ranks), bytes that it holds -
#
# n: bytes of x [b, t, d] between the layers, m: of one number for each position, r: of parameters
# that every rank has. In GPT the embedding sends like the forward half of a pair, the output like
# the backward half. For what is kept n is the bytes of all parameters, k·n of optimizer state.


def tensor_pair_sent(p: int, n: float) -> float:
    """4(p-1)/p·n"""
    return 2 * ring_all_reduce(p, n).sent


def tensor_gpt_sent(p: int, n: float, m: float, layers: int) -> float:
    """(8·layers+4)(p-1)/p·n + 6(p-1)/p·m"""
    return (2 * layers + 1) * tensor_pair_sent(p, n) + ring_all_reduce(p, 3 * m).sent


def sequence_gpt_sent(p: int, n: float, m: float, layers: int, r: float) -> float:
    """(8·layers+4)(p-1)/p·n + 6(p-1)/p·m + 2(p-1)/p·r"""
    return tensor_gpt_sent(p, n, m, layers) + ring_all_reduce(p, r).sent


def tensor_kept(p: int, n: float, k: float, r: float) -> float:
    """(2+k)·((n-r)/p + r)"""
    return (2 + k) * ((n - r) / p + r)


# -- pipelines: bytes out of a stage in a step (the mean over the stages) --------------------------
#
# m micro-batches, s stages, v chunks on each, x bytes of a micro-batch between two parts of the
# model, l of the label of a parcel, w of the weights that several stages use.


def pipeline_sent(s: int, m: int, v: int, x: float, label: float = 0, w: float = 0) -> float:
    """2(v·s-1)/s·m·(x+label) + 2/s·w"""
    return 2 * (v * s - 1) / s * m * (x + label) + 2 / s * w


# -- parameter servers: bytes out of a worker in a step; n: of all gradients -----------------------


def worker_sent(n: float, shrunk: float = 1) -> float:
    """n/shrunk"""
    return n / shrunk


# -- activations of a transformer, as numbers for one row; masks of dropout are not among them
#
# t positions, d features, h heads, p tensor-parallel ranks, s keys that are kept for each query (t;
# where the future is left out about a half). 4td are what norms keep, and what goes into the
# columns; q, k, v, the mixture and the wide layer (12td) are shared out, and so are the scores.


def block_numbers(p: int, t: int, d: int, h: int, s: float) -> float:
    """4·t·d + 12/p·t·d + h/p·t·s"""
    return 4 * t * d + 12 / p * t * d + h / p * t * s


def sequence_block_numbers(p: int, t: int, d: int, h: int, s: float) -> float:
    """(2+2/p)·t·d + 12/p·t·d + h/p·t·s"""
    return (2 + 2 / p) * t * d + 12 / p * t * d + h / p * t * s
