"""What `minipar train` can train: models by name, each with its data and its loss.

    task      data                        loss                       models
    text      bytes, in windows           cross-entropy per byte     gpt, mlp
    images    digits, MNIST, CIFAR        cross-entropy per image    resnet, vit
    clicks    numbers, ids, yes or no     binary cross-entropy       wide-deep

`FILE.py:CLASS` is a model of the user's own, a `Module` that is built as CLASS(init). Its class may
say `task = "images"`, and have functions of its own in the place of the task's (docs/own_model.md):

    load(path) -> (train, validation)         loss(output, y) -> Tensor, a mean over the rows
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from minipar.array import Array, beside
from minipar.config import Config
from minipar.data import Clicks, Images, TextWindows, load_clicks, load_images, load_text
from minipar.errors import UsageError
from minipar.models import GPT, MLP, ResNet, ViT, WideDeep, generate
from minipar.models.resnet import SIZES
from minipar.nn import ONE_RANK, Kit, Module
from minipar.ops import binary_cross_entropy_with_logits, cross_entropy
from minipar.parallel.parameter_server.tables import Hollow
from minipar.random import Init
from minipar.tensor import Tensor, shown

SAMPLE_BYTES = 240
MODEL_OPTIONS = frozenset({"block", "layers", "d", "heads", "patch", "size", "dropout"})
LARGE = 96  # pixels along an image from which on the stem of a ResNet makes it smaller


class Task(NamedTuple):
    """What is learnt, from what, and in which units."""

    load: Callable[[Config], tuple[Any, Any]]  # (train, validation): len() and batch(indices)
    loss: Callable[[Tensor, Array], Tensor]  # of a model's output and y: a mean over the rows
    item: str = "example"  # what the loss is a mean over
    counted: str = "examples"  # in the speed
    items: Callable[[Config], int] = lambda config: 1  # in each example
    hits: Callable[[Array, Array], Array] | None = None  # where the output is right
    sample: Callable[[Module, Any, Config], tuple[bytes, bytes] | None] | None = None


class Recipe(NamedTuple):
    """A model: how it is built (config, init, training data, kit), and what it learns."""

    build: Callable[[Config, Init, Any, Kit], Module]
    task: Task
    options: frozenset[str] = frozenset()  # of MODEL_OPTIONS, those that it has
    defaults: Mapping[str, Any] = MappingProxyType({})  # of options that differ from Config's
    uses_kit: bool = False  # so that ranks can share its layers


def not_looked_at(model: str, given: Collection[str]) -> list[str]:
    """The options that were given but that this model has no use for.  Raises: UsageError."""
    return sorted((MODEL_OPTIONS - find(model).options).intersection(given))


def find(model: str) -> Recipe:
    """The recipe of a model's name, or of FILE.py:CLASS.  Raises: UsageError."""
    if model in RECIPES:
        return RECIPES[model]
    file, _, name = model.rpartition(":")
    if not file.endswith(".py"):
        raise UsageError(
            f"there is no model {model!r}; there are {', '.join(RECIPES)}, and your own as "
            "FILE.py:CLASS."
        )
    return _own(file, name)


def build_model(
    config: Config, train: Any = None, kit: Kit = ONE_RANK, hollow: bool = False, xp: Any = np
) -> Module:
    """The model of the config, its weights drawn from (seed, name).

    train: the training data, whose shape some models take; None: it is loaded.
    kit:   of which layers it is built, if its recipe uses one.
    hollow: large weights have a shape, but take no memory (parallel/parameter_server/tables.py).
    xp:     numpy, or cupy for a model on the GPU.
    """
    recipe, init = find(config.model), Hollow if hollow else Init
    train = recipe.task.load(config)[0] if train is None else train
    return recipe.build(config, init(config.seed, np.dtype(config.dtype), xp=xp), train, kit)


# -- tasks ------------------------------------------------------------------------------------


