"""The directions in which a likelihood can rise for ever, bounded by the gradients of its terms.

A concave term ℓ_i does not fall along d, however far, if and only if s_i(θ)'d ≥ 0 at every θ: its
score never points away from d. So the scores of concave terms at many points bound the cone of
recession from outside. If terms are functions of few linear predictors, the bound is exact: far
out, the gradient in the predictors takes only a few limiting values (y − p is 1, 0 or −1), whatever
the parameters.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.designs import row_gradients
from jaxmle.likelihood.evaluate import embedding
from jaxmle.likelihood.regression import Column, Regression
from jaxmle.likelihood.terms import row_scores, term_rows
from jaxmle.parameters.constraints import Ordered
from jaxmle.parameters.tree import Layout

FAR_PREDICTOR = 40.0  # in units of a predictor: 1 + e⁻⁴⁰ is one, and e⁴⁰ is finite in float32
# In addition to the axes: enough for five cut points around a mean.
RANDOM_POINTS = 24
# points at which the curvature of a declared density is checked, in units of a predictor
CURVATURE_REACH = (0.5, 3.0, 10.0, FAR_PREDICTOR)
CURVATURE_POINTS = 32
# In units of the rows' own scale, for terms known only as functions.
OPAQUE_REACH = (1.0, 10.0, 100.0)
# a gradient in the predictors within this distance of integers, scaled so that its largest entry is
# one, is taken to be at its limit
MAX_DISTANCE_FROM_A_LIMIT = 1e-6
CONCAVITY_TOLERANCE = 1e-6  # relative curvature that still counts as concave


class RecessionTypes(NamedTuple):
    """Gradients of the terms at many points, (q, n, p), on the user's scale."""

    gradients: Array
    pure: Array  # (q, n) gradients that are exact: integers times the design
    has_weight: Array  # (n,)  terms of positive weight
    # () no term of a declared density curves upwards at the checked points; not known here for a
    # function
    concave: Array


def straight(layout: Layout) -> ndarray:
    """The printed entries on whose own scale a likelihood may be concave: unconstrained ones
    and ordered ones, (p,).
    """
    flags = [
        leaf.constraint.is_identity or isinstance(leaf.constraint, Ordered)
        for leaf in layout.leaves
        for _ in leaf.entries
    ]
    return np.array(flags, dtype=bool)


def is_exact(loglik: Loglik) -> bool:
    """Whether every part is a regression with only linear predictors, so that the gradients give
    the cone exactly.
    """
    match loglik:
        case Weight() | WithResponse() | Fix() | Tie():
            return is_exact(loglik.loglik)
        case Pool():
            return all(is_exact(member) for member in loglik.members)
        case Regression():
            return not any(callable(form) and not isinstance(form, str) for form in loglik.forms)
    return False


def ways(loglik: Loglik, layout: Layout, x: Array, data: Tree) -> RecessionTypes:
    """The gradients of every term at many points around x (p,)."""
    match loglik:
        case Weight():
            inner = ways(loglik.loglik, layout, x, data)
            return inner._replace(
                has_weight=inner.has_weight & (jnp.asarray(loglik.weights.values) > 0)
            )
        case WithResponse() | Penalize():
            return ways(loglik.loglik, layout, x, data)
        case Pool():
            parts = [
                ways(member, layout, x, part)
                for member, part in zip(loglik.members, data, strict=True)
            ]
            few = min(part.gradients.shape[0] for part in parts)
            joined, pure = (
                jnp.concatenate([part[i][:few] for part in parts], axis=1) for i in (0, 1)
            )
            return RecessionTypes(
                joined,
                pure,
                jnp.concatenate([part.has_weight for part in parts]),
                jnp.all(jnp.stack([part.concave for part in parts])),
            )
        case Fix() | Tie():
            inner = ways(loglik.loglik, layout, loglik.substitute(layout, x), data)
            return inner._replace(
                gradients=inner.gradients @ embedding(loglik.roots(layout), x.dtype)
            )
    if is_exact(loglik):
        return _declared(cast(Regression, loglik), layout, x, data)
    return _opaque(loglik, layout, x, data)


def _declared(loglik: Regression, layout: Layout, x: Array, data: Tree) -> RecessionTypes:
    """The gradient in the predictors on a grid of their values, times the design."""
    values, columns, _ = loglik.predictors(layout, x, data)
    params = layout.unravel(x)
    free = straight(layout)
    moves = np.array([free[column.where].all() for column in columns])
    groups = [group for group in _ordered(layout, columns) if len(group) > 1]

    def derivatives_at(offset: Array) -> tuple[jax.Array, jax.Array]:
        """The slopes (m, n), and whether no finite term curves upwards."""
        eta = jnp.where(moves[:, None], offset[:, None], values)
        _, entries, columns_of = loglik.derivatives(params, eta, data)
        slope = jnp.stack(entries)
        curvature = jnp.stack([jnp.stack(column) for column in columns_of])
        curve = jnp.where(moves[:, None, None] & moves[None, :, None], curvature, 0.0)
        top = jnp.linalg.eigvalsh(jnp.moveaxis(jnp.where(jnp.isfinite(curve), curve, 0.0), 2, 0))
        bad = top[:, -1] > CONCAVITY_TOLERANCE * jnp.maximum(jnp.max(jnp.abs(top), axis=1), 1.0)
        return slope, ~jnp.any(bad & jnp.all(jnp.isfinite(slope), axis=0))

    def gradients_at(offset: Array) -> tuple[Array, Array, Array]:
        slope, concave = derivatives_at(offset)
        slope, pure = _limits(slope, moves)
        return row_gradients(columns, slope, layout.p), pure, concave

    far = jnp.asarray(np.where(moves, _grid(len(columns), groups), 0.0), values.dtype)
    near = jnp.asarray(np.where(moves, _near(len(columns), groups), 0.0), values.dtype)
    gradients, pure, concave_far = jax.lax.map(gradients_at, far)
    concave_near = jax.lax.map(lambda offset: derivatives_at(offset)[1], near)
    concave = jnp.all(concave_far) & jnp.all(concave_near)
    return RecessionTypes(gradients, pure, jnp.ones(gradients.shape[1], bool), concave)


