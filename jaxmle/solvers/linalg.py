"""Linear algebra of p × p symmetric matrices: written once, run by NumPy on the host, for one fit
or with an axis of members last (``leading_axes``), and by JAX under a trace.

``R`` is always a matrix scaled to unit diagonal, D⁻¹JD⁻¹. Small Cholesky factors are unrolled: with
a batch axis last that is many times faster than one LAPACK call for each matrix. Eigenvectors are
needed only when something is wrong, and ``rarely`` then pays for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.solvers.leading_axes import (
    column,
    diagonal,
    dot,
    norm,
    outer,
    product,
    times,
    transposed,
)

UNROLLED = 8  # compile time grows as p³; beyond this LAPACK is as fast


# lanes of a batch that take the rare side together: 8 cost twice as much where half of 1 024 need
# it, 32 cost 0.03 ms more where few do
RARE_LANES = 32
CHEAP_RARE_LANES = 128  # the same where the rare side is cheap
# coordinates up to which a trace for a CPU takes eigenvectors at every step, where they are rarely
# needed: 1 µs for 3, 8 for 10; a branch on them takes 0.1 to 0.5 s to compile
MAX_COORDINATES_WITHOUT_BRANCHES = 16


def _mend(
    rare: Callable[..., Any], needed: Array, args: Any, out: Any, lanes: int, few: int
) -> Any:
    """``out`` with ``rare(*args)`` in the lanes that need it: they are picked out a few at a
    time, so that the rare side is paid by need.
    """
    number = jnp.sum(needed)

    def mended() -> Any:
        (order,) = jnp.nonzero(
            needed, size=-(-lanes // few) * few, fill_value=lanes
        )  # beyond the batch: nothing is written

        def some(i: Array, out: Any) -> Any:
            lane = jax.lax.dynamic_slice_in_dim(order, i * few, few)
            picked = jax.tree.map(lambda leaf: leaf[jnp.minimum(lane, lanes - 1)], args)
            return jax.tree.map(
                lambda whole, new: whole.at[lane].set(new, mode="drop"),
                out,
                jax.vmap(rare)(*picked),
            )

        return jax.lax.fori_loop(0, -(-number // few), some, out)

    return jax.lax.cond(number > 0, mended, lambda: out)


def rarely(
    needed: Array,
    rare: Callable[..., Any],
    usual: Callable[..., Any],
    *args: Any,
    few: int = RARE_LANES,
) -> Any:
    """``rare(*args)`` where ``needed``, else ``usual(*args)``; in a batch only the members that
    need it pay for the rare side.

    An ordinary ``lax.cond`` under ``vmap`` becomes a select that computes both sides for every
    member, always.
    """
    if isinstance(needed, bool | np.bool_ | np.ndarray):
        return _rarely_on_host(np.asarray(needed), rare, usual, args)
    if is_cheap_to_run(*args):
        return jax.tree.map(lambda a, b: jnp.where(needed, a, b), rare(*args), usual(*args))

    @jax.custom_batching.custom_vmap
    def choose(needed: Array, *args: Any) -> Any:
        return jax.lax.cond(needed, rare, usual, *args)

    @choose.def_vmap
    def _(axis_size: int, batched: Any, needed: Array, *args: Any) -> Any:
        needed, *args = jax.tree.map(
            lambda x, b: x if b else jnp.broadcast_to(x, (axis_size, *jnp.shape(x))),
            (needed, *args),
            tuple(batched),
        )
        out = jax.vmap(usual)(*args)
        return _mend(rare, needed, args, out, axis_size, few), jax.tree.map(lambda _: True, out)

    return choose(needed, *args)


def is_cheap_to_run(*args: Any) -> bool:
    """Whether linear algebra on these arrays costs less in all its running than a branch about it
    costs to compile, under a trace for a CPU.
    """
    sizes = [size for leaf in jax.tree.leaves(args) for size in jnp.shape(leaf)]
    is_small = max(sizes, default=0) <= MAX_COORDINATES_WITHOUT_BRANCHES
    return is_small and jax.default_backend() == "cpu"


def _rarely_on_host(
    needed: np.ndarray, rare: Callable[..., Any], usual: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    """``rarely`` in NumPy, ``needed`` () or (b,)."""
    if np.all(needed):
        return rare(*args)
    out = usual(*args)
    if not np.any(needed):
        return out
    (lanes,) = np.nonzero(needed)

    def mended(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
        mended = np.array(np.broadcast_to(whole, (*np.shape(part)[:-1], len(needed))))
        mended[..., lanes] = part
        return mended

    return jax.tree.map(mended, out, rare(*jax.tree.map(lambda leaf: leaf[..., lanes], args)))


Rows = list[
    list[Array]
    # a small factor written out: its entries, never gathered into a matrix, which would cost more
    # than the arithmetic
]


def factored(r: Array, unrolled: bool = False) -> Array | Rows:
    """Lower Cholesky factor of R (p, p, ...): a matrix, or its rows where it is small and
    ``unrolled`` under a trace; not finite where R is not positive definite.
    """
    if isinstance(r, np.ndarray):
        if r.ndim > 2:
            return _factored_by_columns(r)
        try:
            return np.linalg.cholesky(r)
        except np.linalg.LinAlgError:
            return np.full_like(r, np.nan)
    p = r.shape[-1]
    if not unrolled or p > UNROLLED:
        return jax.lax.linalg.cholesky(r, symmetrize_input=False)
    rows: Rows = [[] for _ in range(p)]
    for j in range(p):
        rows[j].append(
            jnp.sqrt(r[j, j] - sum((rows[j][m] ** 2 for m in range(j)), jnp.zeros_like(r[0, 0])))
        )
        for i in range(j + 1, p):
            rows[i].append(
                (
                    r[i, j]
                    - sum((rows[i][m] * rows[j][m] for m in range(j)), jnp.zeros_like(r[0, 0]))
                )
                / rows[j][j]
            )
    return rows


def _factored_by_columns(r: np.ndarray) -> np.ndarray:
    """Lower Cholesky factors of many matrices (p, p, b), a column of all at a time."""
    factor = np.zeros_like(r)
    for j in range(len(r)):
        rest = r[j:, j]
        if j:
            rest = rest - times(factor[j:, :j], factor[j, :j])
        factor[j:, j] = rest / np.sqrt(rest[0])
    return factor


def cholesky(r: Array, unrolled: bool = False) -> Array:
    """Lower Cholesky factor (p, p); NaN where R is not positive definite. ``unrolled`` writes a
    small one out.
    """
    factor = factored(r, unrolled)
    if not isinstance(factor, list):
        return factor
    return jnp.stack(
        [jnp.stack([*row, *[jnp.zeros_like(row[0])] * (len(factor) - len(row))]) for row in factor]
    )


def least_pivot(factor: Array | Rows) -> Array:
    """The least pivot (...) of a factor; 0 where the matrix is not positive definite, for a pivot
    that is lost makes all after it NaN.
    """
    xp = jnp if isinstance(factor, list) else namespace(factor)
    pivots = (
        jnp.stack([row[-1] for row in factor]) if isinstance(factor, list) else diagonal(factor)
    )
    return xp.min(xp.where(xp.isfinite(pivots) & (pivots > 0), pivots, 0.0), axis=0)


def solve_lower(factor: Array | Rows, b: Array, unrolled: bool = False) -> Array:
    """L⁻¹ b for b of shape (p, ...) or (p, q, ...)."""
    if isinstance(factor, np.ndarray):
        return np.linalg.solve(factor, b) if factor.ndim == 2 else _solved_by_rows(factor, b)
    p = len(factor)
    if not isinstance(factor, list) and (not unrolled or p > UNROLLED):
        return jax.scipy.linalg.solve_triangular(factor, b, lower=True)
    out: list[Array] = []
    for i in range(p):
        out.append(
            (b[i] - sum((factor[i][m] * out[m] for m in range(i)), jnp.zeros_like(b[0])))
            / factor[i][i]
        )
    return jnp.stack(out)


def _solved_by_rows(factor: Array, b: Array) -> Array:
    """L⁻¹ b for many factors (p, p, n), b (p, n) or (p, q, n)."""
    out = np.empty_like(b)
    is_matrix = b.ndim == factor.ndim
    for i in range(len(factor)):
        row = factor[i, :i, None] if is_matrix else factor[i, :i]
        out[i] = (b[i] - np.sum(row * out[:i], axis=0)) / factor[i, i]
    return out


def solve_upper(factor: Array | Rows, b: Array, unrolled: bool = False) -> Array:
    """L⁻ᵀ b for b of shape (p, ...) or (p, q, ...)."""
    if isinstance(factor, np.ndarray):
        if factor.ndim == 2:
            return np.linalg.solve(factor.T, b)
        return _solved_by_rows(transposed(factor)[::-1, ::-1], b[::-1])[::-1]
    p = len(factor)
    if not isinstance(factor, list) and (not unrolled or p > UNROLLED):
        return jax.scipy.linalg.solve_triangular(factor, b, lower=True, trans=1)
    out: list[Array] = [jnp.zeros_like(b[0])] * p
    for i in reversed(range(p)):
        out[i] = (
            b[i] - sum((factor[m][i] * out[m] for m in range(i + 1, p)), jnp.zeros_like(b[0]))
        ) / factor[i][i]
    return jnp.stack(out)


def eigh(r: Array) -> tuple[Array, Array]:
    """Eigenvalues (p, ...) ascending and eigenvectors (p, p, ...) in columns; a matrix that is not
    finite counts as zero.
    """
    xp = namespace(r)
    r = xp.where(xp.all(xp.isfinite(r), axis=(0, 1)), r, xp.zeros_like(r))
    if r.ndim == 2:
        if isinstance(r, np.ndarray):
            decomposed = np.linalg.eigh(r)
            return decomposed.eigenvalues, decomposed.eigenvectors
        # as NumPy does, by one triangle
        vectors, values = jax.lax.linalg.eigh(r, symmetrize_input=False)
        return values, vectors
    values, vectors = xp.linalg.eigh(xp.moveaxis(r, -1, 0))
    return xp.moveaxis(values, 0, -1), xp.moveaxis(vectors, 0, -1)


def from_eigen(q: Array, values: Array) -> Array:
    """The matrix (p, p, ...) of eigenvectors (p, p, ...) in columns and eigenvalues (p, ...)."""
    return product(q * values[None], transposed(q))


def metric_of(j: Array, s: Array) -> Array:
    """The scale D (p, ...) of each coordinate, in units of 1/θ: √|J_jj|; |s_j| where there is no
    curvature.

    Where there is neither, its coupling |J_ij|/D_i to the others; 1 where nothing is known of it.
    """
    xp = namespace(j)
    d = xp.sqrt(xp.abs(diagonal(j)))
    tiny = xp.finfo(j.dtype).tiny ** 0.5
    slope = xp.abs(s)
    known = xp.where(d > tiny, d, slope)
    if xp is np and np.all(known > tiny):
        return known
    safe = xp.where(known > tiny, known, 1.0)
    coupling = xp.max(xp.where((known > tiny)[:, None], xp.abs(j) / safe[:, None], 0.0), axis=0)
    return xp.where(known > tiny, safe, xp.where(coupling > tiny, coupling, xp.ones_like(d)))


def known(value: Any) -> Array:
    """A number, computed now where it comes as a ``jax.tree_util.Partial``."""
    return value() if callable(value) else value


class NewtonStep(NamedTuple):
    """The full Newton step at a point, its decrement, and whether J is definite."""

    step: Array  # (p, ...)     J⁻¹ s, within the range of J where J is singular
    decrement: Array  # (...)   s'J⁻¹s/2
    # (...) J is positive (semi)definite and s lies in its range, to within rounding
    convex: Array
    definite: Array  # (...)    J is positive definite by a clear margin


def newton_step(
    j: Array, s: Array, scale: Array, cut: Any, slack: Array, unrolled: bool = False
) -> NewtonStep:
    """J⁻¹s with J = D R D: by Cholesky, or by eigenvectors where a pivot is lost.

    Args:
        j: curvature (p, p, ...), the observed information or a stand-in.
        s: score (p, ...).
        scale: D (p, ...).
        cut: eigenvalues of R within ±cut count as zero; a number, or a ``jax.tree_util.Partial``
            that gives it where it is needed.
        slack: the scaled score along a null direction may be this large and still count as zero.
        unrolled: write small factors out; for the loop, where it is run often enough to pay for its
            compilation.
    """
    xp = namespace(j)
    r = j / outer(scale, scale)
    g = s / scale
    by_eigenvectors_alone = not isinstance(r, np.ndarray) and is_cheap_to_run(r)
    factor = factored(r, unrolled and not by_eigenvectors_alone)
    # A pivot² at rounding says that a column lies in the span of those before it: let the
    # eigenvalues decide.
    pivot = least_pivot(factor)
    sound = pivot**2 > 100 * len(s) * xp.finfo(j.dtype).eps
    if by_eigenvectors_alone:
        return _by_eigenvectors(r, g, scale, cut, slack, sound)
    half = solve_lower(factor, g, unrolled)
    usual = solve_upper(factor, half, unrolled) / scale, 0.5 * xp.sum(half**2, axis=0)
    args = (r, g, scale, cut, slack, sound, *usual)
    return rarely(~sound, _by_eigenvectors, _by_factor, *args)


def _by_factor(
    r: Array,
    g: Array,
    scale: Array,
    cut: Any,
    slack: Array,
    sound: Array,
    step: Array,
    decrement: Array,
) -> NewtonStep:
    """The Newton step by the Cholesky factor."""
    yes = namespace(r).ones(decrement.shape, dtype=bool)
    return NewtonStep(step, decrement, yes, yes)


def _by_eigenvectors(
    r: Array, g: Array, scale: Array, cut: Any, slack: Array, sound: Array, *_: Array
) -> NewtonStep:
    """The Newton step by eigenvectors. Where the factor is sound, R is definite whatever they
    say.
    """
    xp = namespace(r)
    cut = known(cut)
    values, q = eigh(r)
    along = times(transposed(q), g)
    positive = (values > cut) | sound
    safe = xp.where(positive, values, 1.0)
    u = xp.where(positive, along / safe, 0.0)
    null = xp.abs(values) <= cut
    quiet = xp.where(null, xp.abs(along), 0.0) <= slack
    convex = (xp.all(values >= -cut, axis=0) & xp.all(quiet, axis=0)) | sound
    # A score along a direction without curvature has no Newton step: the maximum may be anywhere
    # that way.
    endless = xp.any(~positive & (xp.abs(along) > slack), axis=0)
    decrement = xp.where(endless, xp.inf, 0.5 * dot(u, xp.where(positive, along, 0.0)))
    return NewtonStep(times(q, u) / scale, decrement, convex, xp.all(positive, axis=0))


def _repeat(times: int, body: Callable[[int, Any], Any], value: Any) -> Any:
    """``body`` so many times: a Python loop on the host, one compiled loop under a trace."""
    if isinstance(jax.tree.leaves(value)[0], np.ndarray | np.generic):
        for i in range(times):
            value = body(i, value)
        return value
    return jax.lax.fori_loop(0, times, body, value)


# factorisations in search of the multiplier of a bounded step: of 1 600 random ones up to p = 9, 98
# % then gain within 1 % of the most
MAX_MULTIPLIER_FACTORISATIONS = 7
FULL = 0.9  # of the radius: a bounded step as long as that is one
CLEAR = 1e-4  # multiplier from which a direction without curvature is no matter of rounding


def bounded(r: Array, g: Array, radius: Array) -> tuple[Array, Array]:
    """The u (k,) with ‖u‖ ≤ radius () that maximises g'u − u'Ru/2, R (k, k), g (k,), but for the
    hard case, by Cholesky factors of R + λI; and whether it is as good as at the bound, ().

    λ by Newton's method on 1/‖u‖ − 1/radius, between bounds (Moré & Sorensen 1983, SIAM J. Sci.
    Stat. Comput. 4, §3). In the hard case, where g has nothing along the most negative curvature, u
    stays inside.
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
        sound = jnp.where(
            definite,
            (length >= FULL * radius) & (length <= radius / FULL) & (shift >= CLEAR),
            sound,
        )
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
    return u * jnp.minimum(1.0, radius / jnp.maximum(jnp.sqrt(jnp.sum(u**2)), tiny)), sound


