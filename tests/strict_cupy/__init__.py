"""A stand-in for CuPy that needs no GPU, and is stricter than CuPy where that finds mistakes.

It keeps the "device" arrays in NumPy arrays of its own, which nobody else can see, and refuses what
CuPy refuses: NumPy arrays in its functions, its arrays in NumPy's, keywords and names that CuPy
lacks. Reductions and elements are arrays of no dimension. `counts` says what crossed the bus:

    to_device   asarray and array of NumPy arrays, lists and numbers
    to_host     .get(), .item(), float(x), bool(x), ...: the host waits for the device and copies
    waits       what else makes the host wait: a boolean mask as index, nonzero, unique

`kernels` counts the calls by name, views among them.

Stricter than CuPy, because the silent thing is a mistake in minipar's ops:
- NumPy arrays and lists as indices (CuPy copies them over), and NumPy's functions called with its
  arrays (CuPy takes the call over);
- assignment to an element that the index names twice (CuPy: any of the values wins);
- results that differ from run to run: float `add.at` and running sums; and `add.reduceat`;
- `out=` and `+=` of another dtype than the result has.

Uninitialised memory is full of NaN or absurd integers. Results are C-contiguous even where NumPy
keeps the order of its input. Integer arrays as indices wrap around, as on a GPU.
Streams and events are in `cuda`. Left out: kernels, cupy.random, cupyx.
"""

import inspect
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import numpy as np

from tests.strict_cupy import cuda, names
from tests.strict_cupy.array import call, counts, kernels, ndarray, poisoned, refuse_numpy

__all__ = ("agree", "counts", "kernels", "module", "ndarray")


def agree(crossed, expected):
    """Whether this crossed the bus, and nothing else; CuPy itself tells nobody."""
    return not hasattr(sys.modules["cupy"], "stand_in") or crossed == Counter(expected)


def ordered(x):
    if x.dtype.kind in "fc":
        raise NotImplementedError("floats are added in any order here: not the same bits twice")


def signature(line):
    """("sum", its signature) of a line such as "sum(a, axis=None)"."""
    name, _, rest = line.partition("(")
    return name, inspect.signature(eval(f"lambda {rest[:-1]}: None"))


def weak_numbers(args):
    """Python numbers as bfloat16 beside arrays of it, which NumPy would make float32."""
    half = next((x for x in args if isinstance(x, ndarray) and x.dtype.name == "bfloat16"), None)
    if half is None:
        return args
    return [np.asarray(x, half.dtype)[()] if isinstance(x, int | float) else x for x in args]


class ufunc:
    def __init__(self, name):
        self.__name__, self._name, self._numpy = f"cupy_{name}", name, getattr(np, name)
        self.nin = self._numpy.nin

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        for x in args:
            if not isinstance(x, ndarray | bool | int | float | complex | np.generic):
                refuse_numpy(x)
        if len(args) > self.nin:
            *args, out = args
        args = weak_numbers(args)
        return call(self._numpy, args, {"dtype": dtype, "casting": casting, "out": out})

    def _method(self, method):
        if self._name not in names.UFUNC_METHODS.get(method, ()):
            raise NotImplementedError(f"`{self._name}.{method}` is not for us; see names.py")
        return getattr(self._numpy, method)

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        options = {"axis": axis, "dtype": dtype, "out": out, "keepdims": keepdims}
        return call(self._method("reduce"), [array], options)

    def accumulate(self, array, axis=0, dtype=None, out=None):
        ordered(array)
        return call(self._method("accumulate"), [array], {"axis": axis, "dtype": dtype, "out": out})

    def reduceat(self, array, indices, axis=0, dtype=None, out=None):
        self._method("reduceat")

    def outer(self, A, B):
        return call(self._method("outer"), [A, B], {})

    def at(self, a, indices, b=None):
        if self._name in ("add", "subtract"):
            ordered(a)
        call(self._method("at"), [a, indices, b], {})


def operator(function, reflected=False):
    """x + y, and y + x. What does not take part in ufuncs (a Tensor) gets the call itself."""

    def apply(self, other):
        if not isinstance(other, ndarray) and getattr(other, "__array_ufunc__", 0) is None:
            return NotImplemented
        return function(other, self) if reflected else function(self, other)

    return apply


def in_place(function):
    return lambda self, other: function(self, other, out=self)


