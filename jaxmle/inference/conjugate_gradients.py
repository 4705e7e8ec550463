"""Standard errors of a few among many parameters: columns of the inverse information by conjugate
gradients, from products of the Hessian with vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Loglik, Tree
from jaxmle.fitting.objective import Objective
from jaxmle.inference.again import again
from jaxmle.inference.delta import Delta
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.structure import chart_of
from jaxmle.parameters.arguments import check_count, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import tracing
from jaxmle.tables.notes import BY_CONJUGATE_GRADIENTS

# relative to the right-hand side, when a column of the inverse is solved for: the relative error of
# the variance, a quadratic form, is the square of this times the condition number of the
# information
RELATIVE_RESIDUAL = 1e-8
# curvature along a search direction relative to the largest one seen, below which the information
# has a null direction
MIN_RELATIVE_CURVATURE = 1e-12
MAX_PRODUCTS = 2000


class _Solve(NamedTuple):
    """The state of conjugate gradients for m right-hand sides, (m, k)."""

    solution: Array
    residual: Array
    direction: Array
    square: Array  # (m,) of the residual
    curvature: Array  # (m,) the largest d'Jd/d'd seen
    singular: Array  # (m,) whether ℓ does not curve downwards along some direction
    products: Array  # ()


@with_keyword_hints
def stderr_by_cg(
    loglik: Loglik,
    fit: Fit,
    data: Tree,
    terms: str | Sequence[str],
    *,
    weights: Weights | None = None,
    max_products: int = MAX_PRODUCTS,
) -> Delta:
    """Standard errors of the named parameters from the observed information J, without forming J.

    Column j of J⁻¹ solves J v = e_j. Conjugate gradients find it from products of J with vectors,
    each about three times the work of a score. They also detect that there is no covariance: J is
    not positive definite along a direction that they encounter, as in a network whose units can be
    rescaled. Such a parameter has no standard error, and ``reason`` says so.

    Args:
        loglik, data, weights: as passed to ``fit``.
        fit: the fit, such as a STATIONARY one, which has no covariance.
        terms: names of parameters, as in ``fit.names``; the name of a leaf means all its entries.
        max_products: the largest number of products for a column.

    Returns:
        A ``Delta``: ``estimate`` and ``stderr`` (m,), ``vcov`` (m, m), in the order of ``terms``.

    Raises:
        ValueError: for names that the fit does not have, or data that are not those of the fit.

    Source: Hestenes & Stiefel (1952), Journal of Research of the National Bureau of Standards 49,
    409–436; Pearlmutter (1994), Neural Computation 6, 147–160, for the products.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.conjugate_gradients import stderr_by_cg
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, y: -0.5 * (y - params["mean"]) ** 2
    >>> result = jm.fit(normal, {"mean": 0.0}, y, vcov=None)
    >>> float(stderr_by_cg(normal, result, y, "mean").stderr[0])  # 1/√n
    0.5
    """
    if tracing():
        raise TypeError("stderr_by_cg needs the values of the fit: call it outside jit and vmap")
    given = again(loglik, fit, data, weights=weights, alone=True, what="stderr_by_cg")
    places = _places(fit.layout, terms)
    chart = chart_of(given.weighted, fit.layout)
    quantity = partial(_columns, chart, tuple(places), check_count("max_products", max_products, 1))
    vcov = given.evaluate(("by cg", tuple(places), chart, max_products), quantity)
    vcov = 0.5 * (vcov + vcov.T)
    variance = np.diagonal(vcov)
    return Delta(
        np.asarray(fit.x)[places],
        np.sqrt(np.where(variance > 0, variance, np.nan)),
        vcov,
        np.zeros(len(places), bool),
        tuple(fit.names[j] for j in places),
        "identity",
        BY_CONJUGATE_GRADIENTS,
    )


def _places(layout: Layout, terms: Tree) -> list[int]:
    names = [terms] if isinstance(terms, str) else terms
    if not isinstance(names, list | tuple) or not names:
        raise TypeError(f"terms must be a parameter name, or a list of names; got {shown(terms)}")
    return list(dict.fromkeys(place for name in names for place in layout.find(name)))


def _columns(
    chart: Chart,
    places: tuple[int, ...],
    max_products: int,
    loglik: Loglik,
    x: Array,
    data: Tree,
    codes: Tree,
) -> Array:
    """The covariance (m, m) of the entries at ``places``: T J⁻¹ T' there, T = ∂x/∂z."""
    objective = Objective(loglik, chart, x, data)
    z = chart.to_free(x)
    score = jax.grad(objective.value)
    _, pull = jax.vjp(lambda z: objective.to_user(z)[np.array(places)], z)
    rows = jax.vmap(lambda unit: pull(unit)[0])(jnp.eye(len(places), dtype=x.dtype))

    def information(vectors: Array) -> Array:
        return -jax.vmap(lambda v: jax.jvp(score, (z,), (v,))[1])(vectors)

    return _solved(information, rows, max_products) @ rows.T


def _solved(information: Tree, rows: Array, max_products: int) -> Array:
    """J⁻¹ of each row (m, k); NaN if J is not positive definite or the steps are not enough."""
    target = RELATIVE_RESIDUAL**2 * jnp.sum(rows**2, axis=1)

    def is_open(current: _Solve) -> Array:
        return (current.square > target) & ~current.singular

    def step(current: _Solve) -> _Solve:
        image = information(current.direction)
        quadratic_form = jnp.sum(current.direction * image, axis=1)
        length = jnp.sum(current.direction**2, axis=1)
        curvature = jnp.maximum(
            current.curvature, quadratic_form / jnp.where(length > 0, length, 1.0)
        )
        active = is_open(current)
        singular = current.singular | (
            active & ~(quadratic_form > MIN_RELATIVE_CURVATURE * curvature * length)
        )
        advances = active & ~singular
        step_length = jnp.where(
            advances, current.square / jnp.where(advances, quadratic_form, 1.0), 0.0
        )
        residual = current.residual - step_length[:, None] * image
        square = jnp.where(advances, jnp.sum(residual**2, axis=1), current.square)
        beta = jnp.where(advances, square / jnp.where(advances, current.square, 1.0), 0.0)
        return _Solve(
            current.solution + step_length[:, None] * current.direction,
            jnp.where(advances[:, None], residual, current.residual),
            jnp.where(
                advances[:, None], residual + beta[:, None] * current.direction, current.direction
            ),
            square,
            curvature,
            singular,
            current.products + 1,
        )

    square = jnp.sum(rows**2, axis=1)
    nothing = jnp.zeros_like(square)
    start = _Solve(
        jnp.zeros_like(rows), rows, rows, square, nothing, nothing > 0, jnp.zeros((), jnp.int32)
    )
    end = jax.lax.while_loop(
        lambda current: jnp.any(is_open(current)) & (current.products < max_products), step, start
    )
    solved = (end.square <= target) & ~end.singular
    return jnp.where(solved[:, None], end.solution, jnp.nan)
