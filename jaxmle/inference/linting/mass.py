"""The integral of a density over its support: a series, a sum over values, or an integral over the
line; for several rows at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxmle._types import Array, Function, Tree, ndarray
from jaxmle.parameters.constraints import Interval

Density = Callable[[ndarray], ndarray]  # values of the response (rows,) → log densities (rows,)
MAX_RELATIVE_ERROR_OF_MASS = 1e-6  # of an integral, up to which it is used


def log_mass(density: Density, support: object, observed: ndarray) -> tuple[ndarray, bool]:
    """log Σ or log ∫ of the density of each row over the support, and whether it converged. NaN
    counts as outside the support.
    """

    def inside(v: Tree) -> ndarray:
        return np.where(np.isnan(log_density := density(v)), -np.inf, log_density)

    if isinstance(support, str):
        return _log_series(inside, observed)
    if isinstance(support, Interval):
        return _log_integral(inside, support, observed)
    values = [np.broadcast_to(value, observed.shape) for value in np.asarray(support, dtype=float)]
    return np.logaddexp.reduce(np.array([inside(value) for value in values])), True


def _log_series(density: Density, observed: ndarray, limit: int = 20_000) -> tuple[ndarray, bool]:
    """Σ over 0, 1, 2, …, until a geometric tail of the last ratio is below 1e-11 of the sum."""
    total = last = np.full(len(observed), -np.inf)
    for v in range(limit if observed.max() < limit else 0):
        term = density(np.full(len(observed), float(v)))
        total = np.logaddexp(total, term)
        ratio = np.exp(np.minimum(term - last, 0.0))
        tail = np.where(np.isneginf(term), -np.inf, term - np.log1p(-ratio))
        if v > observed.max() and np.all((tail < total - 25) & ~np.isneginf(total)):
            return total, True
        if np.any(total > 50):
            break
        last = term
    return total, False


MASS_REACH = 40.0  # of the variable w of integration: e⁴⁰ = 2e17


def _log_integral(density: Density, support: Interval, observed: ndarray) -> tuple[ndarray, bool]:
    """∫ over an interval as an integral over the line, y = T(w): poles at an end vanish and tails
    fall exponentially.

    Each row is centred at the mode m of its integrand and scaled by its width there, so that one
    adaptive quadrature serves all rows.
    """
    from scipy.integrate import quad_vec

    change, log_slope = change_of_variable(support, observed)

    def integrand(w: ndarray) -> ndarray:
        y = change(w)
        inside = (
            (np.abs(w) <= MASS_REACH) & (y > support.lower) & (y < support.upper) & np.isfinite(y)
        )
        return np.where(inside, density(np.where(inside, y, observed)) + log_slope(w), -np.inf)

    k = len(observed)
    grid = np.linspace(-MASS_REACH, MASS_REACH, 161)
    # where rounding has not reached an end
    grid = grid[(change(grid) > support.lower) & (change(grid) < support.upper)]
    coarse = np.stack([integrand(np.full(k, w)) for w in grid])
    if np.any(coarse == np.inf) or not np.all(np.isfinite(coarse).any(axis=0)):
        return np.full(k, np.nan), False
    mode = _mode(integrand, grid[np.argmax(coarse, axis=0)], grid[1] - grid[0])
    peak = integrand(mode)
    width = _width(integrand, mode, peak)
    # The part beyond the grid may matter.
    if np.any(np.maximum(coarse[0], coarse[-1]) > peak + np.log(width) - 16):
        return np.full(k, np.nan), False

    def scaled(v: Tree) -> Tree:
        return np.exp(np.minimum(integrand(mode + width * v) - peak, 700.0))

    value, error = quad_vec(
        scaled,
        -np.inf,
        np.inf,
        epsabs=1e-9,
        epsrel=1e-9,
        norm="max",
        limit=600,
        points=(-16.0, -4.0, -1.0, 0.0, 1.0, 4.0, 16.0),
    )
    return peak + np.log(value * width), bool(np.all(error < MAX_RELATIVE_ERROR_OF_MASS * value))


def _mode(integrand: Callable[[ndarray], ndarray], mode: ndarray, spacing: float) -> ndarray:
    """The mode of each integrand, from the best point of a grid: grids of nine points around the
    best one, each a quarter as wide as the one before.
    """
    half = np.full(len(mode), spacing)
    for _ in range(8):
        tried = mode + np.linspace(-1, 1, 9)[:, None] * half
        best = np.argmax([integrand(w) for w in tried], axis=0)
        mode = tried[best, np.arange(len(mode))]
        half = half / 4
    return mode


def _width(integrand: Callable[[ndarray], ndarray], mode: ndarray, peak: ndarray) -> ndarray:
    """The distance from its mode at which each integrand has fallen by e^½, to within a factor of
    two.
    """
    width = np.full(len(mode), 1e-6)
    for _ in range(24):
        wide = np.maximum(integrand(mode + width), integrand(mode - width)) < peak - 0.5
        width = np.where(wide, width, np.minimum(2 * width, 8.0))
    return width


def change_of_variable(support: Interval, observed: ndarray) -> tuple[Function, Function]:
    """y = T(w) and log T'(w): sinh around the observed responses on the line, otherwise the
    transform of the constraint.
    """
    if support.is_identity:
        middle = float(np.median(observed))
        spread = float(np.std(observed)) or max(1.0, abs(middle))
        return (
            lambda w: middle + spread * np.sinh(w),
            lambda w: np.log(spread) + np.logaddexp(w, -w) - np.log(2.0),
        )

    def change(w: Array) -> Array:
        return support.to_user(w, np.shape(w))

    if np.isinf(support.upper) or np.isinf(support.lower):
        return change, (lambda w: w) if np.isinf(support.upper) else (lambda w: -w)
    width = support.upper - support.lower
    return change, lambda w: np.log(width) - np.logaddexp(0.0, w) - np.logaddexp(0.0, -w)