def checked(name, parameters, function, method=False):
    """NumPy's function with CuPy's parameters."""

    def apply(*args, **kwargs):
        bound = parameters.bind(*args[method:], **kwargs)
        if name not in ("einsum", "matmul") and not method:
            only_arrays(name, args[0] if args else next(iter(bound.arguments.values())))
        if name in names.UNORDERED:
            ordered(bound.arguments.get("weights", args[0]) if name == "bincount" else args[0])
        if name == "put_along_axis":
            no_duplicates(**bound.arguments)
        counts["waits"] += name in names.WAITING or (name == "where" and len(args) == 1)
        out = bound.arguments.pop("out", None)
        result = call(function, bound.args, {"out": out, **bound.kwargs}, args[:method])
        if name == "may_share_memory":
            return bool(result._host)
        if name in names.REDUCTIONS and out is None:
            result._host = np.asarray(result._host, order=reduced_order(args[0]))
        return result

    return apply


def reduced_order(x):
    """CuPy's reductions leave their result in the order of what they reduced."""
    return "F" if x.flags.f_contiguous else "C"


def no_duplicates(arr, indices, values, axis):
    lines = np.sort(indices._host % arr.shape[axis], axis=axis)
    if (np.diff(lines, axis=axis) == 0).any():
        raise IndexError("an element is assigned to twice: any of the values may win")


def only_arrays(name, x):
    for a in x if isinstance(x, list | tuple) and x else [x]:
        if not isinstance(a, ndarray):
            raise TypeError(f"{name} was given {type(a)} where it takes cupy arrays")


def created(name, parameters, function):
    """NumPy's function that makes an array from numbers, on the device."""

    def apply(*args, **kwargs):
        bound = parameters.bind(*args, **kwargs)
        result = call(function, bound.args, bound.kwargs)
        if name == "empty":
            poisoned(result._host)
        return result

    return apply


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        host = obj._host.astype(dtype or obj.dtype, copy=False)
        return obj if host is obj._host and not copy else ndarray._of(np.array(host, order=order))
    if isinstance(obj, list | tuple) and any(isinstance(x, ndarray) for x in obj):
        raise TypeError("a list of cupy arrays: use stack")
    counts["to_device"] += 1
    return ndarray._of(np.array(obj, dtype, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, bool(copy), order or "K")


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    only_arrays("empty_like", prototype)
    return ndarray._of(poisoned(np.empty_like(prototype._host, dtype, order, shape=shape)))


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a)


def missing(name):
    raise AttributeError(f"CuPy lacks {name}, or it is not in tests/strict_cupy/names.py yet")


def _fill_ndarray(ufuncs):
    for line in names.METHODS:
        name, parameters = signature(line)
        setattr(ndarray, name, checked(name, parameters, getattr(np.ndarray, name), method=True))
    for symbol, name in OPERATORS.items():
        f = ufuncs[name]
        setattr(ndarray, f"__{symbol}__", operator(f))
        setattr(ndarray, f"__r{symbol}__", operator(f, reflected=True))
        if symbol != "matmul":
            setattr(ndarray, f"__i{symbol}__", in_place(f))
    for symbol, name in COMPARISONS.items():
        setattr(ndarray, f"__{symbol}__", operator(ufuncs[name]))
    ndarray.__neg__, ndarray.__abs__, ndarray.__invert__ = (
        lambda self, f=ufuncs[name]: f(self) for name in ("negative", "abs", "invert")
    )
    ndarray.fill = lambda self, value: self.__setitem__(..., value)


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power",
    "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift", "matmul": "matmul",
}  # fmt: skip
COMPARISONS = {
    "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal",
}  # fmt: skip


def module():
    """All of it as a module that can stand in sys.modules as cupy."""
    made = {name: ufunc(name) for name in names.UFUNCS}
    for line in [*names.FUNCTIONS, *names.LOOSE]:
        name, parameters = signature(line)
        made[name] = checked(name, parameters, getattr(np, name))
    for line in names.CREATION:
        name, parameters = signature(line)
        made[name] = created(name, parameters, getattr(np, name))
    made |= {name: getattr(np, name) for name in names.SHARED}
    own = (ndarray, ufunc, array, asarray, asnumpy, empty_like)
    made |= {f.__name__: f for f in own}
    windows = np.lib.stride_tricks
    made["lib"] = SimpleNamespace(
        stride_tricks=SimpleNamespace(
            sliding_window_view=checked(
                *signature("sliding_window_view(x, window_shape, axis=None)"),
                windows.sliding_window_view,
            ),
            as_strided=checked(
                *signature("as_strided(x, shape=None, strides=None)"), windows.as_strided
            ),
        )
    )
    pool = SimpleNamespace(
        total_bytes=lambda: 0, used_bytes=lambda: 0, free_all_blocks=lambda: None
    )
    made["get_default_memory_pool"] = lambda: pool
    made["linalg"] = SimpleNamespace(qr=checked(*signature("qr(a, mode='reduced')"), np.linalg.qr))
    made["cuda"] = cuda
    _fill_ndarray(made)
    cupy = ModuleType("cupy")
    vars(cupy).update(made, __getattr__=missing, stand_in=True)
    return cupy
