"""What CuPy 14 offers, as far as the stand-in plays it: names and signatures.

`test_strict_cupy.py` holds these tables against the real CuPy where that can be imported (it needs
no GPU for this). What is in no table is missing from the stand-in, as `block`, `errstate` or
`nanpercentile` are from CuPy. A function that a new op needs is added here by copying its line from
`inspect.signature(cupy.name)`.
"""


def words(text):
    return text.split()


def lines(text):
    return text.strip().split("\n")


# Element by element, with out= and dtype= and nothing else.
UFUNCS = words("""
abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh bitwise_and bitwise_not
bitwise_or bitwise_xor cbrt ceil conj conjugate copysign cos cosh deg2rad degrees divide equal exp
exp2 expm1 fabs float_power floor floor_divide fmax fmin fmod greater greater_equal heaviside hypot
invert isfinite isinf isnan left_shift less less_equal log log10 log1p log2 logaddexp logaddexp2
logical_and logical_not logical_or logical_xor maximum minimum mod multiply negative nextafter
not_equal positive power rad2deg radians reciprocal remainder right_shift rint sign signbit sin sinh
sqrt square subtract tan tanh true_divide trunc
""")

# What else NumPy's ufuncs can do, and for which ones CuPy can, too. `reduceat` is missing here on
# purpose: CuPy's takes differences of a running sum over everything, which loses the small ones
# (and its running sum is not the same twice). So is `at` for floats: its atomic adds come in any
# order.
UFUNC_METHODS = {
    "reduce": ("add", "multiply"),
    "accumulate": ("add", "multiply"),
    "outer": UFUNCS,
    "at": ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"),
}

# Functions that make a new array on the device without one.
CREATION = lines("""
arange(start, stop=None, step=1, dtype=None)
empty(shape, dtype=float, order='C')
eye(N, M=None, k=0, dtype=float, order='C')
full(shape, fill_value, dtype=None, order='C')
identity(n, dtype=float)
indices(dimensions, dtype=int)
linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0)
ones(shape, dtype=float, order='C')
tri(N, M=None, k=0, dtype=float)
tril_indices(n, k=0, m=None)
triu_indices(n, k=0, m=None)
zeros(shape, dtype=float, order='C')
""")

# Functions whose first argument is an array, or a list of arrays.
FUNCTIONS = lines("""
all(a, axis=None, out=None, keepdims=False)
allclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
amax(a, axis=None, out=None, keepdims=False)
amin(a, axis=None, out=None, keepdims=False)
any(a, axis=None, out=None, keepdims=False)
append(arr, values, axis=None)
argmax(a, axis=None, dtype=None, out=None, keepdims=False)
argmin(a, axis=None, dtype=None, out=None, keepdims=False)
argpartition(a, kth, axis=-1)
argsort(a, axis=-1, kind=None)
argwhere(a)
around(a, decimals=0, out=None)
array_equal(a1, a2, equal_nan=False)
array_split(ary, indices_or_sections, axis=0)
ascontiguousarray(a, dtype=None)
asfortranarray(a, dtype=None)
atleast_1d(*arys)
atleast_2d(*arys)
average(a, axis=None, weights=None, returned=False, *, keepdims=False)
bincount(x, weights=None, minlength=None)
broadcast_arrays(*args)
broadcast_to(array, shape)
clip(a, a_min, a_max, out=None)
column_stack(tup)
concatenate(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
copy(a, order='K')
copyto(dst, src, casting='same_kind', where=None)
count_nonzero(a, axis=None)
cumprod(a, axis=None, dtype=None, out=None)
cumsum(a, axis=None, dtype=None, out=None)
diag(v, k=0)
diagonal(a, offset=0, axis1=0, axis2=1)
diff(a, n=1, axis=-1, prepend=None, append=None)
digitize(x, bins, right=False)
dot(a, b, out=None)
dstack(tup)
empty_like(prototype, dtype=None, order='K', subok=None, shape=None)
expand_dims(a, axis)
flatnonzero(a)
flip(a, axis=None)
full_like(a, fill_value, dtype=None, order='K', subok=None, shape=None)
hstack(tup, *, dtype=None, casting='same_kind')
inner(a, b)
isclose(a, b, rtol=1e-05, atol=1e-08, equal_nan=False)
isin(element, test_elements, assume_unique=False, invert=False)
kron(a, b)
lexsort(keys)
max(a, axis=None, out=None, keepdims=False)
may_share_memory(a, b, max_work=None)
mean(a, axis=None, dtype=None, out=None, keepdims=False)
median(a, axis=None, out=None, overwrite_input=False, keepdims=False)
min(a, axis=None, out=None, keepdims=False)
moveaxis(a, source, destination)
nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None)
nonzero(a)
ones_like(a, dtype=None, order='K', subok=None, shape=None)
outer(a, b, out=None)
pad(array, pad_width, mode='constant', **kwargs)
partition(a, kth, axis=-1)
prod(a, axis=None, dtype=None, out=None, keepdims=False)
put_along_axis(arr, indices, values, axis)
ravel(a, order='C')
repeat(a, repeats, axis=None)
reshape(a, newshape, order='C', *, copy=None)
result_type(*arrays_and_dtypes)
roll(a, shift, axis=None)
rot90(a, k=1, axes=(0, 1))
round(a, decimals=0, out=None)
searchsorted(a, v, side='left', sorter=None)
sort(a, axis=-1, kind=None)
split(ary, indices_or_sections, axis=0)
squeeze(a, axis=None)
stack(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
sum(a, axis=None, dtype=None, out=None, keepdims=False)
swapaxes(a, axis1, axis2)
take(a, indices, axis=None, out=None)
take_along_axis(a, indices, axis)
tensordot(a, b, axes=2)
tile(A, reps)
trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None)
transpose(a, axes=None)
tril(m, k=0)
triu(m, k=0)
unique(ar, return_index=False, return_inverse=False, return_counts=False, axis=None, *, \
equal_nan=True)
var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False)
vdot(a, b)
vstack(tup, *, dtype=None, casting='same_kind')
where(condition, x=None, y=None)
zeros_like(a, dtype=None, order='K', subok=None, shape=None)
""")

