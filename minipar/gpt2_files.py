"""GPT-2's weights as PyTorch has them, in a .safetensors file: the same numbers by other names.

    GPT-2                                         minipar.models.GPT
    transformer.wte.weight        [vocab, d]      token.weight
    transformer.wpe.weight        [block, d]      position.weight
    transformer.h.N.ln_1          [d]             blocks.N.norm1
    transformer.h.N.attn.c_attn   [d, 3d]         blocks.N.attention.qkv
    transformer.h.N.attn.c_proj   [d, d]          blocks.N.attention.out
    transformer.h.N.ln_2          [d]             blocks.N.norm2
    transformer.h.N.mlp.c_fc      [d, 4d]         blocks.N.mlp.up
    transformer.h.N.mlp.c_proj    [4d, d]         blocks.N.mlp.down
    transformer.ln_f              [d]             norm
    lm_head.weight                                token.weight again (tied)

No number is changed and none is transposed: GPT-2's layers (Conv1D) are [in, out], as ours. Files
without the word `transformer.`, as some are, are read as well.

What is not in the arrays (the number of heads above all) stands in GPT-2's config.json; `save_gpt2`
puts it into the header of the file, where `load_gpt2` looks first.

Letters: d features, N number of a block.   Paper: Radford et al. 2019.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minipar.array import Array, describe, to_numpy
from minipar.errors import CheckpointError, ShapeMismatch, UsageError

PREFIX = "transformer."
IN_HEADER = "gpt2_config"
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "vocab": "vocab_size",
        "block": "n_positions",
        "layers": "n_layer",
        "d": "n_embd",
        "heads": "n_head",
    }
)
# What a config may say, the first being what is meant if it says nothing.
ALLOWED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "tie_word_embeddings": (True,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
)
PAIRS = (  # of a block: both names, and the shape of the weight in units of d
    ("ln_1", "norm1", (1,)),
    ("attn.c_attn", "attention.qkv", (1, 3)),
    ("attn.c_proj", "attention.out", (1, 1)),
    ("ln_2", "norm2", (1,)),
    ("mlp.c_fc", "mlp.up", (1, 4)),
    ("mlp.c_proj", "mlp.down", (4, 1)),
)


def names(settings: Mapping[str, int]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(GPT-2's name without `transformer.`, minipar's, shape) of every parameter."""
    d = settings["d"]
    yield "wte.weight", "token.weight", (settings["vocab"], d)
    yield "wpe.weight", "position.weight", (settings["block"], d)
    for n in range(settings["layers"]):
        for theirs, ours, units in PAIRS:
            shape = tuple(d * unit for unit in units)
            yield f"h.{n}.{theirs}.weight", f"blocks.{n}.{ours}.weight", shape
            yield f"h.{n}.{theirs}.bias", f"blocks.{n}.{ours}.bias", shape[-1:]
    for part in ("weight", "bias"):
        yield f"ln_f.{part}", f"norm.{part}", (d,)