def within(
    needed: Array,
    usual: tuple[Array, Array],
    j: Array,
    s: Array,
    scale: Array,
    cut: Any,
    slack: Array,
    radius: Array,
    side: Array,
) -> tuple[Array, Array]:
    """Where ``needed``, ``trust_step``, else the ``usual`` step and its predicted gain. In a
    batch by factors, and by eigenvectors for those left over.
    """
    if isinstance(needed, bool | np.bool_ | np.ndarray):
        return rarely(
            needed,
            lambda *a: trust_step(*a[:7]),
            lambda *a: a[7:],
            j,
            s,
            scale,
            cut,
            slack,
            radius,
            side,
            *usual,
        )

    if is_cheap_to_run(j):
        step, gain = trust_step(j, s, scale, cut, slack, radius, side)
        return jnp.where(needed, step, usual[0]), jnp.where(needed, gain, usual[1])

    def by_factors(
        j: Array, s: Array, scale: Array, radius: Array, *_: Array
    ) -> tuple[Array, Array, Array]:
        r = j / (scale[:, None] * scale[None, :])
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
        few=CHEAP_RARE_LANES,
    )
    return rarely(
        ~sound,
        lambda *a: trust_step(*a[:7]),
        lambda *a: a[7:],
        j,
        s,
        scale,
        cut,
        slack,
        radius,
        side,
        step,
        gain,
    )


