"""The curvature of the result of each operation on convex and concave values (disciplined convex
programming: Grant, Boyd & Ye 2006).

The rules are exact: a sum of concave values is concave, the logarithm of a sum of exponentials of
affine values is convex. An operation without a rule ends a proof without a conclusion.
"""

from __future__ import annotations

import numpy as np
from jax.extend.core import JaxprEqn

from jaxmle._types import FunctionTo, ndarray
from jaxmle.likelihood.discovery.curvature import (
    AFFINE,
    CONCAVE,
    CONVEX,
    IS_CONSTANT,
    LOG_CONCAVE,
    LOG_CONVEX,
    MINUS_SHARE,
    NOTHING,
    OF_SUMS,
    SHARE,
    Known,
    constants,
    is_constant,
    unknown,
    with_flags,
)


def convex_increasing(*parts: Known) -> ndarray:
    """A convex function that increases in each argument, of convex ones: convex."""
    flags = np.bitwise_and.reduce(np.broadcast_arrays(*(part.flags for part in parts)))
    return np.where(flags & CONVEX, CONVEX, NOTHING)


def concave_increasing(part: Known) -> ndarray:
    """A concave function that increases, of a concave argument: concave."""
    return np.where(part.flags & CONCAVE, CONCAVE, NOTHING)


def reduced_axes(equation: JaxprEqn) -> tuple[int, ...]:
    """The axes over which an operation goes."""
    params = equation.params
    return params["axes"] if "axes" in params else (params["axis"],)


def _negative(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & CONVEX, CONCAVE, 0) | np.where(f & CONCAVE, CONVEX, 0)
    flags |= np.where(f & SHARE, MINUS_SHARE, 0) | np.where(f & MINUS_SHARE, SHARE | LOG_CONCAVE, 0)
    held = constants(-part.value).flags
    flags = np.where(f & IS_CONSTANT, held, np.where(part.factor & ~part.is_plain, NOTHING, flags))
    return part._replace(flags=flags, value=-part.value, multiple=-part.multiple)


def _of_one_shape(a: Known, b: Known) -> tuple[Known, Known]:
    pairs = [np.broadcast_arrays(*pair) for pair in zip(a, b, strict=True)]
    return Known(*(pair[0] for pair in pairs)), Known(*(pair[1] for pair in pairs))


def _sum(a: Known, b: Known) -> Known:
    a, b = _of_one_shape(a, b)
    flags = a.flags & b.flags & OF_SUMS
    value = a.value + b.value
    for part, other in ((a, b), (b, a)):
        held = (part.flags & IS_CONSTANT) > 0
        flags = np.where(held & (part.value == 0) & part.is_plain, other.flags, flags)
        complement = held & (part.value == 1) & ((other.flags & MINUS_SHARE) > 0)
        flags = np.where(complement, flags | SHARE | LOG_CONCAVE, flags)
    held = (flags & IS_CONSTANT) > 0
    flags = np.where(held, constants(value).flags, flags)
    # a common maximum may be added to both; one that multiplies must be the same in both
    alike = a.is_plain | b.is_plain | (a.shift == b.shift)
    factor = (a.factor & ~a.is_plain) | (b.factor & ~b.is_plain)
    both = (a.factor == b.factor) & (a.shift == b.shift) & (a.multiple == b.multiple)
    zero = [((p.flags & IS_CONSTANT) > 0) & (p.value == 0) & p.is_plain for p in (a, b)]
    sound = np.where(factor, both | zero[0] | zero[1], alike)
    multiple = np.where(
        factor, np.where(a.is_plain, b.multiple, a.multiple), a.multiple + b.multiple
    )
    shift = np.where(a.is_plain, b.shift, a.shift)
    # NaN: not a multiple, so that nothing is concluded
    return Known(
        np.where(sound, flags, NOTHING), value, shift, np.where(sound, multiple, np.nan), factor
    )


def _scaled(part: Known, c: ndarray) -> Known:
    """Entries times constants."""
    f = np.where(part.flags & IS_CONSTANT, part.flags & ~(SHARE | MINUS_SHARE), part.flags)
    rising = f & (CONVEX | CONCAVE | LOG_CONVEX | LOG_CONCAVE | IS_CONSTANT)
    falling = np.where(f & CONVEX, CONCAVE, 0) | np.where(f & CONCAVE, CONVEX, 0) | f & IS_CONSTANT
    factor = part.factor & ~part.is_plain
    not_rising = np.where(c < 0, falling, rising & falling)  # of either sign where c is NaN
    flags = np.where(c > 0, rising, np.where(factor, NOTHING, not_rising))
    value = part.value * c
    held = (f & IS_CONSTANT) > 0
    flags = np.where(held, constants(value).flags, flags)
    flags = np.where(c == 1, part.flags, flags)
    multiple = np.where(part.factor | part.is_plain, part.multiple, part.multiple * c)
    out = Known(flags, value, part.shift, multiple, part.factor)
    minus = _negative(part)
    gone = c == 0
    nothing = constants(np.zeros(np.shape(flags)))
    pairs = zip(out, minus, nothing, strict=True)
    return Known(*(np.where(gone, z, np.where(c == -1, m, o)) for o, m, z in pairs))