def _limits(slope: jax.Array, moves: Array) -> tuple[jax.Array, jax.Array]:
    """Slopes (m, n), with those that are integer multiples of one entry up to the effect of finite
    distance made exact; and which these are, (n,).
    """
    top = jnp.max(jnp.where(moves[:, None], jnp.abs(slope), 0.0), axis=0)
    ratio = jnp.where(moves[:, None], slope, 0.0) / jnp.where(top > 0, top, 1.0)[None, :]
    whole = jnp.round(ratio)
    pure = jnp.all(jnp.abs(ratio - whole) <= MAX_DISTANCE_FROM_A_LIMIT, axis=0) & (top > 0)
    return jnp.where(pure[None, :], whole * jnp.minimum(top, 1.0)[None, :], slope), pure


def _grid(m: int, ordered: list[list[int]]) -> ndarray:
    """Points (q, m) of the predictors: the centre, points far out along each axis in both
    directions, and random points; ordered predictors stay ordered.
    """
    axes = np.concatenate([np.zeros((1, m)), FAR_PREDICTOR * np.eye(m), -FAR_PREDICTOR * np.eye(m)])
    random = FAR_PREDICTOR * np.random.default_rng(0).standard_normal(
        (RANDOM_POINTS if m > 1 else 0, m)
    )
    return _in_order(np.concatenate([axes, random]), ordered)


def _near(m: int, ordered: list[list[int]]) -> ndarray:
    """Points (q, m) of the predictors at all distances: curvature may vanish far out."""
    random = np.random.default_rng(1).standard_normal((CURVATURE_POINTS, m))
    return _in_order(random * np.resize(CURVATURE_REACH, CURVATURE_POINTS)[:, None], ordered)


def _in_order(points: ndarray, ordered: list[list[int]]) -> ndarray:
    """Points (q, m) with ordered predictors in order."""
    for group in ordered:
        points[:, group] = np.sort(points[:, group], axis=1) + 1e-3 * np.arange(len(group))
    return points


def _ordered(layout: Layout, columns: tuple[Column, ...]) -> list[list[int]]:
    """The predictors that are entries of one ordered leaf."""
    leaf_at = [
        leaf if isinstance(leaf.constraint, Ordered) else None
        for leaf in layout.leaves
        for _ in leaf.entries
    ]
    groups: dict[int, list[int]] = {}
    for k, column in enumerate(columns):
        if column.design is None and leaf_at[column.where[0]] is not None:
            groups.setdefault(id(leaf_at[column.where[0]]), []).append(k)
    return list(groups.values())


def _opaque(loglik: Loglik, layout: Layout, x: Array, data: Tree) -> RecessionTypes:
    """The scores of all terms at points around x, with each entry changed in units in which a row's
    score is one.
    """
    free = straight(layout)
    first = row_scores(loglik, layout, x, data)
    unit = jnp.where(
        free,
        1.0
        / jnp.maximum(
            jnp.sqrt(jnp.mean(jnp.where(jnp.isfinite(first), first, 0.0) ** 2, axis=0)),
            jnp.finfo(x.dtype).tiny ** 0.5,
        ),
        0.0,
    )
    random = np.random.default_rng(0).standard_normal((RANDOM_POINTS, layout.p))
    random = random * np.resize(OPAQUE_REACH, RANDOM_POINTS)[:, None]

    def scores_at(step: Array) -> Array:
        return row_scores(loglik, layout, _sorted(layout, jnp.add(x, step * unit)), data)

    gradients = jax.lax.map(
        scores_at,
        jnp.concatenate([jnp.zeros((1, layout.p), x.dtype), jnp.asarray(random, x.dtype)]),
    )
    return RecessionTypes(
        gradients,
        jnp.zeros(gradients.shape[:2], bool),
        jnp.ones(first.shape[0], bool),
        jnp.zeros((), bool),
    )


def scores_at(loglik: Loglik, layout: Layout, points: Array, data: Tree) -> Array:
    """The score of each term at each of several points (q, p), (q, n, p)."""
    return jax.lax.map(lambda x: term_rows(loglik, layout, _sorted(layout, x), data).scores, points)


def _sorted(layout: Layout, x: jax.Array) -> jax.Array:
    """x (p,) with the entries of ordered leaves in order."""
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if isinstance(leaf.constraint, Ordered):
            x = x.at[span].set(jnp.sort(x[span]))
    return x
