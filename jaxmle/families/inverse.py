"""Quantiles from a distribution function: Newton's method inside a bracket, and bisection over
integers.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmle._types import Array, NamedParams, Tree

Tail = Callable[[NamedParams, Array], Array]
NearTail = Callable[[NamedParams, Array, Array], Array]  # of a value, and whether its lower tail
# s, low, high, whether s is found; the number of steps.
Bracket = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Tree]
# below, above, whether above reaches, the next stride; the number of steps.
CountBracket = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Tree]

# 64 steps halve any interval of integers that float64 tells apart to one, after as many doublings
MAX_STEPS_OF_COUNTS = 128
MAX_QUANTILE_STEPS = 120  # bisection alone halves a bracket of 1500 to below an ulp in 64
MAX_LOG_OF_A_SCALE = 700.0  # exp(±700) is finite in float64
# Where log f and log F are larger than this, the slope exp(log f − log F) has lost its digits.
LONGEST_QUANTILE_STEP = 1e5


# The scale s of each support: y(s) and dy/ds. On sinh both tails of a light or heavy distribution
# are close to straight.
SCALES = {
    "line": (jnp.sinh, jnp.cosh),
    "positive": (jnp.exp, jnp.exp),
    "unit": (jax.nn.sigmoid, lambda s: jax.nn.sigmoid(s) * jax.nn.sigmoid(-s)),
}


def solve(
    log_prob: Tail,
    log_cdf: Tail,
    log_sf: Tail,
    scale: str,
    p: NamedParams,
    q: Array,
    ends: tuple[Tree, Tree] = (-jnp.inf, jnp.inf),
) -> Array:
    """The value y with distribution function q in (0, 1), elementwise.

    Solves log F(y) = log q in the lower half and log S(y) = log(1 − q) in the upper, on the scale s
    where y = exp s, sinh s or a logistic function of s. There log F is close to concave, so
    Newton's steps approach from one side; a step that leaves the bracket is replaced by bisection.
    Derivatives are those of the implicit function theorem, dy = (dq − ∂F)/f, not of the loop. A
    value that rounds to an end of the support becomes the last number inside ``ends``; there the
    derivatives come from the tail that is not lost to rounding.
    """
    low, high = (jax.lax.stop_gradient(jnp.asarray(end, q.dtype)) for end in ends)
    low = jnp.nextafter(low, jnp.inf)
    high = jnp.nextafter(high, -jnp.inf)

    def residual(p: NamedParams, q: Array, y: Array, lower: Array) -> tuple[Array, Array]:
        """The residual, increasing in y, and the log of its slope in y."""
        cdf = log_cdf(p, y)
        sf = log_sf(p, y)
        density = log_prob(p, y)
        return jnp.where(lower, cdf - jnp.log(q), jnp.log1p(-q) - sf), density - jnp.where(
            lower, cdf, sf
        )

    @jax.custom_jvp
    def root(p: NamedParams, q: Array, low: Array, high: Array) -> Array:
        shape = _shape(log_cdf, p, q)
        y = _ascend(lambda y: residual(p, q, y, q <= 0.5), SCALES[scale], shape)
        return jnp.clip(y, low, high)

    @root.defjvp
    def _(primals: tuple[Tree, ...], tangents: tuple[Tree, ...]) -> tuple[Array, Array]:
        (p, q, *_) = primals
        y = root(*primals)
        left, _ = residual(p, q, y, q <= 0.5)
        lower = (q <= 0.5) == (jnp.abs(left) < 1)
        _, moved = jax.jvp(lambda p, q: residual(p, q, y, lower)[0], (p, q), tangents[:2])
        return y, -moved * jnp.exp(-residual(p, q, y, lower)[1])

    return root(p, q, low, high)


def _shape(log_cdf: Tail, p: NamedParams, q: Array) -> tuple[int, ...]:
    """The shape of the values: that of the distribution function, since a parameter of a mixture
    may have an axis of its own.
    """
    shape: tuple[int, ...] = jax.eval_shape(log_cdf, p, q).shape
    return jnp.broadcast_shapes(jnp.shape(q), shape)


def _ascend(
    residual: Callable[[Array], tuple[Array, Array]],
    scale: tuple[Tree, Tree],
    shape: tuple[int, ...],
) -> Array:
    """The root of an increasing residual, elementwise, by Newton's method within a bracket."""
    to_y, slope_y = scale
    real = jnp.result_type(float)
    tolerance = 2 * jnp.finfo(real).eps
    widest = MAX_LOG_OF_A_SCALE if real == jnp.float64 else 80.0

    def step(state: Bracket) -> Bracket:
        s, low, high, _, count = state
        left, log_slope = residual(to_y(s))
        sound = jnp.abs(left) < LONGEST_QUANTILE_STEP
        left = jnp.where(jnp.isnan(left), s, left)  # overflow far out: come back
        low = jnp.where(left < 0, s, low)
        high = jnp.where(left >= 0, s, high)
        newton = s - left * jnp.exp(-log_slope) / slope_y(s)
        # The last step may leave the bracket by a rounding error.
        near = sound & (jnp.abs(newton - s) <= tolerance * (1 + jnp.abs(s)))
        inside = sound & (newton > low) & (newton < high)
        new = jnp.where(near, newton, jnp.where(inside, newton, 0.5 * (low + high)))
        return new, low, high, near | (high - low <= tolerance * (1 + jnp.abs(s))), count + 1

    def going(state: Bracket) -> Array:
        return ~jnp.all(state[3]) & (state[4] < MAX_QUANTILE_STEPS)

    start = jnp.zeros(shape)
    s, *_ = jax.lax.while_loop(
        going, step, (start, start - widest, start + widest, jnp.zeros(shape, bool), 0)
    )
    return to_y(s)


