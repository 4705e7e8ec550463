"""A null hypothesis as r(θ) = 0, with its Jacobian: from names, a matrix or a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxmle._namespace import namespace
from jaxmle._types import Array, ArrayLike, Tree, ndarray
from jaxmle.inference.delta import real_value
from jaxmle.inference.hypotheses.equations import equations_of
from jaxmle.parameters.arguments import check_function, shown
from jaxmle.parameters.constraints import Simplex
from jaxmle.parameters.tree import Layout
from jaxmle.record.explain import combination
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point
from jaxmle.runtime.compile import portable_copy, precision, tracing

Restriction = str | Sequence[Tree] | Mapping[str, Tree] | ndarray | Callable[[Tree], Tree]
SUM_TOLERANCE = 1e-9  # of the sum of a simplex under H0, which should be one
RANK_TOLERANCE = 1e-10  # of rows of length one


class Gap(NamedTuple):
    """How far the estimate is from H0: r(θ̂) (..., q), its Jacobian ∂r/∂x (..., q, p), and H0
    in words.
    """

    value: Array
    jacobian: Array
    hypothesis: str


def gap_of(fit: Fit, restriction: Restriction, value: ArrayLike | Mapping[str, ArrayLike]) -> Gap:
    """How far the estimates are from a hypothesis, (q,), with the derivative of that gap, (q, p).

    Args:
        restriction: names, equations, names with their values, a matrix (q, p), or a function of
            the parameters.
        value: the value of the restriction under the hypothesis, a number or (q,); not with a
            mapping.
    """
    if isinstance(restriction, str):
        restriction = [restriction]
    if isinstance(restriction, Mapping):
        if not isinstance(value, float) or value != 0.0:
            raise ValueError("a dictionary already contains the values: leave value out")
        return _of_names(fit, *_listed(fit.layout, list(restriction), list(restriction.values())))
    if callable(restriction):
        return _of_function(fit, restriction, value)
    if (
        isinstance(restriction, list | tuple)
        and restriction
        and all(isinstance(name, str) for name in restriction)
    ):
        if any(sign in text for text in restriction for sign in "=<>"):
            return _of_equations(fit, list(restriction), value)
        return _of_names(fit, *_positions(fit.layout, list(restriction), value))
    return _of_matrix(fit, restriction, value)


def _of_equations(fit: Fit, texts: list[str], value: ArrayLike | Mapping[str, ArrayLike]) -> Gap:
    """The hypothesis that linear equations hold."""
    if not isinstance(value, float) or value != 0.0:
        raise ValueError("an equation already contains its value: leave value out")
    equations = equations_of(fit.layout, texts)
    for row, target in zip(equations.rows, equations.targets, strict=True):
        (where,) = np.nonzero(row)
        if len(where) == 1:
            _check_inside(fit, {int(where[0]): float(target / row[where[0]]) + 0.0})
    return _of_matrix(fit, equations.rows, equations.targets)._replace(hypothesis=equations.text)


def _listed(layout: Layout, names: list[str], values: list[Tree]) -> tuple[list[int], ndarray]:
    """Positions and targets of names that each have a value."""
    if not names:
        raise ValueError("the restriction names no parameter")
    where = [layout.find(_plain(name)) for name in names]
    targets = []
    for name, entries, value in zip(names, where, values, strict=True):
        target = _numbers(f"the value of {name!r}", value)
        if target.size not in (1, len(entries)):
            raise ValueError(
                f"the restriction gives {name!r} {target.size} values; it has "
                f"{len(entries)} entries"
            )
        targets.append(np.broadcast_to(target, (len(entries),)))
    return _distinct(layout, [j for entries in where for j in entries]), np.concatenate(targets)


def _positions(
    layout: Layout, names: list[str], value: ArrayLike | Mapping[str, ArrayLike]
) -> tuple[list[int], ndarray]:
    """Positions of names and their targets, from one value for all of them."""
    where = _distinct(layout, [j for name in names for j in layout.find(_plain(name))])
    return where, _targets(value, len(where))


def _plain(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(
            f"a restriction names parameters by strings such as 'beta[1]'; got {name!r}"
        )
    if "=" in name:
        raise ValueError(
            f"{name!r} is an equation: give it alone or in a list, 'beta[1] = 0'; a "
            "dictionary maps names to values, {'beta[1]': 0.0}"
        )
    return name


def _distinct(layout: Layout, where: list[int]) -> list[int]:
    for j in where:
        if where.count(j) > 1:
            raise ValueError(f"the restriction names {layout.names[j]!r} more than once")
    return where


def _targets(value: ArrayLike | Mapping[str, ArrayLike], q: int) -> ndarray:
    target = _numbers("value", value)
    if target.size not in (1, q) or not np.all(np.isfinite(target)):
        raise ValueError(f"value must be finite, one number or {q} of them; got {shown(value)}")
    return np.broadcast_to(target, (q,))


def _numbers(name: str, value: ArrayLike | Mapping[str, ArrayLike]) -> ndarray:
    """A flat array of real numbers."""
    array = value if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers; got {shown(value)}")
    return np.ravel(array.astype(float))


def _of_names(fit: Fit, where: list[int], target: ndarray) -> Gap:
    """The hypothesis that entries have given values; whole simplexes as log ratios to their last
    entry.
    """
    xp = namespace(fit.loglik)
    x = finite_point(fit)
    goal = dict(zip(where, target.tolist(), strict=True))
    _check_inside(fit, goal)
    whole = [row for row in _simplexes(fit.layout) if all(j in goal for j in row)]
    _check_sums(fit, whole, goal)
    in_simplex = {j for row in whole for j in row}
    values = []
    rows = []

    def unit(j: int) -> Array:
        return xp.broadcast_to(xp.asarray(np.eye(len(fit.names))[j], dtype=x.dtype), x.shape)

    for j in (j for j in where if j not in in_simplex):
        values.append(x[..., j] - goal[j])
        rows.append(unit(j))
    for *others, last in whole:
        for j in others:
            values.append(xp.log(x[..., j] / x[..., last]) - math.log(goal[j] / goal[last]))
            rows.append(unit(j) / x[..., j, None] - unit(last) / x[..., last, None])
    return Gap(
        xp.stack(values, axis=-1),
        xp.stack(rows, axis=-2).astype(x.dtype),
        _hypothesis(fit.names, where, target),
    )


def _check_inside(fit: Fit, goal: dict[int, float]) -> None:
    for j, value in goal.items():
        low, high = fit.bounds[j]
        if not (np.isfinite(value) and low < value < high):
            raise ValueError(
                f"H0 puts {fit.names[j]} at {value:g}, which is not strictly between "
                f"{low:g} and {high:g}: a Wald test is not valid on a bound. Compare two "
                "fits with lr_test(restricted, full, on_bound=…)."
            )


def _check_sums(fit: Fit, simplexes: list[list[int]], goal: dict[int, float]) -> None:
    for row in simplexes:
        total = sum(goal[j] for j in row)
        if abs(total - 1) > SUM_TOLERANCE:
            raise ValueError(
                f"{fit.names[row[0]]} … {fit.names[row[-1]]} must sum to one; the values "
                f"in H0 sum to {total:g}"
            )


def _hypothesis(names: tuple[str, ...], where: list[int], target: ndarray) -> str:
    """The null hypothesis in words, of its first six entries."""
    shown_names = [names[j] for j in where[:6]]
    if len(set(target.tolist())) == 1:
        more = " = …" if len(where) > 6 else ""
        return f"{' = '.join(shown_names)}{more} = {target[0]:g}"
    each = [f"{name} = {value:g}" for name, value in zip(shown_names, target, strict=False)]
    return ", ".join(each) + (", …" if len(where) > 6 else "")


def _simplexes(layout: Layout) -> Iterator[list[int]]:
    """The positions of each set of probabilities that sum to one."""
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if isinstance(leaf.constraint, Simplex):
            yield from np.arange(span.start, span.stop).reshape(-1, leaf.shape[-1]).tolist()


def _of_matrix(fit: Fit, matrix: Tree, value: ArrayLike | Mapping[str, ArrayLike]) -> Gap:
    p = len(fit.names)
    xp = namespace(fit.loglik)
    x = finite_point(fit)
    try:
        if isinstance(matrix, str | bytes | np.ma.MaskedArray | type(None)):
            raise TypeError
        r = np.atleast_2d(np.asarray(matrix, dtype=float))
    except (TypeError, ValueError):
        raise TypeError(
            f"restriction must be names, a dictionary, a matrix (q, {p}) or a function of the "
            f"parameters; got {type(matrix).__name__}"
        ) from None
    if r.ndim != 2 or r.shape[1] != p or not r.size or not np.all(np.isfinite(r)):
        raise ValueError(
            f"the restriction must be a finite matrix (q, {p}), with one column for each "
            f"of {', '.join(fit.names[:8])}; got shape {np.shape(matrix)}"
        )
    _refuse_repeats(r)
    target = _targets(value, len(r))
    used = np.broadcast_to(np.any(r != 0, axis=0), x.shape)  # an entry that no row uses may be NaN
    estimate = xp.where(used, x, 0.0) @ r.T.astype(x.dtype)
    gap = estimate - np.broadcast_to(target, estimate.shape)
    hypothesis = ", ".join(
        f"{combination(fit.names, row)} = "
        f"{goal / np.abs(row).max() * np.sign(row[np.argmax(np.abs(row))]):g}"
        for row, goal in zip(r[:4], target, strict=False)
    )
    return Gap(
        gap.astype(x.dtype),
        xp.broadcast_to(xp.asarray(r, dtype=x.dtype), (*x.shape[:-1], *r.shape)),
        hypothesis + (", …" if len(r) > 4 else ""),
    )


def _refuse_repeats(r: ndarray) -> None:
    """Raise for a matrix with a row that is a linear combination of the rows above it."""
    scaled = r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), np.finfo(float).tiny)
    for i in range(len(r)):
        if np.linalg.matrix_rank(scaled[: i + 1], tol=RANK_TOLERANCE) <= i:
            what = "is zero" if not np.any(r[i]) else "is a linear combination of the rows above it"
            raise ValueError(f"row {i} of the restriction {what}: leave it out")


def _of_function(
    fit: Fit, g: Callable[[Tree], Tree], value: ArrayLike | Mapping[str, ArrayLike]
) -> Gap:
    """r and its Jacobian at every estimate, by forward differentiation."""

    check_function("restriction", g, "lambda params: params['a'] - params['b']")

    def value_and_jacobian(x: Array) -> tuple[Array, Array]:
        r = portable_copy(g)

        def flat(x: Array) -> Array:
            return ravel_pytree(real_value("restriction", r(fit.layout.unravel(x))))[0]

        return flat(x), jax.jacfwd(flat)(x)

    for _ in fit.batch_shape:
        value_and_jacobian = jax.vmap(value_and_jacobian)
    if tracing():
        values, jacobian = value_and_jacobian(finite_point(fit))
    else:
        with precision(fit.dtype):
            values, jacobian = (
                np.asarray(leaf) for leaf in value_and_jacobian(jnp.asarray(finite_point(fit)))
            )
    q = values.shape[-1]
    if not q:
        raise ValueError("the restriction returns no numbers")
    name = getattr(g, "__name__", "g").replace("<lambda>", "g")
    targets = _targets(value, q)
    goal = (
        f"{targets[0]:g}"
        if len(set(targets.tolist())) == 1
        else ", ".join(f"{v:g}" for v in targets[:6])
    )
    return Gap(
        values - np.broadcast_to(targets.astype(values.dtype), values.shape),
        jacobian,
        f"{name}(params) = {goal}",
    )
