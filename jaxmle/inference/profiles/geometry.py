"""The profile likelihood near a point, to second order: nuisance step, tangent, slope and
curvature.

All searches of a profile are computed together, one row each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._types import Tree, ndarray

MIN_UNIT = 1e-150  # of a coordinate: the square of a smaller one underflows
# of a scaled score along a direction of negative curvature, up to which it counts as zero
MAX_SCORE_AT_SADDLE = 1e-8
PUSH_OFF_SADDLE = 1e-4  # the score used instead


class ProfilePoint(NamedTuple):
    """The likelihood and ψ at one point of each search."""

    value: ndarray  # (m,)
    noise: ndarray  # (m,)  ν = 4ε Σ|terms|
    score: ndarray  # (m, k)
    hessian: ndarray  # (m, k, k)
    psi: ndarray  # (m,)
    gradient: ndarray  # (m, k)  ∂ψ/∂z
    psi_hessian: ndarray | None  # (m, k, k)  ∂²ψ/∂z∂z'; None where ψ is linear in z


class Geometry(NamedTuple):
    """The profile near a point, to second order."""

    step: ndarray  # (m, k)  Newton's step to the maximum given ψ
    tangent: ndarray  # (m, k)  ∂z/∂ψ along the curve
    slope: ndarray  # (m,)  ∂ℓ_p/∂ψ
    curvature: ndarray  # (m,)  −∂²ℓ_p/∂ψ²
    decrement: ndarray  # (m,)  gain in ℓ predicted for the step
    sound: ndarray  # (m,)  everything is finite and the information given ψ positive definite
    scale: ndarray  # (m, k)
    finite: ndarray  # (m,)


def geometry(point: ProfilePoint) -> Geometry:
    """Nuisance step, tangent, slope and curvature, with the curvature of the Lagrangian ℓ − μ(ψ −
    ψ₀).

    In coordinates scaled by D and reflected so that ∂ψ/∂z is along the last one, one elimination of
    J gives all four: the pivots before the last belong to the nuisance, the last is the information
    of the profile.
    """
    finite = _is_finite(point)
    j, score, gradient = _lagrangian(point, finite)
    d = scale_of(j, score)
    w = gradient / d
    # Householder: Q = I − 2vv' sends w to α e_k, with the sign that does not cancel.
    alpha = -np.where(w[:, -1] >= 0, 1.0, -1.0) * np.sqrt(np.sum(w**2, axis=1))
    v = w.copy()
    v[:, -1] -= alpha
    v /= np.sqrt(np.sum(v**2, axis=1))[:, None]

    def reflected(x: ndarray) -> ndarray:
        return x - 2 * v * np.sum(v * x, axis=1)[:, None]

    b = _reflected_matrix(j / (d[:, :, None] * d[:, None, :]), v)
    g = reflected(score / d)
    step, tangent, slope, curvature, decrement, definite = _eliminated(b, g)
    if not definite.all():
        step, decrement = _ascent_direction(b, g, step, decrement, definite)
    return Geometry(
        step=reflected(step) / d,
        tangent=reflected(tangent) / d / alpha[:, None],
        slope=slope / alpha,
        curvature=curvature / alpha**2,
        decrement=decrement,
        sound=definite & finite,
        scale=d,
        finite=finite,
    )


def _is_finite(point: ProfilePoint) -> ndarray:
    """Whether all values at a point are finite, and ψ has a nonzero gradient there, (m,)."""
    finite = (
        np.isfinite(point.value)
        & np.isfinite(point.psi)
        & np.isfinite(point.score).all(1)
        & np.isfinite(_information(point)).all((1, 2))
        & np.isfinite(point.gradient).all(1)
    )
    if point.psi_hessian is not None:
        finite &= np.isfinite(point.psi_hessian).all((1, 2))
    return finite & (point.gradient != 0).any(1)


def _information(point: ProfilePoint) -> ndarray:
    return -0.5 * (point.hessian + np.swapaxes(point.hessian, 1, 2))


def _lagrangian(point: ProfilePoint, finite: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Minus the Hessian of ℓ − μψ, the score and ∂ψ/∂z; substitutes if a point is not finite."""

    def where_finite(leaf: ndarray, stand_in: Tree) -> ndarray:
        if finite.all():
            return leaf
        return np.where(finite.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, stand_in)

    j = where_finite(_information(point), np.eye(point.score.shape[1]))
    score = where_finite(point.score, 0.0)
    gradient = where_finite(point.gradient, 1.0)
    if point.psi_hessian is None:
        return j, score, gradient
    d = scale_of(j, score)
    mu = np.sum(score * gradient / d**2, axis=1) / np.sum((gradient / d) ** 2, axis=1)
    return j + mu[:, None, None] * where_finite(point.psi_hessian, 0.0), score, gradient


