"""Newton steps and steps within a trust region, from curvature and score."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.solvers.leading_axes import (
    column,
    dot,
    norm,
    outer,
    times,
    transposed,
)
from jaxmle.solvers.linalg import eigh, factored, least_pivot, pivots, solve_lower, solve_upper
from jaxmle.solvers.rare_branches import MEMBERS_OF_A_CHEAP_SIDE, is_cheap_to_run, rarely

# A number or a matrix, or what computes it where it is needed.
Lazy = Array | Partial


def known(value: Lazy) -> Array:
    """A number; if it is given as a ``jax.tree_util.Partial``, it is computed now."""
    return value() if callable(value) else value


class NewtonStep(NamedTuple):
    """The full Newton step at a point, its decrement, and whether J is definite."""

    step: Array  # (p, ...)     J⁻¹ s, within the range of J where J is singular
    decrement: Array  # (...)   s'J⁻¹s/2
    # (...) J is positive (semi)definite and s lies in its range, to within rounding
    convex: Array
    definite: Array  # (...)    J is positive definite by a clear margin


def newton_step(
    j: Array,
    s: Array,
    scale: Array,
    cut: Lazy,
    slack: Array,
    loss: Array | float = 1.0,
    unrolled: bool = False,
) -> NewtonStep:
    """The Newton step J⁻¹s with J = D R D, by Cholesky, or by eigenvectors if a pivot is not
    positive.

    Args:
        j: curvature (p, p, ...), the observed information or a stand-in.
        s: score (p, ...).
        scale: D (p, ...).
        cut: eigenvalues of R within ±cut count as zero; a number, or a ``jax.tree_util.Partial``
            that gives it where it is needed.
        slack: the scaled score along a null direction may be this large and still count as zero.
        loss: (p, ...) the largest metric so far, divided by D. Information that has fallen by this
            ratio has lost as many digits.
        unrolled: write small factors out as scalar code; used in the loop, which runs often enough
            to be worth the compilation.
    """
    xp = namespace(j)
    r = j / outer(scale, scale)
    g = s / scale
    factor = factored(r, unrolled)
    # A pivot² at rounding says that a column lies in the span of those before it: let the
    # eigenvalues decide.
    pivot = pivots(factor)
    rounding = 100 * len(s) * xp.finfo(j.dtype).eps
    sound = xp.min(pivot / xp.maximum(loss, 1.0), axis=0) ** 2 > rounding
    # lost if information that has died has no more digits than that
    firm = xp.min(pivot, axis=0) ** 2 > rounding
    half = solve_lower(factor, g, unrolled)
    usual = solve_upper(factor, half, unrolled) / scale, 0.5 * xp.sum(half**2, axis=0)
    args = (r, g, scale, cut, slack, firm, *usual)
    return rarely(~sound, _by_eigenvectors, _by_factor, *args)


def _by_factor(
    r: Array,
    g: Array,
    scale: Array,
    cut: Lazy,
    slack: Array,
    firm: Array,
    step: Array,
    decrement: Array,
) -> NewtonStep:
    """The Newton step by the Cholesky factor."""
    yes = namespace(r).ones(decrement.shape, dtype=bool)
    return NewtonStep(step, decrement, yes, yes)


def _by_eigenvectors(
    r: Array, g: Array, scale: Array, cut: Lazy, slack: Array, firm: Array, *_: Array
) -> NewtonStep:
    """The Newton step by eigenvectors. Where the Cholesky factor is well conditioned (``firm``), R
    counts as definite even if eigenvalues are within rounding of zero: errors of its entries may be
    larger than assumed, but they are correlated.
    """
    xp = namespace(r)
    values, q = eigh(r)
    zero = xp.where(firm, 5 * len(g) * xp.finfo(r.dtype).eps, known(cut))
    along = times(transposed(q), g)
    positive = values > zero
    safe = xp.where(positive, values, 1.0)
    u = xp.where(positive, along / safe, 0.0)
    null = xp.abs(values) <= zero
    quiet = xp.where(null, xp.abs(along), 0.0) <= slack
    convex = xp.all(values >= -zero, axis=0) & xp.all(quiet, axis=0)
    # A score along a direction without curvature has no Newton step: the maximum may be anywhere
    # that way.
    endless = xp.any(~positive & (xp.abs(along) > slack), axis=0)
    decrement = xp.where(endless, xp.inf, 0.5 * dot(u, xp.where(positive, along, 0.0)))
    return NewtonStep(times(q, u) / scale, decrement, convex, xp.all(positive, axis=0))


def _repeat(times: int, body: Callable[[int, Tree], Tree], value: Tree) -> Tree:
    """Apply ``body`` repeatedly: in Python on the host, in one compiled loop under a trace."""
    if isinstance(jax.tree.leaves(value)[0], np.ndarray | np.generic):
        for i in range(times):
            value = body(i, value)
        return value
    return jax.lax.fori_loop(0, times, body, value)


# factorisations in search of the multiplier of a bounded step: of 1 600 random ones up to p = 9, 98
# % then gain within 1 % of the most
MAX_MULTIPLIER_FACTORISATIONS = 7
FULL_SHARE = 0.9  # of the radius: a bounded step as long as that is one
# multiplier from which a direction without curvature is no matter of rounding
CLEAR_MULTIPLIER = 1e-4


def bounded(r: Array, g: Array, radius: Array) -> tuple[Array, Array]:
    """The u (k,) with ‖u‖ ≤ radius that maximises g'u − u'Ru/2, for R (k, k) and g (k,), by
    Cholesky factors of R + λI; and whether it is practically optimal, (). The hard case is not
    solved.

    λ by Newton's method on 1/‖u‖ − 1/radius, between bounds (Moré & Sorensen 1983, SIAM J. Sci.
    Stat. Comput. 4, §3). In the hard case, where g is orthogonal to the direction of most negative
    curvature, u stays inside the region.
    """
    tiny = jnp.finfo(g.dtype).tiny
    eye = jnp.eye(len(g), dtype=g.dtype)
    size = jnp.sqrt(jnp.sum(g**2))
    spread = jnp.max(jnp.sum(jnp.abs(r), axis=1))
    low = jnp.maximum(jnp.maximum(size / radius - spread, -jnp.min(jnp.diagonal(r))), 0.0)
    high = size / radius + spread
    steepest = g * (radius / jnp.maximum(size, tiny))

    def probe(_: int, search: tuple[Array, ...]) -> tuple[Array, ...]:
        shift, low, high, best, sound = search
        factor = factored(r + shift * eye, unrolled=True)
        definite = least_pivot(factor) > 0
        u = solve_upper(factor, solve_lower(factor, g, unrolled=True), unrolled=True)
        length = jnp.sqrt(jnp.sum(u**2))
        inside = definite & (length <= radius)
        low = jnp.where(inside, low, shift)
        high = jnp.where(inside, shift, high)
        better = shift + (length / radius - 1) * length**2 / jnp.sum(
            solve_lower(factor, u, unrolled=True) ** 2
        )
        between = definite & (better > low) & (better < high)
        is_full = (length >= FULL_SHARE * radius) & (length <= radius / FULL_SHARE)
        sound = jnp.where(definite, is_full & (shift >= CLEAR_MULTIPLIER), sound)
        return (
            jnp.where(between, better, jnp.sqrt(jnp.maximum(low, 1e-3 * high) * high)),
            low,
            high,
            jnp.where(definite, u, best),
            sound,
        )

    *_, u, sound = jax.lax.fori_loop(
        0, MAX_MULTIPLIER_FACTORISATIONS, probe, (low, low, high, steepest, jnp.zeros((), bool))
    )
    # λ > 0 says that ℓ still rises along u: what is as good as at the bound goes there
    share = radius / jnp.maximum(jnp.sqrt(jnp.sum(u**2)), tiny)
    return u * jnp.where(sound, share, jnp.minimum(1.0, share)), sound


def within(
    needed: Array,
    usual: tuple[Array, Array],
    j: Lazy,
    s: Array,
    scale: Array,
    cut: Lazy,
    slack: Array,
    radius: Array,
    side: Array,
) -> tuple[Array, Array]:
    """``trust_step`` where ``needed``, else the ``usual`` step and its predicted gain. In a batch,
    Cholesky factors are tried first, and eigenvectors for the members for which they do not
    suffice.
    """

    def by_eigenvectors(needed: Array, usual: tuple[Array, Array]) -> tuple[Array, Array]:
        arguments = (j, s, scale, cut, slack, radius, side)
        step: tuple[Array, Array] = rarely(
            needed, lambda *a: trust_step(*a[:7]), lambda *a: a[7:], *arguments, *usual
        )
        return step

    if isinstance(needed, bool | np.bool_ | np.ndarray) or is_cheap_to_run(j):
        return by_eigenvectors(needed, usual)

    def by_factors(
        j: Lazy, s: Array, scale: Array, radius: Array, *_: Array
    ) -> tuple[Array, Array, Array]:
        r = known(j) / (scale[:, None] * scale[None, :])
        g = s / scale
        u, sound = bounded(r, g, radius)
        return u / scale, g @ u - 0.5 * u @ r @ u, sound

    step, gain, sound = rarely(
        needed,
        by_factors,
        lambda *a: (*a[4:], jnp.ones((), bool)),
        j,
        s,
        scale,
        radius,
        *usual,
        few=MEMBERS_OF_A_CHEAP_SIDE,
    )
    return by_eigenvectors(~sound, (step, gain))


def trust_step(
    j: Lazy,
    s: Array,
    scale: Array,
    cut: Lazy,
    slack: Array,
    radius: Array,
    side: Array,
) -> tuple[Array, Array]:
    """The step that maximises s'd − d'Jd/2 within ‖D d‖ ≤ radius, and its predicted gain (Moré &
    Sorensen 1983, SIAM J. Sci. Stat. Comput. 4).

    Solved in the eigenvectors of R; ``side`` (±1) chooses the sign of the step along a direction of
    negative curvature to which the score is orthogonal.
    """
    xp = namespace(s)
    j = known(j)
    cut = known(cut)
    values, q = eigh(j / outer(scale, scale))
    g = times(transposed(q), s / scale)
    quiet = (xp.abs(values) <= cut) & (xp.abs(g) <= slack)
    g = xp.where(quiet, 0.0, g)
    curvature = xp.where(quiet, 1.0, values)
    lowest = xp.min(curvature, axis=0)
    floor = xp.maximum(-lowest, 0.0)

    def u_at(extra: Array) -> Array:
        return g / xp.maximum(curvature + floor + extra, xp.finfo(j.dtype).tiny)

    # ‖u‖ falls as the multiplier grows; at floor + ‖g‖/radius it is inside. Halve in the logarithm.
    high = norm(g) / radius + xp.finfo(j.dtype).tiny
    low = high * xp.finfo(j.dtype).eps ** 2

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = xp.sqrt(ends[0] * ends[1])
        inside = xp.sum(u_at(middle) ** 2, axis=0) <= radius**2
        return xp.where(inside, ends[0], middle), xp.where(inside, middle, ends[1])

    low, high = _repeat(24, halve, (low, high))
    at_once = u_at(xp.zeros_like(high))
    free = (floor == 0.0) & (lowest > 0) & (xp.sum(at_once**2, axis=0) <= radius**2)
    u = xp.where(free, at_once, u_at(high))
    # The hard case: curvature is negative and the score has nothing along it, so the step is
    # completed to the radius that way.
    weakest = column(np.arange(len(g)), g) == xp.argmin(curvature, axis=0)
    missing = xp.sqrt(xp.maximum(radius**2 - xp.sum(u**2, axis=0), 0.0))
    along_weakest = xp.sum(xp.where(weakest, g, 0.0), axis=0)
    sign = xp.where(along_weakest == 0.0, side, xp.sign(along_weakest))
    short = (floor > cut) & (missing > 0.1 * radius)
    u = xp.where(weakest & short, u + sign * missing, u)
    gain = dot(g, u) - 0.5 * xp.sum(xp.where(quiet, 0.0, values) * u**2, axis=0)
    return times(q, u) / scale, gain