def _text(c: Config) -> tuple[TextWindows, TextWindows]:
    train, validation = load_text(c.data)
    return TextWindows(train, c.block), TextWindows(validation, c.block)


def _continued(model: Module, data: TextWindows, c: Config) -> tuple[bytes, bytes] | None:
    """A piece of the text, and what the model goes on with; None if it cannot be asked."""
    if not hasattr(model, "block"):
        return None
    prompt = data.text[: c.block].tobytes()
    return prompt, generate(model, prompt, SAMPLE_BYTES, c.seed, 0.7)[len(prompt) :]


def _is_class(output: Array, y: Array) -> Array:
    return output.argmax(axis=-1) == beside(y, output)


def _images(c: Config) -> tuple[Images, Images]:
    return load_images(c.data, c.seed)


def _clicks(c: Config) -> tuple[Clicks, Clicks]:
    return load_clicks(c.data, seed=c.seed)


TEXT = Task(_text, cross_entropy, "byte", "tokens", lambda c: c.block, _is_class, _continued)
IMAGES = Task(_images, cross_entropy, "image", "images", hits=_is_class)
CLICKS = Task(_clicks, binary_cross_entropy_with_logits, "row", "rows")
TASKS: Mapping[str, Task] = MappingProxyType({"text": TEXT, "images": IMAGES, "clicks": CLICKS})


# -- models -----------------------------------------------------------------------------------


def _gpt(c: Config, init: Init, data: Any, kit: Kit) -> Module:
    return GPT(init, 256, c.block, c.layers, c.d, c.heads, c.dropout, kit)


def _mlp(c: Config, init: Init, data: Any, kit: Kit) -> Module:
    hidden = (2 * c.d,) * max(1, c.layers // 2)
    return MLP(init, 256, min(16, c.block), 32, hidden, c.dropout, kit)


def _resnet(c: Config, init: Init, data: Any, kit: Kit) -> Module:
    if c.size not in SIZES:
        raise UsageError(f"--size is one of {', '.join(SIZES)}, not {c.size!r}.")
    size = SIZES[c.size]
    large = size["large"] and min(data.shape[:2]) >= LARGE
    return ResNet(init, data.classes, data.shape[2], **{**size, "large": large})


def _vit(c: Config, init: Init, data: Any, kit: Kit) -> Module:
    return ViT(init, data.shape, c.patch, data.classes, c.layers, c.d, c.heads, c.dropout, kit)


def _wide_deep(c: Config, init: Init, data: Any, kit: Kit) -> Module:
    hidden, tables, numbers = (2 * c.d,) * c.layers, data.tables, data.numbers
    # Momentum, Adam and weight decay move every row in every step: then the gradient is dense.
    sparse = c.optimizer == "adagrad" or (c.optimizer, c.momentum, c.weight_decay) == ("sgd", 0, 0)
    return WideDeep(init, tables, numbers, c.d, hidden, c.dropout, sparse)


_RESNET_DEFAULTS = MappingProxyType(
    {
        "steps": 300,
        "batch": 64,
        "optimizer": "sgd",
        "lr": 0.5,
        "warmup": 40,
        "clip": 5.0,
        "weight_decay": 5e-4,
    }
)
_VIT_DEFAULTS = MappingProxyType(
    {"steps": 600, "batch": 64, "d": 64, "patch": 7, "lr": 4e-3, "warmup": 60}
)
_CLICK_DEFAULTS = MappingProxyType(
    {
        "steps": 800,
        "batch": 256,
        "layers": 2,
        "d": 16,
        "optimizer": "adagrad",
        "lr": 0.05,
        "weight_decay": 0.0,
    }
)

_WIDE_DEEP_OPTIONS = frozenset({"layers", "d", "dropout"})

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "gpt": Recipe(_gpt, TEXT, MODEL_OPTIONS - {"patch", "size"}, uses_kit=True),
        "mlp": Recipe(_mlp, TEXT, MODEL_OPTIONS - {"heads", "patch", "size"}, uses_kit=True),
        "resnet": Recipe(_resnet, IMAGES, frozenset({"size"}), _RESNET_DEFAULTS),
        "vit": Recipe(_vit, IMAGES, MODEL_OPTIONS - {"block", "size"}, _VIT_DEFAULTS, True),
        "wide-deep": Recipe(_wide_deep, CLICKS, _WIDE_DEEP_OPTIONS, _CLICK_DEFAULTS),
    }
)


