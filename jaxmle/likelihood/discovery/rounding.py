"""A traced program evaluated operation by operation, and the rounding error of its results.

Compiling a program takes a second; evaluating a small one with NumPy takes a few milliseconds.
After each operation, every non-integer result can be changed at random by half a unit in the last
place. The resulting change of the final results is their rounding error: Monte Carlo arithmetic
(Parker, Pierce & Eggert 2000, Comput. Sci. Eng. 2(4), 58).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import numpy as np
import scipy
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxmle._types import Atom, Function, FunctionTo, Shape, Tree, ndarray
from jaxmle.likelihood.discovery.row_axis_rules import CALLS
from jaxmle.runtime.calls import aval_of, opened, results_of

Values = list[Tree]
Settings = Mapping[str, Tree]  # of an operation of a program, by name
Jitter = Callable[[Tree], Tree]


def _special(name: str) -> Function:
    """A function of scipy.special, which is imported when it is first called."""
    return lambda *values: getattr(scipy.special, name)(*values)


ENTRYWISE: dict[str, Function] = {
    "abs": np.abs, "add": np.add, "add_any": np.add, "acos": np.arccos, "acosh": np.arccosh,
    "and": np.bitwise_and, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atan2": np.arctan2, "atanh": np.arctanh, "cbrt": np.cbrt, "ceil": np.ceil, "copy": np.array,
    "cos": np.cos, "cosh": np.cosh, "digamma": _special("psi"), "eq": np.equal,
    "erf": _special("erf"), "erf_inv": _special("erfinv"), "erfc": _special("erfc"),
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "floor": np.floor, "ge": np.greater_equal,
    "gt": np.greater, "is_finite": np.isfinite, "le": np.less_equal,
    "lgamma": _special("gammaln"), "log": np.log, "log1p": np.log1p,
    "logistic": _special("expit"), "lt": np.less, "max": np.maximum, "min": np.minimum,
    "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "not": np.invert,
    "or": np.bitwise_or, "polygamma": _special("polygamma"), "pow": np.power, "sign": np.sign,
    "sin": np.sin, "sinh": np.sinh, "sqrt": np.sqrt, "square": np.square, "sub": np.subtract,
    "tan": np.tan, "tanh": np.tanh,
    "xor": np.bitwise_xor,
}  # fmt: skip
REDUCING: dict[str, Function] = {
    "reduce_and": np.all,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_or": np.any,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
}


def evaluated(
    program: ClosedJaxpr, arguments: Sequence[Tree], jitter: Jitter | None = None
) -> Values:
    """The results of a traced program.

    Args:
        program: with its constants, as ``jax.make_jaxpr`` gives it.
        arguments: an array for each of its inputs.
        jitter: a function applied to each result of an operation; None for none.
    """
    with np.errstate(all="ignore"):
        return _run(program.jaxpr, program.consts, arguments, jitter)


def random_rounding(seed: int) -> Jitter:
    """Change floating-point numbers that are not integers by up to a unit in the last place."""
    rng = np.random.default_rng(seed)

    def moved(value: Tree) -> Tree:
        value = np.asarray(value)
        if value.dtype.kind != "f":
            return value
        unit = np.finfo(value.dtype).eps * np.abs(value)
        is_whole = np.rint(value) == value
        moved_by = unit * rng.uniform(-1.0, 1.0, value.shape)
        return np.where(is_whole, value, value + moved_by).astype(value.dtype)

    return moved


def _run(
    jaxpr: Jaxpr, constants: Sequence[Tree], arguments: Sequence[Tree], jitter: Jitter | None
) -> Values:
    known = dict(zip(jaxpr.constvars, map(np.asarray, constants), strict=True))
    known |= zip(jaxpr.invars, map(np.asarray, arguments), strict=True)

    def read(atom: Atom) -> ndarray:
        return (
            np.asarray(atom.val, aval_of(atom).dtype) if isinstance(atom, Literal) else known[atom]
        )

    for equation in jaxpr.eqns:
        results = _results(equation, [read(atom) for atom in equation.invars], jitter)
        known.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(equation: JaxprEqn, values: Values, jitter: Jitter | None) -> Values:
    """The results of one operation."""
    name = equation.primitive.name
    if name in CALLS and CALLS[name][0] in equation.params:
        inner = equation.params[CALLS[name][0]]
        return _run(opened(inner), getattr(inner, "consts", ()), values, jitter)
    if name in BRANCHING:
        return BRANCHING[name](equation.params, values, jitter)
    shape = aval_of(equation.outvars[0]).shape if equation.outvars else ()
    if name in ENTRYWISE and all(value.dtype.kind in "fiub" for value in values):
        results = [ENTRYWISE[name](*values)]
    elif name in REDUCING:
        results = [REDUCING[name](values[0], axis=tuple(equation.params["axes"]))]
    elif name in SHAPING:
        results = [SHAPING[name](equation.params, shape, *values)]
    elif name == "split":
        cuts = np.cumsum(equation.params["sizes"])[:-1]
        results = np.split(values[0], cuts, equation.params["axis"])
    else:
        results = _by_jax(equation, values)
    typed = [
        np.asarray(value).astype(aval_of(var).dtype, copy=False)
        for var, value in zip(equation.outvars, results, strict=True)
    ]
    return typed if jitter is None or name in MOVING else [jitter(value) for value in typed]


def _by_jax(equation: JaxprEqn, values: Values) -> Values:
    """The results of an operation that is computed by jax instead of NumPy."""
    return [np.asarray(value) for value in results_of(equation, values)]


# ---------------------------------------------------------------- branches and loops


def _cond(params: Settings, values: Values, jitter: Jitter | None) -> Values:
    branches = params["branches"]
    branch = branches[int(np.clip(int(values[0]), 0, len(branches) - 1))]
    return _run(branch.jaxpr, branch.consts, values[1:], jitter)


def _while(params: Settings, values: Values, jitter: Jitter | None) -> Values:
    conditions = params["cond_nconsts"]
    constants = conditions + params["body_nconsts"]
    condition = params["cond_jaxpr"]
    body = params["body_jaxpr"]
    carry = values[constants:]
    of_condition = values[:conditions]
    of_body = values[conditions:constants]
    while _run(condition.jaxpr, condition.consts, [*of_condition, *carry], jitter)[0].all():
        carry = _run(body.jaxpr, body.consts, [*of_body, *carry], jitter)
    return carry


BRANCHING: dict[str, FunctionTo[Values]] = {"cond": _cond, "while": _while}

# ---------------------------------------------------------------- operations that move entries


def _broadcast(params: Settings, shape: Shape, value: Tree, *_: Tree) -> Tree:
    lengths = [1] * len(shape)
    for axis, size in zip(params["broadcast_dimensions"], value.shape, strict=True):
        lengths[axis] = size
    return np.broadcast_to(value.reshape(lengths), shape)


def _reshape(params: Settings, shape: Shape, value: Tree, *_: Tree) -> Tree:
    return value.reshape(shape)


def _dot(params: Settings, shape: Shape, left: Tree, right: Tree) -> Tree:
    (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
    left_axes = list(range(left.ndim))
    right_axes = [left.ndim + axis for axis in range(right.ndim)]
    for i, j in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
        right_axes[j] = left_axes[i]
    free = [axis for axis in range(left.ndim) if axis not in (*left_sum, *left_batch)]
    others = [axis for axis in range(right.ndim) if axis not in (*right_sum, *right_batch)]
    out = [*left_batch, *free, *(right_axes[axis] for axis in others)]
    return np.einsum(left, left_axes, right, right_axes, out, optimize=True)


def _select(params: Settings, shape: Shape, which: Tree, *cases: Tree) -> Tree:
    return np.choose(which.astype(int), [np.broadcast_to(case, shape) for case in cases])


def _slice(params: Settings, shape: Shape, value: Tree) -> Tree:
    strides = params["strides"] or [1] * value.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return value[tuple(slice(*bound) for bound in bounds)]


def _iota(params: Settings, shape: Shape, *_: Tree) -> Tree:
    return np.indices(shape, sparse=True)[params["dimension"]] + np.zeros(shape, int)


def _pad(params: Settings, shape: Shape, value: Tree, filling: Tree) -> ndarray:
    """Padding with zeros, or another number, before, after and between the entries; negative
    padding removes entries.
    """
    widths = [
        low + high + max(0, (n - 1) * gap + n) for (low, high, gap), n in _config(params, value)
    ]
    whole = np.full([max(width, 0) for width in widths], filling, value.dtype)
    target: list[Tree] = []
    source: list[Tree] = []
    for (low, _, gap), n in _config(params, value):
        places = low + np.arange(n) * (gap + 1)
        inside = (places >= 0) & (places < whole.shape[len(target)])
        target.append(places[inside])
        source.append(np.flatnonzero(inside))
    whole[np.ix_(*target)] = value[np.ix_(*source)]
    return whole


def _config(params: Settings, value: Tree) -> list[Tree]:
    return list(zip(params["padding_config"], value.shape, strict=True))


def _window(
    shape: Sequence[int], indices: Tree, sizes: Sequence[int], dims: Tree, whole: Sequence[int]
) -> tuple[list[Tree], Tree]:
    """For each axis of an array the positions that a gather reads or a scatter writes, of shape
    ``whole``, and whether each window lies inside.

    Args:
        shape: of the array.
        indices: the corners of the windows, (..., axes of a corner).
        sizes: of a window, for each axis of the array.
        dims: axes of ``whole`` that run within a window; axes of the array that have none in it;
            axes that a corner gives; axes that follow an axis of the corners, and the latter.
    """
    of_window, gone, by_corner, batched, batches = dims
    rank = len(whole)
    free = [axis for axis in range(rank) if axis not in of_window]

    def spread(values: Tree, axes: Sequence[int]) -> Tree:
        lengths = [1] * rank
        for axis, size in zip(axes, values.shape, strict=True):
            lengths[axis] = size
        return values.reshape(lengths)

    window_axes = [axis for axis in range(len(shape)) if axis not in (*gone, *batched)]
    places: list[Tree] = []
    inside = np.ones([1] * rank, bool)
    for axis, length in enumerate(shape):
        place = np.zeros([1] * rank, int)
        if axis in by_corner:
            corner = spread(indices[..., list(by_corner).index(axis)].astype(int), free)
            last = length - sizes[axis]
            inside = inside & (corner >= 0) & (corner <= last)
            place = place + np.clip(corner, 0, last)
        if axis in batched:
            along = free[batches[list(batched).index(axis)]]
            place = place + spread(np.arange(length), [along])
        if axis in window_axes:
            place = place + spread(np.arange(sizes[axis]), [of_window[window_axes.index(axis)]])
        places.append(np.broadcast_to(place, whole))
    return places, np.broadcast_to(inside, whole)


def _gather(params: Settings, shape: Shape, value: Tree, indices: Tree) -> ndarray:
    numbers = params["dimension_numbers"]
    dims = (
        numbers.offset_dims,
        numbers.collapsed_slice_dims,
        numbers.start_index_map,
        numbers.operand_batching_dims,
        numbers.start_indices_batching_dims,
    )
    places, inside = _window(value.shape, indices, params["slice_sizes"], dims, shape)
    taken = value[tuple(places)]
    if not _drops(params):
        return taken
    filling = params["fill_value"]
    if filling is None:
        low = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        of_integers = None if low is None else low.min if value.dtype.kind == "i" else low.max
        filling = np.nan if low is None else of_integers
    return np.where(inside, taken, np.asarray(filling).astype(value.dtype))


def _scatter(
    params: Settings, shape: Shape, value: Tree, indices: Tree, updates: Tree, *, add: bool
) -> Tree:
    numbers = params["dimension_numbers"]
    gone = numbers.inserted_window_dims
    batched = numbers.operand_batching_dims
    of_window = numbers.update_window_dims
    window_axes = [axis for axis in range(value.ndim) if axis not in (*gone, *batched)]
    sizes = [1] * value.ndim
    for axis, place in zip(of_window, window_axes, strict=True):
        sizes[place] = updates.shape[axis]
    dims = (
        of_window,
        gone,
        numbers.scatter_dims_to_operand_dims,
        batched,
        numbers.scatter_indices_batching_dims,
    )
    places, inside = _window(value.shape, indices, sizes, dims, updates.shape)
    result = value.copy()
    chosen = inside if _drops(params) else np.ones_like(inside)
    where = tuple(place[chosen] for place in places)
    if add:
        np.add.at(result, where, updates[chosen])
    else:
        result[where] = updates[chosen]
    return result


def _drops(params: Settings) -> bool:
    """Whether a window outside the array is dropped instead of being moved inside."""
    return params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP


def _quotient(params: Settings, shape: Shape, a: Tree, b: Tree) -> Tree:
    return np.divide(a, b) if a.dtype.kind == "f" else np.trunc(np.divide(a, b))


SHAPING: dict[str, Function] = {
    "broadcast_in_dim": _broadcast,
    "clamp": lambda params, shape, low, x, high: np.clip(x, low, high),
    "concatenate": lambda params, shape, *parts: np.concatenate(parts, params["dimension"]),
    "convert_element_type": _reshape,
    "cumsum": lambda params, shape, x: (
        np.flip(np.cumsum(np.flip(x, params["axis"]), params["axis"]), params["axis"])
        if params["reverse"]
        else np.cumsum(x, params["axis"])
    ),
    "div": _quotient,
    "dot_general": _dot,
    "gather": _gather,
    "integer_pow": lambda params, shape, x: np.power(x, x.dtype.type(params["y"])),
    "iota": _iota,
    "pad": _pad,
    "rem": lambda params, shape, a, b: np.fmod(a, b),
    "reshape": _reshape,
    "rsqrt": lambda params, shape, x: 1 / np.sqrt(x),
    "scatter": partial(_scatter, add=False),
    "scatter-add": partial(_scatter, add=True),
    "scatter_add": partial(_scatter, add=True),
    "select_n": _select,
    "slice": _slice,
    "squeeze": _reshape,
    "stack": lambda params, shape, *parts: np.stack(parts, params["axis"]),
    "stop_gradient": _reshape,
    "transpose": lambda params, shape, x: np.transpose(x, params["permutation"]),
}
ROUNDED_NEVER = """abs broadcast_in_dim ceil clamp concatenate convert_element_type copy cummax
    cummin dynamic_slice dynamic_update_slice floor gather max min neg pad reduce_max reduce_min
    reshape rev round scatter select_n sign slice sort split squeeze stack stop_gradient tile top_k
    transpose unstack"""
MOVING = frozenset(ROUNDED_NEVER.split())


def _spread(params: Settings, value: ndarray) -> ndarray:
    places = params["broadcast_dimensions"]
    shape = [1] * len(params["shape"])
    for axis, size in zip(places, value.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(value.reshape(shape), params["shape"])


# By name: a few operations by which constants are made of others, with the settings of each.
CONSTANT_RULES: dict[str, Function] = {
    "broadcast_in_dim": _spread,
    "convert_element_type": lambda params, a: a.astype(float),
    "copy": lambda params, a: a,
    "copy_p": lambda params, a: a,
    "reshape": lambda params, a: a.reshape(params["new_sizes"]),
    "squeeze": lambda params, a: np.squeeze(a, params["dimensions"]),
    "reduce_sum": lambda params, a: a.sum(axis=params["axes"]),
    "neg": lambda params, a: -a,
    "add": lambda params, a, b: a + b,
    "sub": lambda params, a, b: a - b,
    "mul": lambda params, a, b: a * b,
    "div": lambda params, a, b: np.true_divide(a, b),
    "sqrt": lambda params, a: np.sqrt(a),
    "rsqrt": lambda params, a: 1 / np.sqrt(a),
    "integer_pow": lambda params, a: np.asarray(a, float) ** params["y"],
    "pow": lambda params, a, b: np.asarray(a, float) ** b,
}
