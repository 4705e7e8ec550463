"""Small likelihoods whose verdict is known by construction: each is one function of a few coordinates, and a way to draw its
constants, its data and a start. The constants come as columns of the data, so that one compiled program serves every draw.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from scipy import optimize, special, stats

from jaxmle import Status

ROWS = 24
# A verdict of these says that nothing was found; which of them also say something true depends on the problem.
UNDECIDED = frozenset({Status.STALLED, Status.MAX_STEPS, Status.IMPRECISE})
SOLVED = frozenset({Status.CONVERGED})


@dataclass(frozen=True)
class Core:
    """One draw: where to start, columns of constants (k,), the response (ROWS, m), and what is right.

    ``estimate`` and ``stderr`` hold the maximum where there is one; ``sign`` the side to which each
    coordinate goes at a supremum at infinity, 0 for one that stays finite; ``supremum`` is its value.
    On a bound ``estimate`` is the bound and the maximum of the rest, ``stderr`` NaN and theirs.
    """

    start: np.ndarray
    label: Status
    constants: np.ndarray = field(default_factory=lambda: np.zeros(1))
    response: np.ndarray = field(default_factory=lambda: np.zeros((ROWS, 1)))
    estimate: np.ndarray | None = None
    stderr: np.ndarray | None = None
    sign: np.ndarray | None = None
    supremum: float | None = None
    also_honest: frozenset = frozenset()


@dataclass(frozen=True)
class Template:
    """A family of problems: ``terms(u, constants, response)`` gives one term a row; ``draw(rng)`` a ``Core``."""

    size: int
    terms: Any
    draw: Any
    bounded: bool = False


def column(values):
    return np.asarray(values, float).reshape(ROWS, -1)


def spread(rng, mean, deviation):
    """ROWS numbers with exactly this mean and this standard deviation (divisor n)."""
    z = rng.normal(size=ROWS)
    return mean + deviation * (z - z.mean()) / z.std()


def amplitude(rng):
    """How informative the data are, over three decades."""
    return 10.0 ** rng.uniform(0, 3)


# ---------------------------------------------------------------- regular maxima


def logistic_terms(u, c, y):
    eta = u[:, 0] + y[:, 1] * u[:, 1]
    return y[:, 0] * eta - jnp.logaddexp(0.0, eta)


def newton_logistic(x, y):
    """The maximum of an overlapping logistic regression on one column, and its information."""
    design = np.column_stack([np.ones(ROWS), x])
    beta = np.zeros(2)
    for _ in range(60):
        p = special.expit(design @ beta)
        information = design.T @ (design * (p * (1 - p))[:, None])
        step = np.linalg.solve(information, design.T @ (y - p))
        beta = beta + step / max(1.0, np.abs(step).max())
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def draw_overlapping_logistic(rng):
    """A success and a failure at each of twelve values of x but two: the supremum is a finite maximum."""
    x = np.repeat(rng.normal(size=ROWS // 2), 2)
    y = np.tile([0.0, 1.0], ROWS // 2)
    y[:2] = rng.integers(0, 2)
    estimate, stderr = newton_logistic(x, y)
    return Core(
        start=rng.normal(size=2),
        label=Status.CONVERGED,
        response=column(np.column_stack([y, x])),
        estimate=estimate,
        stderr=stderr,
    )


def draw_separated_logistic(rng):
    """y = 1 exactly where x is beyond a cut on one side: the slope goes to infinity on that side."""
    x = rng.normal(size=ROWS)
    side = rng.choice([-1.0, 1.0])
    cut = np.sort(x)[rng.integers(4, ROWS - 4)]
    y = (side * (x - cut) > 1e-9).astype(float)
    return Core(
        start=rng.normal(size=2) * 0.5,
        label=Status.SEPARATED,
        response=column(np.column_stack([y, x])),
        sign=np.array([np.nan, side]),
        supremum=0.0,
    )


def normal_terms(u, c, y):
    return norm.logpdf(y[:, 0], u[:, 0], jnp.exp(u[:, 1]))


def draw_normal(rng):
    log_scale = rng.uniform(-2, 2)
    mean = rng.normal() * 3
    stderr = np.array([np.exp(log_scale) / np.sqrt(ROWS), 1 / np.sqrt(2 * ROWS)])
    return Core(
        start=np.array([mean + rng.normal() * np.exp(log_scale), log_scale + rng.uniform(-1, 1.5)]),
        label=Status.CONVERGED,
        response=column(spread(rng, mean, np.exp(log_scale))),
        estimate=np.array([mean, log_scale]),
        stderr=stderr,
    )


def draw_equal_values(rng):
    """All observations equal: the standard deviation falls to zero and the density has no bound."""
    value = rng.integers(-4, 5) / 2
    return Core(
        start=np.array([value + rng.normal(), rng.uniform(-1, 1)]),
        label=Status.UNBOUNDED,
        response=np.full((ROWS, 1), value),
    )


def amplified_terms(u, c, y):
    """A normal mean that has lost the digits below ε·c."""
    return -0.5 * (y[:, 0] - ((c[:, 0] + u[:, 0]) - c[:, 0])) ** 2


def draw_amplified(rng):
    """c up to 1e7: rounding leaves the mean 1e-9 of its unit, far within 1e-3 standard errors of .2."""
    mean = rng.normal()
    return Core(
        start=rng.normal(size=1) * 3,
        label=Status.CONVERGED,
        constants=np.array([10.0 ** rng.uniform(2, 7)]),
        response=column(spread(rng, mean, 1.0)),
        estimate=np.array([mean]),
        stderr=np.array([1 / np.sqrt(ROWS)]),
    )


# ---------------------------------------------------------------- ridges: only one function of the coordinates enters


def ridge(mean):
    """A normal response whose mean is the same all along a line or a curve of coordinates."""

    def terms(u, c, y):
        return -0.5 * c[:, 1] * (y[:, 0] - mean(u, c)) ** 2

    return terms


def draw_ridge(size, low, high, positive=False):
    """The response has a mean within reach of the ridge, |mean| from 1/2 to 3, and scatters by 1/2."""

    def draw(rng):
        mean = rng.uniform(0.5, 3.0)
        side = 1.0 if positive else rng.choice([-1.0, 1.0])
        return Core(
            start=rng.uniform(low, high, size) * rng.choice([-1.0, 1.0], size),
            label=Status.UNIDENTIFIED,
            constants=np.array([rng.uniform(0.3, 2.0), amplitude(rng)]),
            response=column(spread(rng, side * mean, 0.5)),
        )

    return draw


RIDGES = {
    "ridge_straight": (2, lambda u, c: u[:, 0] + c[:, 0] * u[:, 1], False),
    "ridge_product": (2, lambda u, c: u[:, 0] * u[:, 1], False),
    "ridge_of_three_factors": (3, lambda u, c: u[:, 0] * u[:, 1] * u[:, 2], False),
    "ridge_of_exponentials": (2, lambda u, c: jnp.exp(u[:, 0]) + c[:, 0] * jnp.exp(u[:, 1]), True),
    "ridge_ratio": (2, lambda u, c: u[:, 0] / (1 + c[:, 0] * u[:, 1] ** 2), False),
    "ridge_circle": (2, lambda u, c: u[:, 0] ** 2 + c[:, 0] * u[:, 1] ** 2, True),
}

# ---------------------------------------------------------------- stationary points that are no maximum, and flat maxima


def inflection(order):
    """κ·∫ tᵏ⁻¹(1 − t) dt: stationary at t = 0 without a maximum, maximal at t = 1 with curvature −κ."""

    def terms(u, c, y):
        t = (u[:, 0] - c[:, 0]) / c[:, 1]
        return y[:, 0] * (t**order / order - t ** (order + 1) / (order + 1))

    return terms


def draw_inflection(rng):
    """Starts below the inflection, between it and the maximum, and beyond the maximum."""
    place = rng.normal() * 2
    unit = 10.0 ** rng.uniform(-1, 1)
    weights = rng.uniform(0.2, 1.0, ROWS) * amplitude(rng) / ROWS
    t = rng.choice([rng.uniform(-1.5, -0.3), rng.uniform(0.2, 0.8), rng.uniform(1.2, 2.0)])
    return Core(
        start=np.array([place + unit * t]),
        label=Status.CONVERGED,
        constants=np.array([place, unit]),
        response=column(weights),
        estimate=np.array([place + unit]),
        stderr=np.array([unit / np.sqrt(weights.sum())]),
        also_honest=frozenset({Status.SINGULAR, Status.SADDLE}),
    )


def even_power(order):
    def terms(u, c, y):
        return -y[:, 0] * ((u[:, 0] - c[:, 0]) / c[:, 1]) ** order

    return terms


def draw_even_power(rng):
    place = rng.normal() * 2
    unit = 10.0 ** rng.uniform(-1, 1)
    return Core(
        start=np.array([place + unit * rng.uniform(0.3, 3.0) * rng.choice([-1, 1])]),
        label=Status.SINGULAR,
        constants=np.array([place, unit]),
        response=column(rng.uniform(0.2, 1.0, ROWS) * amplitude(rng) / ROWS),
    )


def plateau_terms(u, c, y):
    """A hill at t = 0 beside a hollow at t = −c₂, and level ground at 0 far off on either side."""
    t = u[:, 0] - c[:, 0]
    return y[:, 0] * (jnp.exp(-(t**2) / 2) - c[:, 1] * jnp.exp(-((t + c[:, 2]) ** 2) / 2))


def draw_plateau(rng):
    """From the hollow the ground rises to the hill; a long step lands on the level ground behind it, which is higher than the start."""
    depth = rng.uniform(1.0, 4.0)
    distance = rng.uniform(2.0, 3.0)

    def slope(t):
        return -t * np.exp(-(t**2) / 2) + depth * (t + distance) * np.exp(
            -((t + distance) ** 2) / 2
        )

    def curvature(t):
        false_curvature = depth * ((t + distance) ** 2 - 1) * np.exp(-((t + distance) ** 2) / 2)
        return (t**2 - 1) * np.exp(-(t**2) / 2) - false_curvature

    # The slope is positive from the bottom of the hollow (at or left of its centre) to the top.
    top = optimize.brentq(slope, 0.0, 3.0, xtol=1e-15)
    weights = rng.uniform(0.2, 1.0, ROWS) * 10.0 ** rng.uniform(0.5, 3.5) / ROWS
    place = rng.normal() * 2
    return Core(
        start=np.array([place - distance + rng.uniform(0.1, 0.8)]),
        label=Status.CONVERGED,
        constants=np.array([place, depth, distance]),
        response=column(weights),
        estimate=np.array([place + top]),
        stderr=np.array([1 / np.sqrt(-curvature(top) * weights.sum())]),
        also_honest=frozenset({Status.SINGULAR, Status.SADDLE}),
    )


# ---------------------------------------------------------------- tails: a supremum at infinity, or none


def reciprocal(t):
    """√(1 + t²) − t without cancellation: 1/(2t) for large t, −2t on the other side."""
    root = jnp.sqrt(1 + t**2)
    return jnp.where(t > 0, 1 / (root + jnp.abs(t)), root - t)


def tail(rise):
    def terms(u, c, y):
        return y[:, 0] * rise(c[:, 1] * (u[:, 0] - c[:, 0]))

    return terms


def draw_tail(label, supremum):
    """A function that rises all the way along ±u."""

    def draw(rng):
        place = rng.normal() * 2
        side = rng.choice([-1.0, 1.0])
        slope = side * rng.uniform(0.3, 3.0)
        return Core(
            start=np.array([place + rng.uniform(-1.0, 2.0) / slope]),
            label=label,
            constants=np.array([place, slope]),
            response=column(rng.uniform(0.2, 1.0, ROWS) * amplitude(rng) / ROWS),
            sign=np.array([side]),
            supremum=supremum,
        )

    return draw


# The supremum is left open where no finite t comes within 1e-6 of it.
TAILS = {
    "tail_reciprocal": (lambda t: -reciprocal(t), Status.SEPARATED, None),
    "tail_of_a_square_root": (lambda t: -jnp.sqrt(reciprocal(t)), Status.SEPARATED, None),
    "tail_exponential": (lambda t: -jnp.exp(-t), Status.SEPARATED, 0.0),
    "tail_logistic": (lambda t: -jnp.logaddexp(0.0, -t), Status.SEPARATED, 0.0),
    "tail_reciprocal_that_cancels": (lambda t: t - jnp.sqrt(1 + t**2), Status.SEPARATED, None),
    "growth_logarithmic": (lambda t: jnp.arcsinh(t), Status.UNBOUNDED, None),
    "growth_linear": (lambda t: jnp.logaddexp(0.0, t), Status.UNBOUNDED, None),
}


def truncated_normal_terms(u, c, y):
    scale = jnp.exp(u[:, 1])
    return norm.logpdf(y[:, 0], u[:, 0], scale) - norm.logcdf(u[:, 0] / scale)


def draw_truncated_normal(rng):
    """sd > mean: no maximum, the limit is the exponential law (Castillo 1994, Ann. Inst. Statist. Math. 46, 57–66)."""
    y = rng.gamma(0.5, 1.0, ROWS) + 1e-3
    while y.std() < 1.1 * y.mean():
        y = rng.gamma(0.5, 1.0, ROWS) + 1e-3
    y = y * 10.0 ** rng.uniform(-1, 1)
    return Core(
        start=np.array([y.mean(), np.log(y.std())]),
        label=Status.SEPARATED,
        response=column(y),
        sign=np.array([-1.0, 1.0]),
        supremum=-ROWS * (np.log(y.mean()) + 1),
    )


# ---------------------------------------------------------------- rounding


def constant_quotient_terms(u, c, y):
    """log(σ/σ): zero but for rounding."""
    p = jax.nn.sigmoid(c[:, 1] * (u[:, 0] - c[:, 0]))
    return jnp.log(p / p) - y[:, 0] ** 2


def cancelled_factor_terms(u, c, y):
    """A factor that cancels but for rounding in the scale of a normal law with a mean."""
    scale = c[:, 1] * jnp.exp(u[:, 1]) / jnp.exp(u[:, 1])
    return norm.logpdf(y[:, 0], u[:, 0], scale)


def cancelled_shift_terms(u, c, y):
    """A shift that is added and taken away again."""
    return -0.5 * (y[:, 0] - ((c[:, 1] + u[:, 1] + u[:, 0]) - u[:, 1] - c[:, 1])) ** 2


def draw_flat(size):
    def draw(rng):
        return Core(
            start=rng.uniform(-2, 2, size),
            label=Status.UNIDENTIFIED,
            constants=np.array([rng.normal(), rng.uniform(0.5, 2.0)]),
            response=column(spread(rng, rng.normal(), 1.0)),
        )

    return draw


def negative_binomial_terms(u, c, y):
    """As it is mostly written: log-gamma functions of y + size and of size."""
    mean = jnp.exp(u[:, 0])
    size = jnp.exp(u[:, 1])
    counts = y[:, 0]
    gammas = gammaln(counts + size) - gammaln(size) - gammaln(counts + 1)
    return gammas + size * jnp.log(size / (size + mean)) + counts * jnp.log(mean / (size + mean))


def draw_underdispersed(rng):
    """Variance below the mean: the size has no finite estimate (Levin & Reeds 1977, Ann. Statist. 5, 79–87)."""
    mean = rng.uniform(2, 20)
    y = rng.binomial(int(2 * mean), 0.5, ROWS).astype(float)
    while y.var() > 0.85 * y.mean():
        y = rng.binomial(int(2 * mean), 0.5, ROWS).astype(float)
    return Core(
        start=np.array([np.log(y.mean()) + rng.normal() * 0.5, rng.uniform(-1, 3)]),
        label=Status.SEPARATED,
        response=column(y),
        sign=np.array([0.0, 1.0]),
        supremum=stats.poisson.logpmf(y, y.mean()).sum(),
    )


def draw_overdispersed(rng):
    """Variance well above the mean: one finite maximum (the same paper), log size by its score equation in SciPy."""
    y = rng.negative_binomial(rng.uniform(0.7, 3.0), 0.2, ROWS).astype(float)
    while y.var() < 2 * y.mean():
        y = rng.negative_binomial(rng.uniform(0.7, 3.0), 0.2, ROWS).astype(float)
    mean = y.mean()

    def score(size):
        return np.sum(special.digamma(y + size) - special.digamma(size)) - ROWS * np.log1p(
            mean / size
        )

    size = optimize.brentq(score, 1e-3, 1e4, xtol=1e-14)
    h = 1e-5 * size
    information = -(size**2) * (score(size + h) - score(size - h)) / (2 * h)
    return Core(
        start=np.array([np.log(mean) + rng.normal() * 0.5, np.log(size) + rng.uniform(-1, 1.5)]),
        label=Status.CONVERGED,
        response=column(y),
        estimate=np.log([mean, size]),
        stderr=np.sqrt([(1 / mean + 1 / size) / ROWS, 1 / information]),
    )