# Of these CuPy tells no exact signature: einsum has no out=, matmul more than the stand-in.
LOOSE = [
    "einsum(*operands, dtype=None, optimize=False)",
    "matmul(x1, x2, out=None)",
]

# Functions that first read back how large their result is: the host waits for the device.
WAITING = words("argwhere bincount extract flatnonzero isin nonzero unique")

# Their float results are not the same bits twice: atomic adds, or a scan in any order.
UNORDERED = words("bincount cumprod cumsum")

REDUCTIONS = words("all any argmax argmin max mean min prod std sum var")

METHODS = lines("""
all(axis=None, out=None, keepdims=False)
any(axis=None, out=None, keepdims=False)
argmax(axis=None, out=None, dtype=None, keepdims=False)
argmin(axis=None, out=None, dtype=None, keepdims=False)
argpartition(kth, axis=-1)
argsort(axis=-1, kind=None)
astype(dtype, order='K', casting=None, subok=None, copy=True)
clip(min=None, max=None, out=None)
conj()
copy(order='C')
cumprod(axis=None, dtype=None, out=None)
cumsum(axis=None, dtype=None, out=None)
diagonal(offset=0, axis1=0, axis2=1)
dot(b, out=None)
flatten(order='C')
max(axis=None, out=None, keepdims=False)
mean(axis=None, dtype=None, out=None, keepdims=False)
min(axis=None, out=None, keepdims=False)
nonzero()
prod(axis=None, dtype=None, out=None, keepdims=None)
ravel(order='C')
repeat(repeats, axis=None)
reshape(*shape, order='C', copy=None)
round(decimals=0, out=None)
searchsorted(v, side='left', sorter=None)
squeeze(axis=None)
std(axis=None, dtype=None, out=None, ddof=0, keepdims=False)
sum(axis=None, dtype=None, out=None, keepdims=False)
swapaxes(axis1, axis2)
take(indices, axis=None, out=None)
trace(offset=0, axis1=0, axis2=1, dtype=None, out=None)
transpose(*axes)
var(axis=None, dtype=None, out=None, ddof=0, keepdims=False)
view(dtype=None, type=None)
""")

# Types, numbers and predicates that are NumPy's own.
SHARED = words("""
bool_ can_cast complex64 dtype e finfo float16 float32 float64 floating generic iinfo inexact inf
int16 int32 int64 int8 integer issubdtype nan newaxis number pi promote_types uint16 uint32 uint64
uint8 unsignedinteger broadcast_shapes
""")