def smallest_count(
    log_cdf: Tail,
    log_sf: Tail,
    mean: Array,
    variance: Array,
    low: float | Array,
    high: float | Array,
    p: NamedParams,
    q: Array,
) -> Array:
    """The smallest integer y with distribution function at least q, by bisection.

    Cantelli's inequality gives the bracket: mean − σ√((1 − q)/q) ≤ y ≤ mean + σ√(q/(1 − q)).
    """
    p, q, mean, variance, low, high = jax.lax.stop_gradient((p, q, mean, variance, low, high))
    sd = jnp.sqrt(variance)
    below = jnp.maximum(jnp.floor(mean - sd * jnp.sqrt((1 - q) / q)), low) - 1
    above = jnp.minimum(jnp.ceil(mean + sd * jnp.sqrt(q / (1 - q))) + 1, high)
    return _search_counts(nearer(log_cdf, log_sf), below, above, above, p, q)


def smallest_count_from(tail: NearTail, low: Tree, high: Tree, p: NamedParams, q: Array) -> Array:
    """The smallest integer y ≥ low with distribution function at least q, if the moments are not
    known: steps up from low are doubled until they reach it, then by bisection.
    """
    p, q, low, high = jax.lax.stop_gradient((p, q, low, high))
    first = jnp.asarray(low, q.dtype)
    return _search_counts(tail, first - 1, first, jnp.floor(jnp.asarray(high, q.dtype)), p, q)


def nearer(log_cdf: Tail, log_sf: Tail) -> NearTail:
    """The log of the lower tail where that is asked for, else of the upper one."""
    return lambda p, y, lower: jnp.where(lower, log_cdf(p, y), log_sf(p, y))


def _search_counts(
    tail: NearTail, below: Array, above: Array, last: Array, p: NamedParams, q: Array
) -> Array:
    """The smallest integer above ``below`` that reaches q; at most ``last``.

    Probabilities are compared in the nearer tail. ``above`` moves up in doubled steps until it
    reaches q or is ``last``; from then on the interval is halved.
    """
    lower = q <= 0.5
    goal = jnp.where(lower, jnp.log(q), jnp.log1p(-q))
    slack = 4 * jnp.finfo(jnp.result_type(float)).eps * (1 + jnp.abs(goal))
    shape = _shape(lambda p, y: tail(p, y, lower), p, q)
    below, above, last = (jnp.broadcast_to(end, shape) for end in (below, above, last))

    def going(state: CountBracket) -> Array:
        below, above, bracketed, _, count = state
        return jnp.any(~bracketed | (above - below > 1)) & (count < MAX_STEPS_OF_COUNTS)

    def step(state: CountBracket) -> CountBracket:
        below, above, bracketed, stride, count = state
        y = jnp.where(bracketed, jnp.floor(0.5 * (below + above)), above)
        value = tail(p, y, lower)
        # q computed as F(y) gives back y
        enough = jnp.where(lower, value >= goal - slack, value <= goal + slack) | (y >= last)
        further = jnp.where(bracketed, above, jnp.minimum(y + stride, last))
        return (
            jnp.where(enough, below, y),
            jnp.where(enough, y, further),
            bracketed | enough,
            2 * stride,
            count + 1,
        )

    state = (below, above, above >= last, jnp.ones(()), 0)
    return jax.lax.while_loop(going, step, state)[1]
