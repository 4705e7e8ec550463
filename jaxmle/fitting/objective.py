"""The likelihood as a function of the free coordinates z, with derivatives by the chain rule
through the constraints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._namespace import namespace
from jaxmle._types import Array, Loglik, Tree
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.derivatives import Differentiation
from jaxmle.likelihood.evaluate import Accumulated, Slopes, slopes, sums
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.terms import expected_information, term_rows
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.solvers.bfgs import Slope
from jaxmle.solvers.leading_axes import identity
from jaxmle.solvers.state import Point


class UserScale(NamedTuple):
    """A point on the scale of the printed entries."""

    x: Array  # (p,)
    jacobian: Array  # (p, k)  ∂x/∂z
    score: Array  # (p,)
    hessian: Array | None  # (p, p); None where it was not evaluated
    hessian_by: Differentiation | None = None  # None: forward over reverse


def drop_user_scale(chart: Chart, point: Point) -> Point:
    """The point without the parts that ``with_user_scale`` can recompute from the chart.

    The states of many members are read and written at every step, and should be small.
    """
    if not chart.is_entrywise:
        return point
    score = point.aux.score
    hessian = point.aux.hessian
    differentiation = point.aux.hessian_by
    return point._replace(
        aux=differentiation if chart.is_identity else (score, hessian, differentiation)
    )


def with_user_scale(chart: Chart, base: Array, point: Point) -> Point:
    """A ``drop_user_scale`` point with all of its ``UserScale``."""
    if not chart.is_entrywise:
        return point
    eye = identity(point.hessian)
    if chart.is_identity:
        eye = eye + namespace(eye).zeros_like(point.hessian)
        return point._replace(aux=UserScale(point.z, eye, point.score, point.hessian, point.aux))
    jacobian = chart.slopes(point.z)[:, None] * eye
    x = chart.to_user(point.z, base)
    return point._replace(aux=UserScale(x, jacobian, *point.aux))


def _sloped(chart: Chart, base: Array, z: Array) -> tuple[Array, Array]:
    """x (p,) and ∂x_j/∂z_j (p,), where each entry has its own transform."""
    return jax.jvp(lambda z: chart.to_user(z, base), (z,), (jnp.ones_like(z),))


@dataclass(frozen=True)
class Objective:
    """A likelihood on its data, in free coordinates. ``base`` (p,) holds the entries that do
    not move.
    """

    loglik: Loglik
    chart: Chart
    base: Array
    data: Tree
    curvature: str = "observed"
    block_rows: int | None = None

    @property
    def layout(self) -> Layout:
        return self.chart.layout

    def to_user(self, z: Array) -> Array:
        return self.chart.to_user(z, self.base)

    def value(self, z: Array) -> Array:
        """ℓ alone, for first-order methods."""
        return jnp.sum(terms_of(self.loglik, self.layout.unravel(self.to_user(z)), self.data))

    def __call__(self, z: Array) -> Point:
        """Value, score and Hessian at z (k,); the same on the user's scale in ``aux``."""
        x = self.to_user(z)
        total = sums(self.loglik, self.layout, x, self.data, block_rows=self.block_rows)
        point = point_of(self.chart, self.base, z, total)
        if self.curvature == "observed":
            return point
        user = point.aux
        information = self.information(user.x, self.curvature)
        return point._replace(curvature=user.jacobian.T @ information @ user.jacobian)

    def slopes(self, z: Array) -> Slope:
        """Value and score of a declared regression at z (k,), without the Hessian."""
        x = self.to_user(z)
        total = slopes(self.loglik, self.layout, x, self.data, self.block_rows)
        return slope_of(self.chart, self.base, z, total)

    def information(self, x: Array, kind: str) -> Array:
        """Expected information or outer product of scores at x, (p, p)."""
        loglik = uncounted(self.loglik)
        if kind == "expected":
            return expected_information(loglik, self.layout, x, self.data).information
        rows = term_rows(loglik, self.layout, x, self.data)
        return rows.scores.T @ (rows.meat[:, None] * rows.scores)

    def curvatures(self, z: Array) -> dict[str, Array]:
        """All curvatures of −ℓ that the likelihood has, for second-order optax transformations."""
        point = self(z)
        user = point.aux
        out = {"hessian": -point.hessian}
        for kind in ("expected", "opg"):
            try:
                out[kind] = user.jacobian.T @ self.information(user.x, kind) @ user.jacobian
            except ValueError:
                # a likelihood without a law of the response, or without terms: the transformation
                # says what it misses
                continue
        return out


def point_of(chart: Chart, base: Array, z: Array, total: Accumulated) -> Point:
    """The point at z (k,) of sums over the rows at x(z), by the chain rule; they stay in ``aux``.

    ∂ℓ/∂z = T's and ∂²ℓ/∂z∂z' = T'HT + Σ_j s_j ∂²x_j/∂z∂z', T = ∂x/∂z. Where each entry has its own
    transform, T is diagonal, and so is its second derivative.
    """
    if chart.is_entrywise and not chart.is_identity:
        (x, slope), (_, second) = jax.jvp(
            lambda z: _sloped(chart, base, z), (z,), (jnp.ones_like(z),)
        )
        score = total.score * slope
        straight = slope[:, None] * total.hessian * slope[None, :]
        hessian = _curved(straight, jnp.diag(total.score * second))
        jacobian = jnp.diag(slope)
    else:
        x = chart.to_user(z, base)
        jacobian = jax.jacfwd(lambda z: chart.to_user(z, base))(z)
        score, hessian = _pulled_back(chart, base, z, total, jacobian)
    user = UserScale(x, jacobian, total.score, total.hessian, total.hessian_by)
    return Point(z, total.value, total.absolute, score, hessian, None, user)


def slope_of(chart: Chart, base: Array, z: Array, total: Slopes) -> Slope:
    """Value and score at z (k,) of sums over the rows at x(z), by the chain rule."""
    x = chart.to_user(z, base)
    jacobian = jax.jacfwd(lambda z: chart.to_user(z, base))(z)
    user = UserScale(x, jacobian, total.score, None)
    return Slope(z, total.value, total.absolute, total.score @ jacobian, user)


def _pulled_back(
    chart: Chart, base: Array, z: Array, total: Accumulated, jacobian: Array
) -> tuple[Array, Array]:
    if chart.is_identity and chart.k == chart.layout.p:
        return total.score, total.hessian
    hessian = jacobian.T @ total.hessian @ jacobian
    if not chart.is_identity:
        transform_curvature = jax.hessian(lambda z: total.score @ chart.to_user(z, base))(z)
        hessian = _curved(hessian, transform_curvature)
    return total.score @ jacobian, hessian


def _curved(hessian: Array, transform_curvature: Array) -> Array:
    """T'HT plus the curvature of the transform. On a likelihood that grows without bound the two
    cancel; what rounding leaves of them is set to zero.
    """
    left = 8 * jnp.finfo(hessian.dtype).eps * (jnp.abs(hessian) + jnp.abs(transform_curvature))
    return jnp.where(
        jnp.abs(hessian + transform_curvature) <= left, 0.0, hessian + transform_curvature
    )