def _product(a: Known, b: Known) -> Known:
    a, b = _of_one_shape(a, b)
    both = a.flags & b.flags & (LOG_CONVEX | LOG_CONCAVE)
    both = both | np.where(both & LOG_CONVEX, CONVEX, 0)
    multiplies = (a.factor | a.is_plain) & (b.factor | b.is_plain)
    alike = a.is_plain | b.is_plain | (a.shift == b.shift)
    sound = multiplies & alike
    of_logs = Known(
        np.where(sound, both, NOTHING),
        np.zeros(both.shape),
        np.where(a.is_plain, b.shift, a.shift),
        np.where(sound, a.multiple + b.multiple, np.nan),
        np.ones(both.shape, bool),
    )
    choices = [_scaled(b, a.value), _scaled(a, b.value), of_logs]
    held = [(p.flags & IS_CONSTANT > 0) & p.is_plain for p in (a, b)]
    return Known(
        *(np.where(held[0], x, np.where(held[1], y, z)) for x, y, z in zip(*choices, strict=True))
    )


def square(part: Known) -> Known:
    """The product of values with themselves."""
    f = part.flags
    affine = (f & AFFINE) == AFFINE
    flags = np.where(affine, CONVEX, 0) | f & (LOG_CONVEX | LOG_CONCAVE)
    held = constants(part.value**2)
    out = part.only(flags)
    is_held = ((f & IS_CONSTANT) > 0) & part.is_plain
    return Known(*(np.where(is_held, h, o) for h, o in zip(held, out, strict=True)))


def _quotient(a: Known, b: Known) -> Known:
    held = (b.flags & IS_CONSTANT) > 0
    with np.errstate(all="ignore"):
        inverse = np.where(b.value != 0, 1.0 / np.where(b.value != 0, b.value, 1.0), np.nan)
    flags = np.where(b.flags & LOG_CONVEX, LOG_CONCAVE, 0) | np.where(
        b.flags & LOG_CONCAVE, LOG_CONVEX | CONVEX, 0
    )
    sound = b.factor | b.is_plain
    reciprocal = b._replace(
        flags=np.where(sound, flags, NOTHING), multiple=-b.multiple, factor=np.ones_like(b.factor)
    )
    constant = constants(inverse)
    parts = zip(constant, reciprocal, strict=True)
    return _product(a, Known(*(np.where(held & b.is_plain, c, r) for c, r in parts)))


def _exponential(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & CONVEX, LOG_CONVEX | CONVEX, 0) | np.where(f & CONCAVE, LOG_CONCAVE, 0)
    flags = np.where(part.factor & ~part.is_plain, NOTHING, flags)
    out = Known(flags, part.value, part.shift, part.multiple, np.ones_like(part.factor))
    with np.errstate(all="ignore"):
        return _held(part, np.exp(part.value), out)


def _logarithm(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & LOG_CONVEX, CONVEX, 0) | np.where(f & (LOG_CONCAVE | CONCAVE), CONCAVE, 0)
    of_factor = np.where(f & LOG_CONVEX, CONVEX, 0) | np.where(f & LOG_CONCAVE, CONCAVE, 0)
    flags = np.where(part.is_plain, flags, np.where(part.factor, of_factor, NOTHING))
    out = part._replace(flags=flags, factor=np.zeros_like(part.factor))
    with np.errstate(all="ignore"):
        return _held(part, np.log(part.value), out)


def _logarithm_beside_one(part: Known) -> Known:
    f = part.flags
    flags = np.where(f & LOG_CONVEX, CONVEX, 0) | np.where(f & (CONCAVE | MINUS_SHARE), CONCAVE, 0)
    with np.errstate(all="ignore"):
        return _held(part, np.log1p(part.value), part.only(flags))


def _held(part: Known, value: ndarray, out: Known) -> Known:
    """The result of a function: of constants its value, else what is known of it."""
    is_held = ((part.flags & IS_CONSTANT) > 0) & part.is_plain
    return Known(*(np.where(is_held, c, o) for c, o in zip(constants(value), out, strict=True)))


def _absolute(part: Known) -> Known:
    f = part.flags
    is_positive = (f & (LOG_CONVEX | LOG_CONCAVE)) > 0
    folded = part.only(np.where((f & AFFINE) == AFFINE, CONVEX, NOTHING))
    out = Known(*(np.where(is_positive, p, q) for p, q in zip(part, folded, strict=True)))
    return _held(part, np.abs(part.value), out)


def _exponential_less_one(part: Known) -> Known:
    flags = np.where(part.flags & CONVEX, CONVEX, NOTHING)
    with np.errstate(all="ignore"):
        return _held(part, np.expm1(part.value), part.only(flags))


