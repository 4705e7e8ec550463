"""Every fit that says CONVERGED, against sixty-digit arithmetic: random data, random sizes and units, two ways of writing each likelihood.

A likelihood is written once over a namespace of functions; jax runs it for the fit, mpmath for the oracle. At the estimate mpmath takes the
score and the Hessian by central differences (h = 1e-20 at 60 digits leaves 1e-19 relative), one exact Newton step from there says how far the
maximum is, and the inverse information says what the standard errors are.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import jaxmle as jm
from tests.tolerances import ESTIMATE_IN_SE, LOGLIK, STDERR

DIGITS = 60
STEP = mpmath.mpf(10) ** -20
DRAWS = 11  # of each likelihood and form: 20 × 2 × 11 = 440 problems
SOUND = 0.9  # share of the problems that must be CONVERGED; the others are separated, on a bound or too small

IN_JAX = SimpleNamespace(
    exp=jnp.exp,
    log=jnp.log,
    log1p=jnp.log1p,
    cos=jnp.cos,
    lgamma=jax.scipy.special.gammaln,
    log_ndtr=jm.special.log_ndtr,
    log_i0=lambda x: jnp.log(jax.scipy.special.i0e(x)) + x,
    where=jnp.where,
)
IN_MPMATH = SimpleNamespace(
    exp=mpmath.exp,
    log=mpmath.log,
    log1p=mpmath.log1p,
    cos=mpmath.cos,
    lgamma=mpmath.loggamma,
    log_ndtr=lambda x: mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2),
    log_i0=lambda x: mpmath.log(mpmath.besseli(0, x)),
    where=lambda condition, a, b: a if condition else b,
)


def normal(f, y, x, mean, sd):
    return -0.5 * ((y - mean) / sd) ** 2 - f.log(sd)


def normal_line(f, y, x, a, b, sd):
    return normal(f, y, x, a + b * x, sd)


def exponential(f, y, x, a, b):
    return -(a + b * x) - y * f.exp(-(a + b * x))


def poisson(f, y, x, a, b):
    return y * (a + b * x) - f.exp(a + b * x) - f.lgamma(y + 1)


def logistic(f, y, x, a, b):
    return y * (a + b * x) - f.log1p(f.exp(a + b * x))


def probit(f, y, x, a, b):
    return f.log_ndtr((2 * y - 1) * (a + b * x))


def gamma(f, y, x, shape, rate):
    return shape * f.log(rate) - f.lgamma(shape) + (shape - 1) * f.log(y) - rate * y


def weibull(f, y, x, shape, scale):
    z = f.log(y) - f.log(scale)
    return f.log(shape) + shape * z - f.log(y) - f.exp(shape * z)


def lognormal(f, y, x, mean, sd):
    return normal(f, f.log(y), x, mean, sd) - f.log(y)


def negative_binomial(f, y, x, mean, size):
    return (
        f.lgamma(y + size) - f.lgamma(size) - f.lgamma(y + 1)
        - size * f.log1p(mean / size) + y * (f.log(mean) - f.log(mean + size))
    )  # fmt: skip


def beta(f, y, x, a, b):
    norm = f.lgamma(a + b) - f.lgamma(a) - f.lgamma(b)
    return norm + (a - 1) * f.log(y) + (b - 1) * f.log1p(-y)


def student(f, y, x, mean, scale):
    return -f.log(scale) - 2.5 * f.log1p(((y - mean) / scale) ** 2 / 4)


def gumbel(f, y, x, mean, scale):
    z = (y - mean) / scale
    return -f.log(scale) - z - f.exp(-z)


def inverse_gaussian(f, y, x, mean, shape):
    return 0.5 * f.log(shape) - 1.5 * f.log(y) - shape * (y - mean) ** 2 / (2 * mean**2 * y)


def tobit(f, y, x, a, b, sd):
    inside = normal(f, y, x, a + b * x, sd)
    return f.where(y > 0, inside, f.log_ndtr(-(a + b * x) / sd))


def truncated_poisson(f, y, x, mean):
    return y * f.log(mean) - mean - f.lgamma(y + 1) - f.log(1 - f.exp(-mean))


def zero_inflated(f, y, x, mean, odds):
    zero = f.log(odds + f.exp(-mean))
    return f.where(y > 0, y * f.log(mean) - mean - f.lgamma(y + 1), zero) - f.log1p(odds)


def von_mises(f, y, x, direction, concentration):
    return concentration * f.cos(y - direction) - f.log_i0(concentration)


def growth(f, y, x, top, rate, sd):
    return normal(f, y, x, top * (1 - f.exp(-rate * (x + 3))), sd)


def geometric(f, y, x, odds):
    return f.log(odds) - (y + 1) * f.log1p(odds)


def counts_of(draw):
    return lambda rng, x, scale: draw(rng, x).astype(float)


# name: (term, which parameters are positive, start, response from (generator, x, unit))
POSITIVE = 1
FREE = 0
PROBLEMS = {
    "normal": (normal, (FREE, POSITIVE), lambda u: (0.0, u), lambda g, x, u: u * g.normal(1, 2, x.size)),
    "normal line": (normal_line, (FREE, FREE, POSITIVE), lambda u: (0.0, 0.0, u), lambda g, x, u: u * (x + g.normal(size=x.size))),
    "exponential": (exponential, (FREE, FREE), lambda u: (np.log(u), 0.0), lambda g, x, u: u * g.exponential(np.exp(x / 2))),
    "poisson": (poisson, (FREE, FREE), lambda u: (0.0, 0.0), counts_of(lambda g, x: g.poisson(np.exp(1 + x / 2)))),
    "logistic": (logistic, (FREE, FREE), lambda u: (0.0, 0.0), counts_of(lambda g, x: g.random(x.size) < 0.5)),
    "probit": (probit, (FREE, FREE), lambda u: (0.0, 0.0), counts_of(lambda g, x: g.random(x.size) < 0.5)),
    "gamma": (gamma, (POSITIVE, POSITIVE), lambda u: (1.0, 1 / u), lambda g, x, u: u * g.gamma(2.5, size=x.size)),
    "weibull": (weibull, (POSITIVE, POSITIVE), lambda u: (1.0, u), lambda g, x, u: u * g.weibull(1.7, x.size)),
    "lognormal": (lognormal, (FREE, POSITIVE), lambda u: (np.log(u), 1.0), lambda g, x, u: u * g.lognormal(0, 0.6, x.size)),
    "negative binomial": (negative_binomial, (POSITIVE, POSITIVE), lambda u: (2.0, 2.0), counts_of(lambda g, x: g.poisson(g.gamma(0.7, 6.0, x.size)))),
    "beta": (beta, (POSITIVE, POSITIVE), lambda u: (1.0, 1.0), lambda g, x, u: g.beta(2.0, 3.0, x.size)),
    "student": (student, (FREE, POSITIVE), lambda u: (0.0, u), lambda g, x, u: u * g.normal(size=x.size)),
    "gumbel": (gumbel, (FREE, POSITIVE), lambda u: (0.0, u), lambda g, x, u: u * g.gumbel(size=x.size)),
    "inverse gaussian": (inverse_gaussian, (POSITIVE, POSITIVE), lambda u: (u, u), lambda g, x, u: u * g.wald(1.0, 2.0, x.size)),
    "tobit": (tobit, (FREE, FREE, POSITIVE), lambda u: (0.0, 0.0, u), lambda g, x, u: u * np.maximum(0.5 + x + g.normal(size=x.size), 0)),
    "truncated poisson": (truncated_poisson, (POSITIVE,), lambda u: (1.5,), counts_of(lambda g, x: 1 + g.poisson(1.5, x.size))),
    "zero inflated": (zero_inflated, (POSITIVE, POSITIVE), lambda u: (2.0, 0.5), counts_of(lambda g, x: g.poisson(3.0, x.size) * (g.random(x.size) < 0.6))),
    "von mises": (von_mises, (FREE, POSITIVE), lambda u: (0.0, 1.0), lambda g, x, u: g.vonmises(0.5, 1.5, x.size)),
    "growth": (growth, (FREE, POSITIVE, POSITIVE), lambda u: (u, 0.5, u / 4), lambda g, x, u: u * (2 * (1 - np.exp(-0.4 * (x + 3))) + 0.1 * g.normal(size=x.size))),
    "geometric": (geometric, (POSITIVE,), lambda u: (1.0,), counts_of(lambda g, x: g.geometric(0.3, x.size) - 1)),
}  # fmt: skip
SIZES = (12, 30)
UNITS = (1.0, 1e-3, 1e4)


def declared(term, signs):
    """A dictionary of parameters with constraints, one term a row."""
    names = [f"p{j}" for j in range(len(signs))]

    def loglik(params, data):
        return term(IN_JAX, data["y"], data["x"], *(params[name] for name in names))

    bounds = {name: jm.positive for name, sign in zip(names, signs, strict=True) if sign}
    return loglik, lambda values: dict(zip(names, values, strict=True)), bounds or None


def bare(term, signs):
    """One vector theta, with exp written inside."""

    def loglik(theta, data):
        values = [
            jnp.exp(theta[j]) if sign == POSITIVE else theta[j] for j, sign in enumerate(signs)
        ]
        return term(IN_JAX, data["y"], data["x"], *values)

    def start(values):
        return np.array([np.log(v) if s else v for v, s in zip(values, signs, strict=True)])

    return loglik, start, None


def in_mpmath(term, signs, form, data):
    """ℓ over exact numbers, in the coordinates of the fit."""
    rows = [(mpmath.mpf(float(y)), mpmath.mpf(float(x))) for y, x in zip(*data, strict=True)]

    def loglik(point):
        values = [
            mpmath.exp(v) if form is bare and sign else v
            for v, sign in zip(point, signs, strict=True)
        ]
        return mpmath.fsum(term(IN_MPMATH, y, x, *values) for y, x in rows)

    return loglik


def differences(loglik, point):
    """Value, score and Hessian by central differences."""
    k = len(point)
    steps = [STEP * max(1, abs(v)) for v in point]

    def at(*moves):
        moved = list(point)
        for j, sign in moves:
            moved[j] += sign * steps[j]
        return loglik(moved)

    middle = at()
    up, down = [at((j, 1)) for j in range(k)], [at((j, -1)) for j in range(k)]
    score = mpmath.matrix([(up[j] - down[j]) / (2 * steps[j]) for j in range(k)])
    hessian = mpmath.matrix(k, k)
    for i in range(k):
        hessian[i, i] = (up[i] - 2 * middle + down[i]) / steps[i] ** 2
        for j in range(i):
            corners = sum(a * b * at((i, a), (j, b)) for a in (1, -1) for b in (1, -1))
            hessian[i, j] = hessian[j, i] = corners / (4 * steps[i] * steps[j])
    return middle, score, hessian


def problems_of(name, form, draws):
    """Fits of one likelihood in one form, each with its data."""
    term, signs, start, respond = PROBLEMS[name]
    loglik, tree, bounds = form(term, signs)
    rng = np.random.default_rng([len(name), sum(map(ord, name)), form is bare])
    for draw in range(draws):
        unit = UNITS[draw % len(UNITS)]
        x = rng.normal(size=SIZES[draw % len(SIZES)])
        y = respond(rng, x, unit)
        fit = jm.fit(loglik, tree(start(unit)), {"y": y, "x": x}, constraints=bounds)
        yield fit, in_mpmath(term, signs, form, (y, x))


def faults_of(fit, loglik):
    """What of a CONVERGED fit is outside the contract."""
    point = [mpmath.mpf(float(v)) for v in fit.x]
    value, score, hessian = differences(loglik, point)
    covariance = (-hessian) ** -1
    step = covariance * score
    errors = [mpmath.sqrt(covariance[j, j]) for j in range(len(point))]
    found = []
    for j, error in enumerate(errors):
        if mpmath.im(error) != 0 or abs(step[j]) > ESTIMATE_IN_SE * error:
            found.append(f"entry {j} is {mpmath.nstr(step[j] / error, 3)} SE from the maximum")
        elif abs(fit.se[j] / error - 1) > STDERR:
            found.append(f"SE {j} is {fit.se[j]}, not {mpmath.nstr(error, 12)}")
    if abs(fit.loglik - value) > LOGLIK * (1 + abs(value)):
        found.append(f"log-likelihood {fit.loglik}, not {mpmath.nstr(value, 15)}")
    return found


def check(name, form, draws):
    converged = 0
    with mpmath.workdps(DIGITS):
        for fit, loglik in problems_of(name, form, draws):
            if fit.converged:
                converged += 1
                assert not faults_of(fit, loglik), (fit, faults_of(fit, loglik))
    return converged


@pytest.mark.parametrize("name", ["normal line", "negative binomial", "tobit"])
def test_converged_fits_are_those_of_sixty_digits(name):
    assert check(name, bare, 3) >= 2


@pytest.mark.thorough
def test_no_converged_fit_of_440_random_problems_is_wrong():
    converged = sum(check(name, form, DRAWS) for name in PROBLEMS for form in (declared, bare))
    assert converged >= SOUND * len(PROBLEMS) * 2 * DRAWS
