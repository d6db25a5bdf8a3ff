"""Reverse-mode automatic differentiation: a tensor remembers how it was made.

An op computes its value and calls `record(value, parents, vjp)`; that is all the engine knows of
it. The graph that arises, and the way back through it, are in graph.py.

Letters: z the output of an op, dz the gradient of the loss by z.
Left out on purpose: gradients of gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from minipar.ambient import grad_enabled
from minipar.array import Array, array_module, describe, is_array, sum_dtype, to_numpy
from minipar.errors import GraphError, ShapeMismatch, UsageError
from minipar.graph import Node, Vjp, backward
from minipar.origin import caller, op_name, place


class Tensor:
    """An array, its gradient, and (if it was computed) the node that made it.

    data: an array of NumPy or CuPy, or numbers in lists; Python floats become float32.
    A tensor of integers may go through ops as an index; it never has a gradient.
    """

    __slots__ = ("__weakref__", "_node", "data", "grad", "listeners", "requires_grad")
    __array_ufunc__ = None  # so that `array * tensor` asks Tensor.__rmul__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = _as_array(data)
        if requires_grad and self.data.dtype.kind not in "fV":  # V: bfloat16 is a foreign dtype
            raise UsageError(
                f"A tensor of {self.data.dtype} cannot require a gradient; convert it with "
                ".astype('float32') first."
            )
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self._node: Node | None = None
        self.listeners: tuple[Callable[[Tensor], None], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({self.data!r}{grad})"

    def detach(self) -> Tensor:
        """The same array without its history."""
        return Tensor(self.data)

    def item(self) -> float:
        """The only element, as a Python number."""
        return self.data.item()

    def numpy(self) -> Any:
        """The array in host memory; shared with this tensor if it is there already."""
        return to_numpy(self.data)

    def zero_grad(self) -> None:
        """Forget the gradient; one that is a view into a bigger buffer is set to zero instead."""
        if self.grad is not None and self.grad.base is not None:
            self.grad[...] = 0
        else:
            self.grad = None

    def when_final(self, listener: Callable[[Tensor], None]) -> Callable[[], None]:
        """Have listener(self) called in each backward once this leaf's .grad is complete.

        Returns a function that takes the listener away again.
        """
        self.listeners += (listener,)

        def remove() -> None:
            self.listeners = tuple(f for f in self.listeners if f is not listener)

        return remove

    @overload
    def backward(self, dz: Any = None, *, retain_graph: bool = False) -> None: ...
    @overload
    def backward(
        self, dz: Any = None, *, defer: Collection[Tensor] | None, retain_graph: bool = False
    ) -> Callable[[], None]: ...
    def backward(
        self,
        dz: Any = None,
        *,
        defer: Collection[Tensor] | None = None,
        retain_graph: bool = False,
    ) -> Callable[[], None] | None:
        """Add the gradient of sum(dz · self) to .grad of every leaf that this was computed from.

        dz:     an array of this shape; may be left out for a single number, where it is 1.
        defer:  leaves (weights) that can wait. What serves only them is left undone, and a
                function is returned that does it: the halves "I" and "W" of a pipeline schedule.
        After:  the graph is freed, bit by bit as the gradients pass; with retain_graph=True it
                stays, and with it all memory, so that backward can be called again.
        Raises: GraphError without a graph, or if an earlier backward has used it up.
        """
        late = frozenset(map(id, defer or ()))
        rest = backward(self._node or self, _seed(self, dz), late, retain_graph)
        return rest if defer is not None else None

    if TYPE_CHECKING:  # minipar.ops attaches these; it stands on a higher floor
        T: Tensor

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __pow__(self, exponent: Any) -> Tensor: ...
        def __rpow__(self, base: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor: ...
        def max(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def min(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...


def record(value: Array, parents: Sequence[Tensor], vjp: Vjp) -> Tensor:
    """The tensor of an op's value, with its way back if any parent requires a gradient.

    vjp(dz, wanted) returns one array per parent, of its shape, or None where wanted is False; it
    may be called twice with complementary `wanted`. A result may be dz or a view of it, else it
    must be new: an array that the op keeps must be copied first. Results are never written to
    while anybody else can see them.
    """
    z = Tensor(value)
    mode = grad_enabled.get()
    if mode:
        try:
            for p in parents:
                if p.requires_grad:
                    z.requires_grad = True
                    back = [(q._node or q) if q.requires_grad else None for q in parents]
                    z._node = Node(z.data, back, vjp, caller())
                    if mode is not True:
                        mode.watch(z._node)
                    break
        except AttributeError:
            wrong = next((p for p in parents if not isinstance(p, Tensor)), None)
            if wrong is None:
                raise
            raise UsageError(
                f"{op_name(vjp)}: {shown(wrong)} is where a tensor should be (at "
                f"{place(caller())}). Is Tensor(...) missing around it?"
            ) from None
    return z


@contextmanager
def no_grad() -> Iterator[None]:
    """Nothing is recorded inside: evaluation, generation, updates of weights."""
    token = grad_enabled.set(False)
    try:
        yield
    finally:
        grad_enabled.reset(token)


def shown(x: Tensor) -> str:
    """dtype, shape and origin, as error messages print them."""
    if not isinstance(x, Tensor):
        return f"{describe(x) if is_array(x) else ''} (of {type(x).__name__}, no Tensor)".strip()
    made = "" if x._node is None else f" (made by {x._node})"
    return describe(x.data) + made


def places(op: str, x: Tensor, axes: Sequence[int], new: int = 0) -> tuple[int, ...]:
    """Axes of x, counted from the front.   new: how many axes more there will be (stack)."""
    n = x.ndim + new
    for a in axes:
        if not -n <= a < n:
            there = f"0 .. {n - 1}, or from the end -1 .. {-n}" if n else "none"
            raise ShapeMismatch(f"{op}: {shown(x)}: there is no axis {a}; there are {there}.")
    return tuple([a % n for a in axes])


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum g over the axes along which an array of `shape` was broadcast; the result has `shape`.

    float16 and bfloat16 are summed in float32.
    """
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    stretched = tuple(lead + a for a, n in enumerate(shape) if n == 1 and g.shape[lead + a] != 1)
    total = g.sum(axis=(*range(lead), *stretched), dtype=sum_dtype(g.dtype))
    return total.astype(g.dtype, copy=False).reshape(shape)