def _logistic(part: Known) -> Known:
    affine = (part.flags & AFFINE) == AFFINE
    return part.only(np.where(affine, LOG_CONCAVE | SHARE, NOTHING))


def _root(part: Known) -> Known:
    return part.only(part.flags & (CONCAVE | LOG_CONCAVE | LOG_CONVEX))


def _extreme(claims: int) -> FunctionTo[Known]:
    """The larger or the smaller of values that are all convex, or all concave."""

    def rule(a: Known, b: Known) -> Known:
        plain = a.is_plain & b.is_plain
        return with_flags(np.where(plain, a.flags & b.flags & claims, NOTHING))

    return rule


def _extreme_over_axes(claims: int) -> FunctionTo[Known]:
    def rule(part: Known, axes: tuple[int, ...]) -> Known:
        flags = np.where(part.is_plain, part.flags & claims, NOTHING)
        return with_flags(np.bitwise_and.reduce(flags, axis=axes))

    return rule


def _sum_over_axes(part: Known, axes: tuple[int, ...]) -> Known:
    size = int(np.prod([part.flags.shape[axis] for axis in axes]))
    if not size:
        return constants(np.sum(part.value, axis=axes))
    rest = tuple(n for axis, n in enumerate(part.flags.shape) if axis not in axes)
    first = Known(*(np.moveaxis(p, axes, range(len(axes))).reshape(size, *rest) for p in part))
    zero = ((first.flags & IS_CONSTANT) > 0) & (first.value == 0) & first.is_plain
    factor = np.any(first.factor & ~first.is_plain, axis=0)

    def common(values: ndarray) -> tuple[ndarray, ndarray]:
        """The value of the entries that are not zero, and whether it is the same in all."""
        low = np.min(np.where(zero, np.inf, values), axis=0)
        high = np.max(np.where(zero, -np.inf, values), axis=0)
        return np.where(np.isfinite(low), low, 0.0), ~(low < high)

    shift, same_shift = common(first.shift.astype(float))
    multiple, same_multiple = common(first.multiple)
    plain = np.all(first.is_plain, axis=0)
    flags = np.bitwise_and.reduce(np.where(zero, -1, first.flags), axis=0) & OF_SUMS
    value = np.sum(first.value, axis=0)
    flags = np.where(np.all(zero, axis=0), IS_CONSTANT, flags)
    flags = np.where(
        (flags & IS_CONSTANT > 0) & plain, constants(value).flags, flags & ~IS_CONSTANT
    )
    sound = plain | (same_shift & same_multiple)
    total = np.where(factor, multiple, np.sum(first.multiple, axis=0))
    return Known(
        np.where(sound, flags, NOTHING),
        value,
        shift.astype(int),
        np.where(sound, total, np.nan),
        factor,
    )


def _running(claims: int) -> FunctionTo[Known]:
    """Running sums and the like: what holds of all entries along the axis."""

    def rule(part: Known, axes: tuple[int, ...]) -> Known:
        flags = np.where(part.is_plain, part.flags & claims, NOTHING)
        whole = np.bitwise_and.reduce(flags, axis=axes, keepdims=True)
        return with_flags(np.broadcast_to(whole, part.flags.shape))

    return rule


def matrix_product(a: Known, b: Known, shape: tuple[int, ...]) -> Known:
    """A matrix of constants times values with the same flags."""
    if not (is_constant(a) or is_constant(b)):
        return unknown(shape)
    moving = b if is_constant(a) else a
    fixed = a.value if is_constant(a) else b.value
    flags = int(np.bitwise_and.reduce(moving.flags, axis=None)) & AFFINE
    if not np.all(moving.is_plain) or (flags != AFFINE and not np.all(fixed >= 0)):
        flags = NOTHING
    return with_flags(np.full(shape, flags))


RULES: dict[str, FunctionTo[Known]] = {
    "abs": _absolute,
    "add": _sum,
    "add_any": _sum,
    "cumlogsumexp": _running(CONVEX),
    "cummax": _running(CONVEX),
    "cumsum": _running(AFFINE),
    "div": _quotient,
    "exp": _exponential,
    "expm1": _exponential_less_one,
    "log": _logarithm,
    "log1p": _logarithm_beside_one,
    "logistic": _logistic,
    "max": _extreme(CONVEX | LOG_CONVEX),
    "min": _extreme(CONCAVE | LOG_CONCAVE),
    "mul": _product,
    "neg": _negative,
    "reduce_max": _extreme_over_axes(CONVEX | LOG_CONVEX),
    "reduce_min": _extreme_over_axes(CONCAVE | LOG_CONCAVE),
    "reduce_sum": _sum_over_axes,
    "sqrt": _root,
    "square": square,
    "sub": lambda a, b: _sum(a, _negative(b)),
}
OVER_AXES = frozenset(name for name in RULES if name.startswith(("reduce_", "cum")))
