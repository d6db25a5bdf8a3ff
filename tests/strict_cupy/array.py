"""The array of the stand-in, and how NumPy's functions are called on what it holds."""

from collections import Counter
from types import SimpleNamespace

import numpy as np

from tests.strict_cupy import cuda

# Their results are views, if that can be, or nothing is read: then nothing is launched.
VIEWS = frozenset(
    (
        *("reshape", "ravel", "transpose", "swapaxes", "squeeze", "view", "broadcast_to"),
        *("expand_dims", "array_split", "split", "moveaxis", "atleast_1d", "atleast_2d", "astype"),
    )
)
NOT_READ = frozenset(("empty", "empty_like", "may_share_memory", "shares_memory"))
counts = Counter()
kernels = Counter()  # calls of NumPy's functions, by name: about what a GPU would have to launch


def refuse_numpy(x):
    raise TypeError(f"Unsupported type {type(x)}: only cupy arrays and numbers can be mixed.")


def root(host):
    """What owns the memory."""
    while getattr(host, "base", None) is not None:
        host = host.base
    return host


def on_device(result, sources):
    """What NumPy returned, as CuPy would: views stay views of their source, the rest is new."""
    if isinstance(result, list | tuple):
        make = getattr(result, "_make", type(result))  # of a named tuple, as qr gives
        return make([on_device(r, sources) for r in result])
    if isinstance(result, np.generic | bool | int):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return result
    for source in sources:
        if result is source._host:
            return source
        if root(result) is root(source._host):
            return ndarray._of(result, source if source.base is None else source.base)
    return ndarray._of(np.asarray(result, order="C"))


def bare(x, sources):
    """An argument as NumPy takes it; device arrays are added to `sources`."""
    if isinstance(x, ndarray):
        sources.append(x)
        return x._host
    if isinstance(x, np.ndarray):
        refuse_numpy(x)
    if isinstance(x, list | tuple) and any(isinstance(y, ndarray | np.ndarray) for y in x):
        return type(x)([bare(y, sources) for y in x])
    return x


def call(function, args, kwargs, leading=()):
    """function(*leading, *args, **kwargs) on the arrays within; `out` must fit exactly."""
    kernels[function.__name__] += 1
    sources = [*leading]
    hosts = [source._host for source in leading]
    out = kwargs.pop("out", None)
    args = [bare(a, sources) for a in args]
    kwargs = {key: bare(a, sources) for key, a in kwargs.items()}
    result = run(function, [*hosts, *args], kwargs, [root(source._host) for source in sources])
    result = on_device(result, sources)
    return result if out is None else written(out, result)


def run(function, args, kwargs, owners):
    """function(...) on memory of the device, once what it reads there has been written."""
    name = function.__name__
    if name in VIEWS:
        result = function(*args, **kwargs)
        views = result if isinstance(result, list | tuple) else [result]
        if all(any(root(view) is owner for owner in owners) for view in views):
            return result
    if name not in NOT_READ:
        cuda.launched(owners, [])
    return function(*args, **kwargs)


def written(out, result):
    if not isinstance(out, ndarray):
        refuse_numpy(out)
    if out.dtype != result.dtype or out.shape != result.shape:
        raise TypeError(
            f"out is {out.dtype}{list(out.shape)}, the result {result.dtype}{list(result.shape)}"
        )
    cuda.launched([], [root(out._host)])
    out._host[...] = result._host
    return out


def poisoned(host):
    """Memory that nobody has written yet."""
    kind = host.dtype.kind
    host[...] = np.nan if kind in "fcV" else True if kind == "b" else np.iinfo(host.dtype).max // 3
    return host


