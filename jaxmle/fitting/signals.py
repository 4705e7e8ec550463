"""Signs that a number is not what it seems: a log-likelihood that is a mean instead of a sum, a
maximum that may not be the only one.

A likelihood of one number for n rows that is their *mean* has standard errors √n times too large,
and nothing in its values shows it. Its program does: traced for n rows and for 2n, what is divided
by the number of rows is divided by twice as much. Nothing is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmle._types import Loglik, Tree
from jaxmle.closures.copies import viewed
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import data_length, terms_of
from jaxmle.likelihood.discovery.derivative_rules import Verdict
from jaxmle.likelihood.priors import NormalPrior, Ridge
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.structure import core_of, term_shape
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import is_contradicted, precision, remembered
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.user_code import warn_caller
from jaxmle.solvers.status import (
    CONCAVE_FLAG,
    HESSIAN_CONTRADICTED,
    MEAN,
    MEAN_OF_ROWS,
    SCORE_CONTRADICTED,
    SCORE_IS_NO_DERIVATIVE,
)

MIN_TERMS_OF_A_MEAN = 8  # of a closed-over array: /2 and /4 are what formulas divide by


class DerivativeRuleWarning(UserWarning):
    """A rule of differentiation in the likelihood is not the derivative of its values.

    >>> import warnings, numpy as np, jax, jaxmle as jm
    >>> @jax.custom_jvp
    ... def square(x):
    ...     return x * x
    >>> square.defjvps(lambda tangent, out, x: 3.0 * x * tangent)  # 2x would be right
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = jm.fit(lambda p, d: -square(d - p["a"]), {"a": 0.0}, np.arange(5.0))
    >>> caught[0].category is jm.DerivativeRuleWarning
    True
    """


class MeanLikelihoodWarning(UserWarning):
    """A log-likelihood of one number divides the sum over its rows by their number, so that
    standard errors are √n times too large.

    >>> import warnings, numpy as np, jaxmle as jm
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fit = jm.fit(lambda p, d: -((d - p["a"]) ** 2).mean(), {"a": 0.0}, np.arange(9.0))
    >>> caught[0].category is jm.MeanLikelihoodWarning
    True
    """


def with_signals(fit: Fit, user_loglik: Any, tree: Any, data: Tree) -> Fit:
    """A fit, of one data set or of a batch, marked with what is known of its maximum: that it is
    the only one, or that the likelihood is a mean. Warns of a mean.

    Args:
        user_loglik: the likelihood as the user gave it; a ready model says more than its tree.
        tree: the likelihood as a tree.
        data: of one data set.
    """
    with precision(fit.dtype):
        is_mean_of_rows = _is_mean(tree, fit.layout, jax.tree.map(viewed, data))
    if is_mean_of_rows:
        warn_caller(
            MEAN_OF_ROWS[0].upper() + MEAN_OF_ROWS[1:],
            MeanLikelihoodWarning,
        )
    code = CONCAVE_FLAG * has_one_maximum(user_loglik) + MEAN * is_mean_of_rows
    return _marked(fit, code) if code else fit


def with_rules(fit: Fit, loglik: Any, rules: Verdict) -> Fit:
    """A fit marked with what is known of the rules of differentiation in its likelihood; warns of
    one that is no derivative.
    """
    code = HESSIAN_CONTRADICTED * is_contradicted(loglik) + SCORE_CONTRADICTED * rules.score
    if rules.score:
        sentence = f"{', '.join(rules.names)}: {SCORE_IS_NO_DERIVATIVE}"
        warn_caller(sentence, DerivativeRuleWarning)
    return _marked(fit, code) if code else fit


def _marked(fit: Fit, code: int) -> Fit:
    """The fit with more of what the certificate of a converged one says."""
    old = fit.witness.certificate
    added = np.where(fit.converged, old | code, old).astype(np.int32)[()]
    return replace(fit, witness=replace(fit.witness, certificate=added))


# ---------------------------------------------------------------- one maximum


def has_one_maximum(user_loglik: Any) -> bool:
    """Whether the likelihood is known to have one maximum at most: a regression that says it is
    concave, weighted, restricted, pooled with its like or with a concave prior; Cox's partial
    likelihood; a normal regression, concave in β/σ and 1/σ (Burridge 1981, JRSS B 43, 41).
    """
    inner = getattr(user_loglik, "likelihood", None)
    if isinstance(inner, Penalize | Pool):  # what a combinator made of a ready model
        return has_one_maximum(inner)
    if isinstance(user_loglik, Penalize):
        return isinstance(user_loglik.prior, Ridge | NormalPrior) and _is_concave(
            user_loglik.loglik
        )
    if isinstance(user_loglik, Pool):
        return all(_is_concave(member) for member in user_loglik.members)
    return _is_concave(user_loglik) or (
        getattr(user_loglik, "name", "") == "normal"
        and hasattr(user_loglik, "likelihood")
        and "sigma" in (user_loglik.constraints or {})
    )


def _is_concave(user_loglik: Any) -> bool:
    """Concave in its parameters as they are: sums of such likelihoods, and restrictions of
    them, are too.
    """
    if isinstance(user_loglik, Weight | Fix | Tie | WithResponse):
        return _is_concave(user_loglik.loglik)
    if isinstance(user_loglik, Regression):
        linear = all(isinstance(form, Linear | str) for form in user_loglik.forms)
        return user_loglik.concave and linear
    if hasattr(user_loglik, "likelihood") and hasattr(user_loglik, "name"):
        return user_loglik.name == "cox" or _is_concave(user_loglik.likelihood)
    return False


# ---------------------------------------------------------------- a mean over rows


def _is_mean(tree: Any, layout: Layout, data: Tree) -> bool:
    """Whether the likelihood returns one number in which all that depends on the data is
    divided by the number of rows.
    """
    core = core_of(tree)
    if not isinstance(core, Opaque):
        return False
    point = np.zeros(layout.p)
    if term_shape(core, layout, point, data) != ():
        return False
    shapes = tuple((np.shape(leaf), str(leaf.dtype)) for leaf in jax.tree.leaves(data))
    key = ("mean of rows", layout, jax.tree.structure(data), shapes)
    return bool(remembered(core, key, lambda held: _divides_by_rows(held, layout, data)))


def _divides_by_rows(loglik: Loglik, layout: Layout, data: Tree) -> bool:
    def value(x: Any, data: Tree) -> Any:
        return terms_of(loglik, layout.unravel(x), data)

    def program(copies: int) -> Any:
        def shape(leaf: Any) -> Any:
            return jax.ShapeDtypeStruct((copies * leaf.shape[0], *leaf.shape[1:]), leaf.dtype)

        x = jax.ShapeDtypeStruct((layout.p,), jax.numpy.zeros(()).dtype)
        return jax.make_jaxpr(value)(x, jax.tree.map(shape, data))

    try:
        once = program(1)
        twice = program(2) if data_length(data) else None
    except Exception:  # a likelihood may refuse other data than its own, in any way
        return False
    powers = list(_powers(_Scope.of(once, twice, layout.p), once.jaxpr.outvars[0], twice))
    return bool(powers) and all(power >= 1 for power in powers)


class _Scope(NamedTuple):
    """A program, beside the same for twice the rows, and what its inputs stand for outside of
    it.
    """

    maker: dict[Any, Any]  # from a variable to its equation
    twin: dict[int, Any]  # from the place of an equation to that in the other program
    place: dict[int, int]
    outer: Callable[[Any], tuple[Any, Any] | None]  # a variable's scope and atom outside
    of_data: set[Any]  # variables that depend on the data

    @classmethod
    def of(cls, once: Any, twice: Any, parameters: int) -> _Scope:
        inner = once.jaxpr
        other = None if twice is None else twice.jaxpr
        data = {*inner.invars[1:], *(v for v in inner.constvars if v.aval.ndim)}
        return cls.made(inner, other, lambda var: None, data)

    @classmethod
    def made(cls, inner: Any, other: Any, outer: Any, data: set[Any]) -> _Scope:
        equations = list(inner.eqns)
        twins = list(other.eqns) if other is not None else []
        alike = len(twins) == len(equations) and all(
            a.primitive is b.primitive for a, b in zip(equations, twins, strict=True)
        )
        known = set(data)
        for equation in equations:
            if any(not hasattr(atom, "val") and atom in known for atom in equation.invars):
                known.update(equation.outvars)
        return cls(
            {var: equation for equation in equations for var in equation.outvars},
            {place: twins[place] for place in range(len(twins))} if alike else {},
            {id(equation): place for place, equation in enumerate(equations)},
            outer,
            known,
        )


LINEAR = frozenset(
    {"neg", "convert_element_type", "reshape", "squeeze", "copy", "copy_p", "reduce_sum",
     "broadcast_in_dim", "expand_dims", "transpose", "stop_gradient"}
)  # fmt: skip
SHAPING = frozenset(
    {"convert_element_type", "reshape", "squeeze", "copy", "copy_p", "broadcast_in_dim"}
)  # fmt: skip
SUMS = frozenset({"add", "sub", "add_any"})
CALL_PRIMITIVES = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "remat",
    "checkpoint",
)


def _powers(scope: _Scope, atom: Any, twice: Any) -> Any:
    """For each part of a sum that depends on the data, how often it is divided by the number of
    rows.
    """
    stack = [(scope, atom, 0)]
    while stack:
        scope, atom, power = stack.pop()
        if hasattr(atom, "val") or atom not in scope.of_data:
            continue
        equation = scope.maker.get(atom)
        if equation is None:
            outside = scope.outer(atom)
            if outside is None:
                yield power
            else:
                stack.append((*outside, power))
            continue
        name = equation.primitive.name
        if name in SUMS or name in LINEAR:
            stack += [(scope, part, power) for part in equation.invars[: 2 if name in SUMS else 1]]
        elif name == "select_n":  # jnp.where, whichever case it takes
            stack += [(scope, part, power) for part in equation.invars[1:]]
        elif name in CALL_PRIMITIVES and (inner := _inside(scope, equation)) is not None:
            stack.append((inner[0], inner[1][equation.outvars.index(atom)], power))
        elif name in ("mul", "div") and (step := _scaled(scope, equation)) is not None:
            stack.append((scope, step[0], power + step[1]))
        else:
            yield power


def _inside(scope: _Scope, equation: Any) -> tuple[_Scope, list[Any]] | None:
    """The program of a call, and its results."""
    inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    if inner is None:
        return None
    twin = scope.twin.get(scope.place[id(equation)])
    other = None
    if twin is not None:
        other = twin.params.get("jaxpr") or twin.params.get("call_jaxpr")
        other = getattr(other, "jaxpr", other)
    jaxpr = getattr(inner, "jaxpr", inner)
    if len(jaxpr.invars) != len(equation.invars):
        return None
    outside = dict(zip(jaxpr.invars, equation.invars, strict=True))
    data = {
        var for var, atom in outside.items() if not hasattr(atom, "val") and atom in scope.of_data
    }
    data |= {var for var in jaxpr.constvars if var.aval.ndim}

    def outer(var: Any) -> tuple[Any, Any] | None:
        return (scope, outside[var]) if var in outside else None

    return _Scope.made(jaxpr, other, outer, data), list(jaxpr.outvars)


def _scaled(scope: _Scope, equation: Any) -> tuple[Any, int] | None:
    """The factor that depends on the data, and how often the other one divides it by the number
    of rows; None for a product of two.
    """
    left, right = equation.invars
    on_data = [not hasattr(atom, "val") and atom in scope.of_data for atom in (left, right)]
    if all(on_data):
        return _by_count(scope, equation)
    if equation.primitive.name == "div" and on_data[1]:
        return None
    factor, other = (left, 1) if on_data[0] else (right, 0)
    sign = 1 if equation.primitive.name == "div" else -1
    twin = scope.twin.get(scope.place[id(equation)])
    ratio = _ratio(equation.invars[other], None if twin is None else twin.invars[other])
    if ratio is not None:
        return factor, sign * ratio
    return factor, sign * _length_of_sum(scope, factor, equation.invars[other], equation)


def _by_count(scope: _Scope, equation: Any) -> tuple[Any, int] | None:
    """``_scaled`` where the other factor is the number of rows that a condition on them leaves, as
    in ``nanmean``.
    """
    left, right = equation.invars
    if _is_count(scope, right):
        return left, 1 if equation.primitive.name == "div" else -1
    if equation.primitive.name == "mul" and _is_count(scope, left):
        return right, -1
    return None


def _is_count(scope: _Scope, atom: Any) -> bool:
    """Whether a number is the sum of truth values."""
    summed = False
    while not hasattr(atom, "val"):
        if summed and atom.aval.dtype == bool:
            return True
        equation = scope.maker.get(atom)
        if equation is None:
            outside = scope.outer(atom)
            if outside is None:
                return False
            scope, atom = outside
            continue
        name = equation.primitive.name
        if name in CALL_PRIMITIVES and (inner := _inside(scope, equation)) is not None:
            scope, atom = inner[0], inner[1][equation.outvars.index(atom)]
            continue
        if name not in SHAPING and name != "reduce_sum":
            return False
        summed = summed or name == "reduce_sum"
        atom = equation.invars[0]
    return False


def _ratio(number: Any, other: Any) -> int | None:
    """1 where a number doubles with the rows, −1 where it halves, 0 where it stays; None where
    that is not known.
    """
    numbers = [_number(number), _number(other)]
    if other is None:
        return None
    if None in numbers or not numbers[0] or not numbers[1]:
        return 0
    doublings = math.log2(abs(numbers[1] / numbers[0]))
    return int(doublings) if abs(doublings) == 1.0 else 0


def _number(atom: Any) -> float | None:
    value = getattr(atom, "val", None)
    return float(value) if value is not None and np.shape(value) == () else None


def _length_of_sum(scope: _Scope, factor: Any, number: Any, equation: Any) -> int:
    """1 where a sum over closed-over data is divided by the number of its terms."""
    value = _number(number)
    made = scope.maker.get(factor)
    if (
        equation.primitive.name != "div"
        or value is None
        or value < MIN_TERMS_OF_A_MEAN
        or made is None
    ):
        return 0
    if made.primitive.name != "reduce_sum":
        return 0
    size = math.prod(made.invars[0].aval.shape) / max(math.prod(made.outvars[0].aval.shape), 1)
    return int(size == value)