def trust_step(
    j: Array, s: Array, scale: Array, cut: Any, slack: Array, radius: Array, side: Array
) -> tuple[Array, Array]:
    """The step that maximises s'd − d'Jd/2 within ‖D d‖ ≤ radius, and its predicted gain (Moré &
    Sorensen 1983, SIAM J. Sci. Stat. Comput. 4).

    Solved in the eigenvectors of R; ``side`` (±1) chooses the way along a direction of negative
    curvature that the score does not see.
    """
    xp = namespace(j)
    cut = known(cut)
    values, q = eigh(j / outer(scale, scale))
    g = times(transposed(q), s / scale)
    quiet = (xp.abs(values) <= cut) & (xp.abs(g) <= slack)
    g = xp.where(quiet, 0.0, g)
    curvature = xp.where(quiet, 1.0, values)
    lowest = xp.min(curvature, axis=0)
    floor = xp.maximum(-lowest, 0.0)

    def u_at(extra: Any) -> Any:
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
    seen = xp.sum(xp.where(weakest, g, 0.0), axis=0)
    sign = xp.where(seen == 0.0, side, xp.sign(seen))
    short = (floor > cut) & (missing > 0.1 * radius)
    u = xp.where(weakest & short, u + sign * missing, u)
    gain = dot(g, u) - 0.5 * xp.sum(xp.where(quiet, 0.0, values) * u**2, axis=0)
    return times(q, u) / scale, gain
