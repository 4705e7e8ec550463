"""The thirty likelihoods of ``many_hands``, with their answers."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from jax.scipy.special import gammaln, log_ndtr
from jax.scipy.stats import norm
from scipy import optimize, special, stats

from .many_hands import NONE, Likelihood, N, answer, logs, optimum

RNG = np.random.default_rng(19)
LIKELIHOODS = {}


def likelihood(kind, name, domains, data, starts):
    """Registers the likelihood whose terms are decorated; its answer follows by ``answers``."""

    def register(terms):
        LIKELIHOODS[name] = (kind, domains, terms, data, starts)
        return terms

    return register


def answers(name):
    """Completes a registered likelihood with the function that works out its answer."""

    def register(right):
        kind, domains, terms, data, starts = LIKELIHOODS[name]
        memory = []

        def once():
            if not memory:
                memory.append(right())
            return memory[0]

        columns = tuple(np.asarray(column, float) for column in data)
        LIKELIHOODS[name] = Likelihood(domains, terms, columns, starts, once, kind)
        return right

    return register


def at_status(status, estimate, variances):
    return lambda: answer(status, estimate, variances)


# ---------------------------------------------------------------- regular

NORMAL = RNG.normal(3.0, 2.0, N)


@likelihood(
    "regular",
    "normal",
    {"mu": "real", "sigma": "positive"},
    (NORMAL,),
    ((0.0, 1.0), (5.0, 6.0), (3.0, 0.7)),
)
def normal(q, d):
    return norm.logpdf(d[0], q[0], q[1])


answers("normal")(
    at_status(
        "CONVERGED", [NORMAL.mean(), NORMAL.std()], [NORMAL.var() / N, NORMAL.var() / (2 * N)]
    )
)

WAITS = RNG.exponential(0.5, N)


EVENTS = RNG.poisson(4.0, N).astype(float)


@likelihood("regular", "poisson", {"rate": "positive"}, (EVENTS,), ((1.0,), (10.0,), (0.05,)))
def poisson(q, d):
    return d[0] * jnp.log(q[0]) - q[0]


answers("poisson")(at_status("CONVERGED", [EVENTS.mean()], [EVENTS.mean() / N]))

SUCCESSES = RNG.binomial(10, 0.3, N).astype(float)
SHARE = SUCCESSES.mean() / 10


@likelihood("regular", "binomial", {"p": "unit"}, (SUCCESSES,), ((0.5,), (0.05,), (0.95,)))
def binomial(q, d):
    return d[0] * jnp.log(q[0]) + (10 - d[0]) * jnp.log1p(-q[0])


answers("binomial")(at_status("CONVERGED", [SHARE], [SHARE * (1 - SHARE) / (10 * N)]))

GAMMA = RNG.gamma(3.0, 0.5, N)


@likelihood(
    "regular",
    "gamma",
    {"shape": "positive", "rate": "positive"},
    (GAMMA,),
    ((1.0, 1.0), (10.0, 3.0), (0.5, 5.0)),
)
def gamma(q, d):
    return q[0] * jnp.log(q[1]) + (q[0] - 1) * jnp.log(d[0]) - q[1] * d[0] - gammaln(q[0])


@answers("gamma")
def _gamma():
    gap = np.log(GAMMA.mean()) - np.log(GAMMA).mean()
    shape = optimize.brentq(lambda k: np.log(k) - special.digamma(k) - gap, 0.1, 100, xtol=1e-14)
    rate = shape / GAMMA.mean()
    cross = -1 / rate
    information = N * np.array([[special.polygamma(1, shape), cross], [cross, shape / rate**2]])
    return answer("CONVERGED", [shape, rate], np.linalg.inv(information))


WEIBULL = 2.0 * RNG.weibull(1.7, N)


@likelihood(
    "regular",
    "weibull",
    {"shape": "positive", "scale": "positive"},
    (WEIBULL,),
    ((1.0, 1.0), (3.0, 3.0), (0.6, 5.0)),
)
def weibull(q, d):
    z = d[0] / q[1]
    return jnp.log(q[0] / q[1]) + (q[0] - 1) * jnp.log(z) - z ** q[0]


@answers("weibull")
def _weibull():
    y = logs(WEIBULL)

    def value(q):
        return sum(
            mpmath.log(q[0] / q[1]) + (q[0] - 1) * mpmath.log(v / q[1]) - (v / q[1]) ** q[0]
            for v in y
        )

    return optimum(value, [1.7, 2.0])


PAIR = RNG.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], N)


@likelihood(
    "regular",
    "correlation",
    {"rho": "correlation"},
    (PAIR[:, 0], PAIR[:, 1]),
    ((0.1,), (0.8,), (-0.5,)),
)
def correlation(q, d):
    left = 1 - q[0] ** 2
    return -0.5 * jnp.log(left) - (d[0] ** 2 - 2 * q[0] * d[0] * d[1] + d[1] ** 2) / (2 * left)


@answers("correlation")
def _correlation():
    squares, product = float(np.sum(PAIR**2)), float(np.sum(PAIR[:, 0] * PAIR[:, 1]))

    def value(q):
        left = 1 - q[0] ** 2
        return -N * mpmath.log(left) / 2 - (squares - 2 * q[0] * product) / (2 * left)

    start = optimize.minimize_scalar(
        lambda r: float(-value((mpmath.mpf(r),))), bounds=(-0.99, 0.99), method="bounded"
    )
    return optimum(value, [start.x])


DOSE = np.linspace(-2, 2, N)
RESPONSE = (RNG.random(N) < special.expit(0.3 + DOSE)).astype(float)
RESPONSE[[3, 16]] = [1.0, 0.0]  # so that the two groups overlap


@likelihood(
    "regular",
    "logistic",
    {"a": "real", "b": "real"},
    (DOSE, RESPONSE),
    ((0.0, 0.0), (1.0, -1.0), (-2.0, 2.0)),
)
def logistic(q, d):
    eta = q[0] + q[1] * d[0]
    return d[1] * eta - jnp.logaddexp(0.0, eta)


@answers("logistic")
def _logistic():
    x, y = logs(DOSE), logs(RESPONSE)

    def value(q):
        eta = [q[0] + q[1] * v for v in x]
        return sum(w * e - mpmath.log(1 + mpmath.exp(e)) for w, e in zip(y, eta, strict=True))

    return optimum(value, [0.3, 0.5])


CLUMPED = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 0, 1, 20.0])


def negative_binomial(q, d):
    gammas = gammaln(d[0] + q[1]) - gammaln(q[1])
    return gammas + q[1] * jnp.log(q[1] / (q[1] + q[0])) + d[0] * jnp.log(q[0] / (q[1] + q[0]))


COUNT_DOMAINS = {"mu": "positive", "size": "positive"}
likelihood(
    "regular", "overdispersed", COUNT_DOMAINS, (CLUMPED,), ((1.0, 1.0), (10.0, 10.0), (5.0, 0.2))
)(negative_binomial)


@answers("overdispersed")
def _overdispersed():
    y = logs(CLUMPED)

    def value(q):
        constant = q[1] * mpmath.log(q[1] / (q[1] + q[0]))
        return sum(
            mpmath.loggamma(v + q[1])
            - mpmath.loggamma(q[1])
            + constant
            + v * mpmath.log(q[0] / (q[1] + q[0]))
            for v in y
        )

    return optimum(value, [CLUMPED.mean(), 0.9])


# ---------------------------------------------------------------- separated: the limit is at infinity in every form

SEPARATED_Y = (DOSE > 0.05).astype(float)
likelihood(
    "separated",
    "complete_separation",
    {"a": "real", "b": "real"},
    (DOSE, SEPARATED_Y),
    ((0.0, 0.0), (1.0, -1.0), (-0.5, 2.0)),
)(logistic)
answers("complete_separation")(at_status("SEPARATED", [NONE, np.inf], [NONE, NONE]))

DUMMY = np.repeat([0.0, 1.0], [12, 8])
DUMMY_Y = np.concatenate([np.tile([1.0, 0.0, 0.0], 4), np.ones(8)])
likelihood(
    "separated",
    "quasi_separation",
    {"a": "real", "b": "real"},
    (DUMMY, DUMMY_Y),
    ((0.0, 0.0), (1.0, -1.0), (-2.0, 2.0)),
)(logistic)
answers("quasi_separation")(
    at_status("SEPARATED", [special.logit(1 / 3), np.inf], [1 / (12 * 2 / 9), NONE])
)

STEADY = np.array([4, 5, 5, 6, 5, 4, 5, 6, 5, 5, 4, 6, 5, 5, 4, 5, 6, 5, 5, 5.0])
likelihood(
    "separated", "underdispersed", COUNT_DOMAINS, (STEADY,), ((1.0, 1.0), (5.0, 10.0), (8.0, 0.5))
)(negative_binomial)
answers("underdispersed")(
    at_status("SEPARATED", [STEADY.mean(), np.inf], [STEADY.mean() / N, NONE])
)

GRID = np.linspace(-1, 1, N) + 0.5
STUDENT = {"mu": "real", "sigma": "positive", "df": "positive"}


@likelihood(
    "separated",
    "light_tails",
    STUDENT,
    (GRID,),
    ((0.0, 1.0, 5.0), (1.0, 0.5, 2.0), (0.5, 0.7, 30.0)),
)
def student(q, d):
    half = (q[2] + 1) / 2
    z = (d[0] - q[0]) / q[1]
    constant = gammaln(half) - gammaln(q[2] / 2) - 0.5 * jnp.log(q[2] * jnp.pi) - jnp.log(q[1])
    return constant - half * jnp.log1p(z**2 / q[2])


answers("light_tails")(
    at_status("SEPARATED", [0.5, GRID.std(), np.inf], [GRID.var() / N, GRID.var() / (2 * N), NONE])
)

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
