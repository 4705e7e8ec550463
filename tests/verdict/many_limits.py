"""The likelihoods of ``many_hands`` with bounds, ridges, inflections, plateaus or no maximum; ``LIKELIHOODS`` holds all thirty."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm
from scipy import optimize, special, stats

from .many_hands import NONE, N, logs, optimum
from .many_likelihoods import (
    EVENTS,
    LIKELIHOODS,
    NORMAL,
    RNG,
    SUCCESSES,
    WAITS,
    answers,
    at_status,
    likelihood,
    normal,
)

__all__ = ["LIKELIHOODS"]

# ---------------------------------------------------------------- boundary: at infinity where the bound is written inside


@likelihood("boundary", "only_successes", {"p": "unit"}, (np.ones(N),), ((0.5,), (0.1,), (0.9,)))
def only_successes(q, d):
    return d[0] * jnp.log(q[0])


answers("only_successes")(at_status("BOUNDARY", [1.0], [NONE]))


@likelihood("boundary", "no_events", {"rate": "positive"}, (WAITS,), ((1.0,), (0.1,), (8.0,)))
def no_events(q, d):
    return -q[0] * d[0]


answers("no_events")(at_status("BOUNDARY", [0.0], [NONE]))

SIGNAL = {"signal": "positive", "background": "positive"}
ON_OFF_STARTS = ((1.0, 1.0), (0.2, 6.0), (5.0, 2.0))


def on_off(q, d):
    total = q[0] + q[1]
    return d[0] * jnp.log(total) - total + d[1] * jnp.log(3 * q[1]) - 3 * q[1]


# 3 and 12 a row: background (3 + 12)/4. 4 and 12: the excess is zero and the score in the signal too.
likelihood("boundary", "deficit", SIGNAL, (np.full(N, 3.0), np.full(N, 12.0)), ON_OFF_STARTS)(
    on_off
)
answers("deficit")(at_status("BOUNDARY", [0.0, 3.75], [NONE, 3.75 / (4 * N)]))
likelihood("boundary", "no_excess", SIGNAL, (np.full(N, 4.0), np.full(N, 12.0)), ON_OFF_STARTS)(
    on_off
)
answers("no_excess")(at_status("BOUNDARY", [0.0, 4.0], [NONE, 1.0 / N]))

# Twenty groups of three, by mean and sum of squares within; the means scatter less than they would by chance.
WITHIN = RNG.chisquare(2, N)
MEANS = 1.0 + 0.5 * np.sqrt(np.mean(WITHIN) / 2 / 3) * RNG.normal(size=N)
TOTAL = np.sum(WITHIN) + 3 * np.sum((MEANS - MEANS.mean()) ** 2)
COMPONENT = {"mean": "real", "between": "positive", "within": "positive"}


@likelihood(
    "boundary",
    "no_variance_between",
    COMPONENT,
    (MEANS, WITHIN),
    ((0.0, 0.5, 1.0), (2.0, 0.1, 2.0), (1.0, 2.0, 0.5)),
)
def components(q, d):
    within = q[2] ** 2
    total = within + 3 * q[1] ** 2
    return -0.5 * (
        2 * jnp.log(within) + jnp.log(total) + d[1] / within + 3 * (d[0] - q[0]) ** 2 / total
    )


answers("no_variance_between")(
    at_status(
        "BOUNDARY",
        [MEANS.mean(), 0.0, np.sqrt(TOTAL / 60)],
        [TOTAL / 60 / 60, NONE, TOTAL / 60 / 120],
    )
)

NO_ZEROS = np.maximum(EVENTS, 1.0)


@likelihood(
    "boundary",
    "no_inflation",
    {"rate": "positive", "share": "unit"},
    (NO_ZEROS,),
    ((1.0, 0.5), (4.0, 0.1), (9.0, 0.8)),
)
def inflated(q, d):
    mass = d[0] * jnp.log(q[0]) - q[0]
    return jnp.where(
        d[0] == 0, jnp.log(q[1] + (1 - q[1]) * jnp.exp(-q[0])), jnp.log1p(-q[1]) + mass
    )


answers("no_inflation")(at_status("BOUNDARY", [NO_ZEROS.mean(), 0.0], [NO_ZEROS.mean() / N, NONE]))

# ---------------------------------------------------------------- ridges

NEAR_TWO = RNG.normal(2.0, 1.0, N)


@likelihood(
    "ridge",
    "product",
    {"a": "real", "b": "positive"},
    (NEAR_TWO,),
    ((0.1, 3.0), (1.0, 1.0), (4.0, 0.2)),
)
def product(q, d):
    return -0.5 * (d[0] - q[0] * q[1]) ** 2


@likelihood(
    "ridge", "sum", {"a": "real", "b": "real"}, (NEAR_TWO,), ((0.1, 3.0), (1.0, -1.0), (40.0, 0.2))
)
def total(q, d):
    return -0.5 * (d[0] - q[0] - q[1]) ** 2


@likelihood(
    "ridge",
    "ratio",
    {"a": "positive", "b": "positive"},
    (EVENTS,),
    ((1.0, 1.0), (4.0, 0.3), (0.2, 5.0)),
)
def ratio(q, d):
    rate = q[0] / q[1]
    return d[0] * jnp.log(rate) - rate


@likelihood(
    "ridge",
    "two_factors",
    {"psi": "unit", "p": "unit"},
    (SUCCESSES,),
    ((0.5, 0.5), (0.9, 0.2), (0.3, 0.8)),
)
def two_factors(q, d):
    chance = q[0] * q[1]
    return d[0] * jnp.log(chance) + (10 - d[0]) * jnp.log1p(-chance)


for ridge in ("product", "sum", "ratio", "two_factors"):
    answers(ridge)(at_status("UNIDENTIFIED", [NONE, NONE], [NONE, NONE]))

# ---------------------------------------------------------------- inflections

# Twenty quantiles of a skew-normal law of alpha 3: the maximum is finite.
SKEWED = stats.skewnorm.ppf((np.arange(N) + 0.5) / N, 3.0)
SKEW = {"loc": "real", "scale": "positive", "alpha": "real"}
MOMENTS = (SKEWED.mean(), SKEWED.std())


@likelihood(
    "inflection",
    "skew_normal",
    SKEW,
    (SKEWED,),
    ((*MOMENTS, 0.1), (*MOMENTS, -1.0), (*MOMENTS, 1.0)),
)
def skew_normal(q, d):
    z = (d[0] - q[0]) / q[1]
    return norm.logpdf(z) - jnp.log(q[1]) + log_ndtr(q[2] * z)


@answers("skew_normal")
def _skew_normal():
    def minus(q):
        z = (SKEWED - q[0]) / np.exp(q[1])
        return -np.sum(-0.5 * z**2 - q[1] + special.log_ndtr(q[2] * z))

    best = optimize.minimize(
        minus,
        [0.1, 0.5, 4.0],
        method="Nelder-Mead",
        options={"maxiter": 9000, "xatol": 1e-7, "fatol": 1e-10},
    )
    y = logs(SKEWED)

    def value(q):
        z = [(v - q[0]) / q[1] for v in y]
        return sum(
            -w * w / 2 - mpmath.log(q[1]) + mpmath.log(mpmath.erfc(-q[2] * w / mpmath.sqrt(2)))
            for w in z
        )

    return optimum(value, [best.x[0], np.exp(best.x[1]), best.x[2]])


WEIGHTS = np.linspace(0.5, 3.0, N)


@likelihood("inflection", "cubic", {"t": "real"}, (WEIGHTS,), ((-1.0,), (-0.2,), (0.3,)))
def cubic(q, d):
    return d[0] * (q[0] ** 3 / 3 - q[0] ** 4 / 4)


answers("cubic")(at_status("CONVERGED", [1.0], [1 / WEIGHTS.sum()]))

# ---------------------------------------------------------------- plateaus


@likelihood(
    "plateau", "hill_and_hollow", {"t": "real"}, (20 * WEIGHTS,), ((-2.2,), (-1.8,), (-1.2,))
)
def hill(q, d):
    return d[0] * (jnp.exp(-(q[0] ** 2) / 2) - 2 * jnp.exp(-((q[0] + 2.5) ** 2) / 2))


@answers("hill_and_hollow")
def _hill():
    weight = float(np.sum(20 * WEIGHTS))

    def value(q):
        return weight * (
            mpmath.exp(-(q[0] ** 2) / 2) - 2 * mpmath.exp(-((q[0] + mpmath.mpf("2.5")) ** 2) / 2)
        )

    return optimum(value, [0.1])


LEVEL = np.linspace(0.5, 10, N)
CURVE = special.expit(1.5 * (LEVEL - 4)) + 0.05 * RNG.normal(size=N)


@likelihood(
    "plateau",
    "dose_response",
    {"middle": "positive", "steepness": "positive"},
    (LEVEL, CURVE),
    ((2.0, 1.0), (7.0, 1.0), (9.0, 0.5)),
)
def dose_response(q, d):
    return -200 * (d[1] - jax.nn.sigmoid(q[1] * (d[0] - q[0]))) ** 2


@answers("dose_response")
def _dose_response():
    x, y = logs(LEVEL), logs(CURVE)

    def value(q):
        return sum(
            -200 * (w - 1 / (1 + mpmath.exp(-q[1] * (v - q[0])))) ** 2
            for v, w in zip(x, y, strict=True)
        )

    return optimum(value, [4.0, 1.5])


# ---------------------------------------------------------------- unbounded, flat

likelihood(
    "unbounded",
    "equal_values",
    {"mu": "real", "sigma": "positive"},
    (np.full(N, 1.5),),
    ((0.0, 1.0), (1.0, 3.0), (1.5, 0.5)),
)(normal)
answers("equal_values")(at_status("UNBOUNDED", [NONE, NONE], [NONE, NONE]))


@likelihood("unbounded", "threshold", {"edge": "real"}, (1 + WAITS,), ((0.0,), (0.9,), (-3.0,)))
def threshold(q, d):
    return -0.5 * jnp.log(d[0] - q[0]) - (d[0] - q[0])


answers("threshold")(at_status("UNBOUNDED", [NONE], [NONE]))


@likelihood("flat", "quotient_of_itself", {"t": "real"}, (WAITS,), ((0.1,), (1.3,), (-0.7,)))
def quotient_of_itself(q, d):
    return jnp.log(jax.nn.sigmoid(q[0]) / jax.nn.sigmoid(q[0])) - d[0]


answers("quotient_of_itself")(at_status("UNIDENTIFIED", [NONE], [NONE]))


@likelihood(
    "flat",
    "absent",
    {"mu": "real", "unused": "positive"},
    (NORMAL,),
    ((0.0, 1.0), (5.0, 2.0), (3.0, 0.5)),
)
def absent(q, d):
    return -0.5 * (d[0] - q[0]) ** 2 + 0.0 * q[1]


answers("absent")(at_status("UNIDENTIFIED", [NORMAL.mean(), NONE], [1 / N, NONE]))
