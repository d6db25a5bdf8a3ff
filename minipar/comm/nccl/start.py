"""What a rank of the nccl backend needs before it can begin: NCCL, a GPU, and its environment.

NCCL takes one rank per GPU. Several on one are refused by it, unless they seem to be on different
hosts (NCCL_HOSTID): then it goes through sockets, as between hosts, and its kernels take turns on
the GPU. That is good for trying things out, and for tests of what NCCL really does; what it takes
there is time for switching between processes, and says nothing about NCCL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import NamedTuple

from minipar.comm.nccl.library import load
from minipar.errors import UsageError

# Read by NCCL at its first call.
ALWAYS = MappingProxyType(
    {
        "NCCL_LAUNCH_ORDER_IMPLICIT": "1",  # several communicators on one GPU, in one order
        "NCCL_RUNTIME_CONNECT": "0",  # connect when a communicator is made, not in a call
    }
)
ON_ONE_GPU = MappingProxyType(
    {
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "=lo",
        "NCCL_SOCKET_FAMILY": "AF_INET",
        "NCCL_IB_DISABLE": "1",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_SHM_DISABLE": "1",
        "NCCL_MNNVL_ENABLE": "0",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_RAS_ENABLE": "0",
        "NCCL_PROTO": "Simple",  # others are up to 40 times slower if kernels take turns
        "NCCL_MAX_CTAS": "2",  # so that the kernels of all ranks fit beside each other
    }
)


class Options(NamedTuple):
    """How ranks use NCCL."""

    share_gpu: bool = False  # whether several ranks may share one GPU
    check: bool = True  # whether they compare their calls before NCCL carries them out


def check(ranks: int, share_gpu: bool) -> None:
    """Raises: UsageError if so many ranks cannot run on the GPUs of this host."""
    if find_spec("cupy") is None:
        raise UsageError(
            "backend 'nccl' needs CuPy and a GPU, and CuPy is not installed: "
            "pip install cupy-cuda13x nvidia-nccl-cu13 (or -cuda12x and -cu12)"
        )
    load()
    gpus = count_gpus()
    if gpus == 0:
        raise UsageError(
            "backend 'nccl' needs a GPU, and CUDA finds none (`minipar doctor` says more); "
            "--backend process runs the same script without one."
        )
    if ranks > gpus and not share_gpu:
        raise UsageError(
            f"NCCL takes one rank per GPU: {ranks} ranks, but this host has {in_words(gpus)}. "
            "Start fewer ranks, or add --share-gpu (share_gpu=True) to try things out, not for "
            "speed, or take --backend process."
        )


def count_gpus() -> int:
    """The GPUs that CUDA lets this process use."""
    import cupy

    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver, or no device
        return 0


def in_words(n: int) -> str:
    return f"{n} GPU" if n == 1 else f"{n} GPUs"


def set_environment(
    options: Options, job: str, rank: int, env: MutableMapping[str, str] = os.environ
) -> None:
    """Before NCCL is loaded, in the rank's process.  job: no other's.  What the user set stays."""
    more: Mapping[str, str] = ALWAYS
    if options.share_gpu:
        more = {**ALWAYS, **ON_ONE_GPU, "NCCL_HOSTID": f"minipar-{job}-{rank}"}
    for name, value in more.items():
        env.setdefault(name, value)