# -- the user's own ---------------------------------------------------------------------------


def _own(file: str, name: str) -> Recipe:
    made: Any = getattr(_module(Path(file)), name, None)
    if not (isinstance(made, type) and issubclass(made, Module)):
        what = "is not there" if made is None else "is no subclass of minipar.nn.Module"
        raise UsageError(
            f"{file}:{name}: {name or 'the class'} {what}; name a class of the file that is one."
        )
    said = getattr(made, "task", "text")
    if said not in TASKS:
        raise UsageError(f"{file}: {name}.task is {said!r}; it can be {', '.join(TASKS)}.")
    task = TASKS[said]
    if load := getattr(made, "load", None):
        hits = task.hits if hasattr(made, "task") else _is_class
        task = Task(lambda c: _pair(load(c.data), f"{file}: {name}"), task.loss, hits=hits)
    build: Callable[..., Module] = made
    if loss := getattr(made, "loss", None):
        task = task._replace(loss=_checked_loss(loss, f"{file}: {name}.loss"), hits=None)
    options = frozenset({"block"}) if task.items is TEXT.items else frozenset()
    return Recipe(lambda c, init, data, kit: _checked(build(init)), task, options)


def _checked_loss(loss: Callable[..., Any], where: str) -> Callable[[Tensor, Array], Tensor]:
    """The loss, which must give one number as a tensor."""

    def checked(output: Tensor, y: Array) -> Tensor:
        z = loss(output, y)
        if not (isinstance(z, Tensor) and z.data.size == 1):
            raise UsageError(
                f"{where} must return a tensor with one number, the mean over the rows; it "
                f"returned {shown(z)}. Use minipar.ops on the output, not NumPy on its .data."
            )
        return z

    return checked


def _checked(model: Module) -> Module:
    """Raises: UsageError if two weights were drawn under one name, and so are the same numbers."""
    seen: dict[bytes, str] = {}
    for name, x in model.named_parameters():
        if not any(x.data.strides):  # it takes no memory (Hollow), or is one number
            continue
        bits = x.data.tobytes()
        if x.data.size > 1 and (x.data != x.data.reshape(-1)[0]).any():
            if bits in seen:
                raise UsageError(
                    f"{seen[bits]} and {name} begin with the same numbers: they were drawn under "
                    'one name. Give each part its own: Linear(init / "first", ...).'
                )
            seen[bits] = name
    return model


def _pair(loaded: Any, where: str) -> tuple[Any, Any]:
    """What load(path) has returned, if it is two data sets.  Raises: UsageError."""
    pair = isinstance(loaded, tuple | list) and len(loaded) == 2
    if not (pair and all(hasattr(d, "batch") and hasattr(d, "__len__") for d in loaded)):
        many = isinstance(loaded, tuple | list)
        kinds = ", ".join(type(d).__name__ for d in (loaded if many else (loaded,)))
        raise UsageError(
            f"{where}.load must return (train, validation), two data sets with len(data) and "
            f"data.batch(indices); it returned {kinds or 'nothing'}."
        )
    return loaded[0], loaded[1]


def _module(path: Path) -> ModuleType:
    """The user's file as a module, executed once in a process; its folder can be imported from."""
    name = f"minipar_own.{path.stem}"
    found = sys.modules.get(name)
    if found is not None and found.__file__ == str(path.resolve()):
        return found
    if not path.is_file():
        raise UsageError(f"there is no file {path}; FILE.py:CLASS names a file and a class in it.")
    if str(path.resolve().parent) not in sys.path:
        sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