def _reflected_matrix(b: ndarray, v: ndarray) -> ndarray:
    """Q b Q for the reflection Q = I − 2vv'."""
    bv = np.einsum("mij,mj->mi", b, v)
    vbv = np.sum(v * bv, axis=1)
    cross = v[:, :, None] * bv[:, None, :]
    return (
        b
        - 2 * (cross + np.swapaxes(cross, 1, 2))
        + 4 * vbv[:, None, None] * (v[:, :, None] * v[:, None, :])
    )


def scale_of(j: ndarray, score: ndarray) -> ndarray:
    """Units of each coordinate, (m, k)."""
    d = np.sqrt(np.abs(np.diagonal(j, axis1=1, axis2=2)))
    d = np.where(d > MIN_UNIT, d, np.abs(score))
    return np.where(d > MIN_UNIT, d, 1.0)


def _eliminated(
    b: ndarray, g: ndarray
) -> tuple[ndarray, ndarray, ndarray, ndarray, ndarray, ndarray]:
    """Eliminate the first k − 1 unknowns from Bx = g, one row for each search."""
    b = b.copy()
    g = g.copy()
    m, k = g.shape
    definite = np.ones(m, bool)
    decrement = np.zeros(m)
    pivots = []
    for i in range(k - 1):
        pivot = b[:, i, i]
        definite &= pivot > 20 * k * np.finfo(float).eps
        pivot = np.where(definite, pivot, 1.0)
        factor = b[:, i + 1 :, i] / pivot[:, None]
        b[:, i + 1 :, i + 1 :] -= factor[:, :, None] * b[:, i, None, i + 1 :]
        g[:, i + 1 :] -= factor * g[:, i, None]
        decrement += 0.5 * g[:, i] ** 2 / pivot
        pivots.append(pivot)
    step = np.zeros((m, k))
    tangent = np.zeros((m, k))
    tangent[:, -1] = 1.0
    for i in reversed(range(k - 1)):
        row = b[:, i, i + 1 :]
        step[:, i] = (g[:, i] - np.sum(row * step[:, i + 1 :], axis=1)) / pivots[i]
        tangent[:, i] = -np.sum(row * tangent[:, i + 1 :], axis=1) / pivots[i]
    return step, tangent, g[:, -1], b[:, -1, -1], decrement, definite


def _ascent_direction(
    b: ndarray, g: ndarray, step: ndarray, decrement: ndarray, definite: ndarray
) -> tuple[ndarray, ndarray]:
    """An ascent direction if the nuisance information is not positive definite, from absolute
    eigenvalues, the small ones increased.
    """
    bad = np.flatnonzero(~definite)
    values, q = np.linalg.eigh(b[bad, :-1, :-1])
    lifted = np.maximum(
        np.abs(values), 1e-3 * np.max(np.abs(values), axis=1, initial=0.0)[:, None] + 1e-12
    )
    along = np.einsum("mij,mi->mj", q, g[bad, :-1])
    # If the score is zero along a direction of negative curvature, a small push along it is added.
    at_saddle = (values < 0) & (np.abs(along) < MAX_SCORE_AT_SADDLE)
    along = np.where(at_saddle, PUSH_OFF_SADDLE, along)
    step = step.copy()
    decrement = decrement.copy()
    step[bad, :-1], step[bad, -1] = np.einsum("mij,mj->mi", q, along / lifted), 0.0
    decrement[bad] = np.inf
    return step, decrement