def plain(x: Any) -> Array:
    """The array that an op takes as plain data: that of a tensor, x itself, or numbers in lists."""
    if isinstance(x, Tensor):
        return x.data
    return x if is_array(x) else array_module().asarray(x)


def _as_array(data: Any) -> Array:
    if is_array(data):
        return data
    if isinstance(data, Tensor):
        raise UsageError("Tensor(...) was given a Tensor; use .detach() to cut its history.")
    xp = array_module()
    array = xp.asarray(data)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"A tensor holds numbers of one shape; this is {type(data).__name__}.")
    typed = isinstance(data, xp.generic)  # a NumPy scalar: it says what it is
    return array.astype("float32") if array.dtype == "float64" and not typed else array


def _seed(z: Tensor, dz: Any) -> Array:
    """The gradient to start from, checked."""
    if not z.requires_grad:
        raise GraphError(
            "backward() needs a tensor that depends on one with requires_grad=True; this one does "
            "not. Was it computed inside no_grad(), from detached tensors, or from frozen weights?"
        )
    if dz is None:
        if z.data.size != 1:
            raise GraphError(
                f"backward() without an argument starts from one number, this is {describe(z.data)}"
                ". Reduce it first (.sum(), .mean(), a loss), or pass dz of the same shape."
            )
        return array_module(z.data).ones_like(z.data)
    dz = dz.data if isinstance(dz, Tensor) else dz
    dz = array_module(z.data).asarray(dz, dtype=z.dtype)
    if dz.shape != z.shape:
        raise ShapeMismatch(
            f"backward(dz): dz is {describe(dz)}, the tensor is {describe(z.data)}. "
            "dz is the gradient of the loss by this tensor, so it has the same shape."
        )
    return dz