class ndarray:
    """An array on the device; made by the functions of the module, or uninitialised."""

    __slots__ = ("_host", "base")
    __array_ufunc__ = None  # np.exp(x) and array + x are refused
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        self._host, self.base = poisoned(np.empty(shape, dtype, order)), None
        cuda.allocated(self._host)

    @classmethod
    def _of(cls, host, base=None):
        self = cls.__new__(cls)
        self._host, self.base = host, base
        cuda.allocated(root(host))
        return self

    @property
    def data(self):
        return SimpleNamespace(ptr=self._host.__array_interface__["data"][0])

    # -- what cannot be done, and what costs ------------------------------------------------------

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use `.get()`.")

    def __array_function__(self, function, *args):
        raise TypeError(f"numpy.{function.__name__} was given a cupy array; use cupy's.")

    def get(self, stream=None, order="C", out=None, blocking=True):
        counts["to_host"] += 1
        cuda.launched([root(self._host)], [])
        cuda.get_current_stream().synchronize()
        if out is None:
            return self._host.copy(order)
        out[...] = self._host
        return out

    def item(self):
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def set(self, arr, stream=None):
        counts["to_device"] += 1
        if not isinstance(arr, np.ndarray) or (arr.shape, arr.dtype) != (self.shape, self.dtype):
            raise TypeError("set() takes a numpy.ndarray of the same shape and dtype")
        cuda.launched([], [root(self._host)])
        self._host[...] = arr

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __deepcopy__(self, memo):
        return self.copy()

    # -- what an array tells of itself, for free --------------------------------------------------

    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    real = property(lambda self: self)
    T = property(lambda self: self if self.ndim < 2 else self.transpose())
    mT = property(lambda self: self.swapaxes(-1, -2))

    @property
    def shape(self):
        return self._host.shape

    @shape.setter
    def shape(self, shape):
        view = self._host.reshape(shape)
        if root(view) is not root(self._host):
            raise AttributeError("incompatible shape")
        self._host = view

    @property
    def flags(self):
        flags = self._host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous,
            f_contiguous=flags.f_contiguous,
            owndata=self.base is None,
        )

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[n] for n in range(len(self)))

    # -- indexing ---------------------------------------------------------------------------------

    def __getitem__(self, index):
        key, picks = self._key(index)
        if picks:
            return ndarray._of(np.array(self._host[key], order="C"))
        return on_device(self._host[key if ... in key else (*key, ...)], [self])

    def __setitem__(self, index, value):
        if not isinstance(value, ndarray | bool | int | float | complex | np.generic):
            refuse_numpy(value)
        key, picks = self._key(index)
        if picks and isinstance(value, ndarray):
            places = np.arange(self.size).reshape(self.shape)[key]
            if len(np.unique(places)) < places.size:
                raise IndexError("an element is assigned to twice: any of the values may win")
        read = [root(value._host)] if isinstance(value, ndarray) else []
        cuda.launched(read, [root(self._host)])
        self._host[key] = value._host if isinstance(value, ndarray) else value

    def _key(self, index):
        """The index for NumPy, and whether arrays pick from it; out of bounds wraps around."""
        parts = index if isinstance(index, tuple) else (index,)
        masks = [p for p in parts if isinstance(p, ndarray) and p.dtype == bool]
        counts["waits"] += len(masks)
        if len(masks) > 1:
            raise NotImplementedError("at most one boolean array in an index")
        axis, key = 0, []
        for p in parts:
            if isinstance(p, ndarray):
                length = self.shape[axis] if p.dtype.kind in "iu" else 0
                key.append(p._host % length if length else p._host)
            elif p is not None and p is not ... and not is_plain_index(p):
                raise IndexError(f"{type(p)} as index: a copy to the device that nobody sees")
            else:
                key.append(p)
            axis += self.ndim - sum(map(axes, parts)) if p is ... else axes(p)
        return tuple(key), any(isinstance(p, np.ndarray) for p in key)


def is_plain_index(p):
    return isinstance(p, int | np.integer | slice) and not isinstance(p, bool)


def axes(p):
    """How many axes of the array this part of an index takes."""
    if isinstance(p, ndarray) and p.dtype == bool:
        return p.ndim
    return int(p is not None and p is not ...)