def save_gpt2(weights: Mapping[str, Array], settings: Mapping[str, int], path: str | Path) -> None:
    """Write the weights of a GPT as a file of GPT-2's.

    weights:  by minipar's names, all of them, as `GPT.state_dict()` gives them.
    settings: vocab, block, layers, d and heads: what `GPT` is built with.
    After:    `path` is complete, or is as it was before.
    Raises:   UsageError without safetensors, or if a weight is missing or unknown; ShapeMismatch.
    """
    save_file = _safetensors().numpy.save_file
    table = list(names(settings))
    if differing := {ours for _, ours, _ in table} ^ set(weights):
        raise UsageError(f"save_gpt2: {min(differing)} is in the weights or in a GPT, not in both.")
    arrays = {}
    for theirs, ours, shape in table:
        _check_shape(ours, weights[ours], shape)
        arrays[PREFIX + theirs] = np.ascontiguousarray(to_numpy(weights[ours]))
    config: dict[str, Any] = {name: allowed[0] for name, allowed in ALLOWED.items()}
    config |= {theirs: settings[ours] for ours, theirs in SETTINGS.items()}
    part = Path(path).with_name(f"{Path(path).name}.part-{os.getpid()}")
    try:
        save_file(arrays, part, {"format": "pt", IN_HEADER: json.dumps(config)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_gpt2(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The weights by minipar's names, in the file's dtype, and the settings that `GPT` takes.

    model = GPT(init, **settings);  model.load_state_dict(weights)

    Raises: UsageError without safetensors, or if it is a model that GPT cannot hold, which names
            what it has; CheckpointError if the file is none, or is damaged; ShapeMismatch.
    """
    package, path = _safetensors(), Path(path)
    try:
        with package.safe_open(path, framework="numpy") as file:
            settings, keys = _settings(path, file.metadata() or {}), file.keys()
            found = {name.removeprefix(PREFIX): name for name in keys}
            _check_names(path, found, settings)
            weights = {}
            for theirs, ours, shape in names(settings):
                weights[ours] = _array(file, path, found[theirs])
                _check_shape(found[theirs], weights[ours], shape)
            if "lm_head.weight" in found:
                head = _array(file, path, found["lm_head.weight"])
                if not np.array_equal(head, weights["token.weight"]):
                    raise UsageError(
                        f"{path}: lm_head.weight is not wte.weight; the output weights of a GPT "
                        "are its token table (tied)."
                    )
    except (OSError, package.SafetensorError) as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from None
    return weights, settings


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise UsageError(
            "GPT-2's files need the package safetensors: pip install 'minipar[safetensors]'."
        ) from None
    return safetensors


def _settings(path: Path, header: Mapping[str, str]) -> dict[str, int]:
    """What the config says, from the header or from config.json beside the file."""
    config: Any = None
    try:
        beside = path.with_name("config.json")
        if IN_HEADER in header:
            config = json.loads(header[IN_HEADER])
        elif beside.is_file():
            config = json.loads(beside.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: its config is not JSON: {error}") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UsageError(
            f"{path} does not say how many heads the model has: put GPT-2's config.json beside it."
        )
    for name, allowed in ALLOWED.items():
        if (value := config.get(name, allowed[0])) not in allowed:
            raise UsageError(f"{path}: {name} is {value!r}; a GPT of minipar has {allowed[0]!r}.")
    settings: dict[str, Any] = {ours: config.get(theirs) for ours, theirs in SETTINGS.items()}
    for ours, value in settings.items():
        if type(value) is not int or value < 1:
            raise UsageError(
                f"{path}: {SETTINGS[ours]} is {value!r}, which is no number of things."
            )
    if config.get("n_inner") not in (None, 4 * settings["d"]):
        raise UsageError(f"{path}: n_inner is {config['n_inner']}; a GPT of minipar has 4·n_embd.")
    return settings


def _check_names(path: Path, found: Mapping[str, str], settings: Mapping[str, int]) -> None:
    """Raises: UsageError that names a parameter of which the other side knows nothing."""
    if settings["layers"] > len(found):
        raise UsageError(f"{path}: n_layer is {settings['layers']}, of {len(found)} arrays.")
    wanted = {theirs for theirs, _, _ in names(settings)}
    masks = {f"h.{n}.attn.{m}" for n in range(settings["layers"]) for m in ("bias", "masked_bias")}
    if missing := sorted(wanted - found.keys()):
        raise UsageError(f"{path} has no {PREFIX}{missing[0]}, which every GPT of minipar has.")
    if unknown := sorted(found.keys() - wanted - masks - {"lm_head.weight"}):
        raise UsageError(
            f"{path} has {found[unknown[0]]}, for which a GPT of minipar has no place."
        )


def _array(file: Any, path: Path, name: str) -> np.ndarray:
    dtype = file.get_slice(name).get_dtype()
    if dtype not in ("F16", "F32", "F64"):
        raise UsageError(f"{path}: {name} is {dtype}; save it as float32 (F32) first.")
    return file.get_tensor(name)


def _check_shape(name: str, x: Array, shape: tuple[int, ...]) -> None:
    if x.shape == shape:
        return
    turned = x.shape == shape[::-1]
    hint = " Is it of nn.Linear, which is [out, in]? Transpose it." if turned else ""
    raise ShapeMismatch(f"{name} is {describe(x)}; the settings make it {list(shape)}.{hint}")
