"""The likelihoods of ``many_hands`` that are regular or separated, with their answers; ``many_limits`` adds the others."""

import jax.numpy as jnp
import mpmath
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from scipy import optimize, special

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
