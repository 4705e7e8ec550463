"""Several parameters go to infinity together while a function of them keeps a limit: laws that degenerate into laws with fewer
parameters. What is infinite, what keeps a limit, and the supremum are those of the limiting law.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, logsumexp
from jax.scipy.stats import norm
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, stats

import jaxmle as jm
from jaxmle import Status

INF = np.inf
NONE = np.nan
POSITION_IN_STDERR = 1e-3  # of what keeps a limit: a thousandth of its standard error
# of two rates that merge as 1/a while ℓ comes to its limit as 1/a²
POSITION_OF_WHAT_MERGES = 1e-2
RELATIVE_STDERR = 1e-3
# ℓ comes this near where its terms do not cancel; log-gamma functions of 1e8 leave errors of 1e-5
SUPREMUM = 2e-6
SUPREMUM_BY_LOG_GAMMAS = 2e-4
# a tail whose distance to the limit falls as 1/z, seen in z = e^20, and one as 1/√z
SUPREMUM_OF_A_SLOW_TAIL = 1e-3


class Coupled(NamedTuple):
    """A law with its data, and the limit that its parameters have."""

    terms: Any  # of the parameters, one by one, and the data
    positive: tuple[bool, ...]
    start: tuple[float, ...]
    data: Any
    limit: tuple[float, ...]  # ±∞, or 0 of what is positive, or finite
    stderr: tuple[float, ...]  # NaN: there is none
    supremum: float
    tolerance: float = SUPREMUM
    position: float = POSITION_IN_STDERR


FORMS: dict[str, Coupled] = {}


def form(make):
    """Enter the law in the table by its name."""
    FORMS[make.__name__] = make()
    return make


def maximum(loglik, start):
    """The maximum of a limiting law: (x, standard errors, ℓ), by BFGS and Newton steps."""
    with jax.enable_x64(True):
        slopes = jax.jit(jax.value_and_grad(loglik))
        hessian = jax.jit(jax.hessian(loglik))

        def minus(x):
            value, slope = slopes(x)
            return -float(value), -np.asarray(slope)

        x = optimize.minimize(minus, np.array(start), jac=True, method="BFGS").x
        for _ in range(6):
            x = x - np.linalg.solve(np.asarray(hessian(x)), np.asarray(slopes(x)[1]))
        vcov = np.linalg.inv(-np.asarray(hessian(x)))
        return x, np.sqrt(np.diag(vcov)), float(slopes(x)[0])


# ---------------------------------------------------------------- laws of lifetimes and of values

WAITS = np.minimum(np.random.default_rng(1).weibull(1.7, 80) * 2, 2.9)


def weibull(x):
    """(log shape, log scale) of WAITS."""
    z = WAITS / jnp.exp(x[1])
    shape = jnp.exp(x[0])
    return jnp.sum(x[0] - x[1] + (shape - 1) * jnp.log(z) - z**shape)


@form
def burr_twelve_to_weibull():
    x, se, top = maximum(weibull, [0.3, 0.7])
    shape = np.exp(x[0])

    def terms(c, k, s, y):
        return jnp.log(c * k / s) + (c - 1) * jnp.log(y / s) - (k + 1) * jnp.log1p((y / s) ** c)

    limit = (shape, INF, INF)
    stderr = (shape * se[0], NONE, NONE)
    return Coupled(terms, (True,) * 3, (1.5, 2.0, 2.0), WAITS, limit, stderr, top)


@form
def lomax_to_exponential():
    y = np.random.default_rng(2).gamma(2.0, 1.0, 50)

    def terms(a, s, y):
        return jnp.log(a / s) - (a + 1) * jnp.log1p(y / s)

    top = -50 * (np.log(y.mean()) + 1)
    return Coupled(terms, (True, True), (2.0, 2.0), y, (INF, INF), (NONE, NONE), top)


LIGHT = np.random.default_rng(6).uniform(-2, 3, 60)
NORMAL = stats.norm.logpdf(LIGHT, LIGHT.mean(), LIGHT.std()).sum()


@form
def student_to_normal():
    def terms(m, s, v, y):
        z = (y - m) / s
        scale = gammaln((v + 1) / 2) - gammaln(v / 2) - 0.5 * jnp.log(v * jnp.pi) - jnp.log(s)
        return scale - (v + 1) / 2 * jnp.log1p(z**2 / v)

    s = LIGHT.std()
    limit = (LIGHT.mean(), s, INF)
    stderr = (s / np.sqrt(60), s / np.sqrt(120), NONE)
    positive = (False, True, True)
    start = (0.0, 1.0, 5.0)
    return Coupled(terms, positive, start, LIGHT, limit, stderr, NORMAL, SUPREMUM_BY_LOG_GAMMAS)


@form
def pearson_seven_to_normal():
    def terms(m, a, q, y):
        scale = gammaln(q) - gammaln(q - 0.5) - 0.5 * jnp.log(jnp.pi) - jnp.log(a)
        return scale - q * jnp.log1p(((y - m) / a) ** 2)

    limit = (LIGHT.mean(), INF, INF)
    stderr = (LIGHT.std() / np.sqrt(60), NONE, NONE)
    positive = (False, True, True)
    start = (0.0, 2.0, 3.0)
    return Coupled(terms, positive, start, LIGHT, limit, stderr, NORMAL, SUPREMUM_BY_LOG_GAMMAS)


@form
def lognormal_above_a_threshold_to_normal():
    """A sample skewed to the left; the threshold goes to −∞."""
    y = 20 - np.exp(np.random.default_rng(4).normal(1, 0.3, 80))

    def terms(d, m, s, y):
        above = y - (jnp.min(y) - d)
        return norm.logpdf(jnp.log(above), m, s) - jnp.log(above)

    top = -40 * (np.log(2 * np.pi * y.var()) + 1)
    positive = (True, False, True)
    start = (3.0, 2.0, 0.4)
    limit = (INF, INF, 0.0)
    return Coupled(terms, positive, start, y, limit, (NONE,) * 3, top, SUPREMUM_OF_A_SLOW_TAIL)


@form
def hazard_of_gompertz_and_makeham_to_gompertz():
    """A sample of Gompertz's law without the smallest values: the constant hazard goes to zero."""
    u = np.random.default_rng(14).uniform(size=120)
    y = np.sort(np.log1p(-np.log(u) * 10) / 0.5)[5:]

    def gompertz(x):
        rate = jnp.exp(x[1])
        return jnp.sum(x[0] + rate * y - jnp.exp(x[0] - x[1]) * jnp.expm1(rate * y))

    def terms(a, b, c, y):
        return jnp.log(a * jnp.exp(b * y) + c) - a / b * jnp.expm1(b * y) - c * y

    x, se, top = maximum(gompertz, np.log([0.05, 0.5]))
    limit = (*np.exp(x), 0.0)
    stderr = (*(np.exp(x) * se), NONE)
    return Coupled(terms, (True,) * 3, (0.1, 0.1, 0.1), y, limit, stderr, top)


# ---------------------------------------------------------------- counts

EVEN = np.array([4, 5, 5, 6, 5, 4, 5, 6, 5, 5, 4, 6, 7, 5, 4, 5.0])
POISSON = stats.poisson.logpmf(EVEN, EVEN.mean()).sum()


@form
def negative_binomial_by_size_and_odds_to_poisson():
    def terms(r, odds, y):
        mass = gammaln(y + r) - gammaln(r) - gammaln(y + 1)
        return mass + y * jnp.log(odds) - (y + r) * jnp.log1p(odds)

    tolerance = SUPREMUM_BY_LOG_GAMMAS
    positive = (True, True)
    return Coupled(terms, positive, (3.0, 1.0), EVEN, (INF, 0.0), (NONE,) * 2, POISSON, tolerance)


@form
def gamma_mixture_of_poisson_laws_to_poisson():
    def terms(a, b, y):
        mass = gammaln(y + a) - gammaln(a) - gammaln(y + 1)
        return mass + a * jnp.log(b / (1 + b)) - y * jnp.log1p(b)

    tolerance = SUPREMUM_BY_LOG_GAMMAS
    positive = (True, True)
    return Coupled(terms, positive, (3.0, 1.0), EVEN, (INF, INF), (NONE,) * 2, POISSON, tolerance)


# ---------------------------------------------------------------- curves

T = np.linspace(0.2, 6, 30)
BENT_UP = 0.8 * T + 0.02 * T**2 + 0.1 * np.random.default_rng(15).normal(size=30)
LINE = stats.norm.logpdf(BENT_UP, T * (T @ BENT_UP) / (T @ T), 0.2).sum()
DESIGN = np.column_stack([np.ones(30), T])
ABOVE = 1 + BENT_UP
STRAIGHT = np.linalg.lstsq(DESIGN, ABOVE, rcond=None)[0]
STRAIGHT_TOP = stats.norm.logpdf(ABOVE, DESIGN @ STRAIGHT, 0.2).sum()


@form
def saturation_to_a_line():
    def terms(a, b, d):
        return norm.logpdf(d[1], -a * jnp.expm1(-b * d[0]), 0.2)

    data = (T, BENT_UP)
    return Coupled(terms, (True, True), (5.0, 0.3), data, (INF, 0.0), (NONE, NONE), LINE)


@form
def growth_of_von_bertalanffy_to_a_line():
    """The age of length zero stays, with the standard error of the line's own zero."""
    c0, c1 = STRAIGHT
    gradient = np.array([-1 / c1, c0 / c1**2])
    vcov = 0.04 * np.linalg.inv(DESIGN.T @ DESIGN)

    def terms(length, k, t, d):
        return norm.logpdf(d[1], -length * jnp.expm1(-k * (d[0] - t)), 0.2)

    limit = (INF, 0.0, -c0 / c1)
    stderr = (NONE, NONE, np.sqrt(gradient @ vcov @ gradient))
    positive = (True, True, False)
    return Coupled(terms, positive, (8.0, 0.3, -0.5), (T, ABOVE), limit, stderr, STRAIGHT_TOP)


@form
def asymptote_to_a_line():
    def terms(a, b, k, d):
        return norm.logpdf(d[1], a - b * jnp.exp(-k * d[0]), 0.2)

    limit = (INF, INF, 0.0)
    positive = (False, False, True)
    return Coupled(terms, positive, (8.0, 7.0, 0.3), (T, ABOVE), limit, (NONE,) * 3, STRAIGHT_TOP)


@form
def hill_curve_to_a_power():
    y = 0.5 * T**1.5 + 0.01 * T**2.5 + 0.05 * np.random.default_rng(9).normal(size=30)

    def power(x):
        return jnp.sum(norm.logpdf(y, jnp.exp(x[0]) * T ** jnp.exp(x[1]), 0.1))

    def terms(v, k, h, d):
        return norm.logpdf(d[1], v * d[0] ** h / (k**h + d[0] ** h), 0.1)

    x, se, top = maximum(power, np.log([0.5, 1.5]))
    limit = (INF, INF, np.exp(x[1]))
    stderr = (NONE, NONE, np.exp(x[1]) * se[1])
    return Coupled(terms, (True,) * 3, (20.0, 10.0, 1.2), (T, y), limit, stderr, top)


@form
def logistic_growth_to_exponential():
    t = np.linspace(0, 4, 25)
    y = np.exp(0.3 + 0.5 * t + 0.01 * t**2) + 0.05 * np.random.default_rng(11).normal(size=25)

    def exponential(x):
        return jnp.sum(norm.logpdf(y, jnp.exp(x[0] + jnp.exp(x[1]) * t), 0.1))

    def terms(k, p, r, d):
        return norm.logpdf(d[1], k * p / (p + (k - p) * jnp.exp(-r * d[0])), 0.1)

    x, se, top = maximum(exponential, [0.3, np.log(0.5)])
    limit = (INF, *np.exp(x))
    stderr = (NONE, *(np.exp(x) * se))
    return Coupled(terms, (True,) * 3, (30.0, 1.2, 0.7), (t, y), limit, stderr, top)


@form
def two_exponentials_that_merge():
    """Of an oscillation the best are equal rates: (A + Bt)e^−bt, with B = a₁(b₂ − b₁) = const."""
    y = np.exp(-0.7 * T) * np.cos(0.25 * T) + 0.01 * np.random.default_rng(7).normal(size=30)

    def critical(x):
        return jnp.sum(norm.logpdf(y, (x[0] + x[1] * T) * jnp.exp(-jnp.exp(x[2]) * T), 0.02))

    def terms(a, b, c, d, data):
        x, y = data
        return norm.logpdf(y, a * jnp.exp(-b * x) + c * jnp.exp(-d * x), 0.02)

    x, se, top = maximum(critical, [1.0, -0.2, np.log(0.7)])
    rate = np.exp(x[2])
    stderr = (NONE, rate * se[2], NONE, rate * se[2])
    positive = (False, True, False, True)
    start = (2.0, 1.0, -1.0, 0.5)
    limit = (INF, rate, -INF, rate)
    law = Coupled(terms, positive, start, (T, y), limit, stderr, top)
    return law._replace(position=POSITION_OF_WHAT_MERGES)


# ---------------------------------------------------------------- choices and ranks


@form
def nested_logit_whose_inner_choice_is_certain():
    """Of two alternatives in a nest always the better one: only the choice of the nest is left."""
    rng = np.random.default_rng(12)
    x = rng.normal(size=(150, 3))
    best = np.maximum(x[:, 0], x[:, 1])
    outside = 0.9 * x[:, 2] + 0.3
    stays = rng.uniform(size=150) < 1 / (1 + np.exp(outside - 0.9 * best))
    chosen = np.where(stays, np.where(x[:, 0] > x[:, 1], 0, 1), 2)

    def upper(t):
        gap = t[0] * x[:, 2] + t[1] - t[0] * best
        return jnp.sum(jax.nn.log_sigmoid(jnp.where(chosen == 2, gap, -gap)))

    def terms(slope, constant, scale, d):
        chosen, x = d
        u = slope * x
        inclusive = scale * jnp.logaddexp(u[:, 0] / scale, u[:, 1] / scale)
        other = u[:, 2] + constant
        total = jnp.logaddexp(inclusive, other)
        inner = jnp.where(chosen == 0, u[:, 0], u[:, 1]) / scale - inclusive / scale
        return jnp.where(chosen == 2, other - total, inclusive - total + inner)

    best_fit, se, top = maximum(upper, [0.5, 0.0])
    positive = (False, False, True)
    data = (chosen, x)
    return Coupled(terms, positive, (0.5, 0.0, 0.5), data, (*best_fit, 0.0), (*se, NONE), top)


# ---------------------------------------------------------------- in how many ways it is written


class Written(NamedTuple):
    """A form as it is given to ``fit``."""

    loglik: Any
    start: Any
    constraints: Any
    limit: np.ndarray
    stderr: np.ndarray


def inside(form):
    """Logarithms of what is positive in a bare vector."""
    positive = np.array(form.positive)
    limit, stderr = np.array(form.limit), np.array(form.stderr)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.where(positive, np.log(limit), limit)
        stderr = np.where(positive, stderr / limit, stderr)

    def loglik(theta, data):
        values = [jnp.exp(t) if p else t for t, p in zip(theta, positive, strict=True)]
        return form.terms(*values, data)

    start = np.where(positive, np.log(np.where(positive, form.start, 1.0)), form.start)
    return Written(loglik, start, None, logarithms, stderr)


def declared(form):
    """Named parameters, positive where they are declared so."""
    names = [f"p{i}" for i in range(len(form.start))]

    def loglik(params, data):
        return form.terms(*[params[name] for name in names], data)

    constraints = {name: jm.positive for name, p in zip(names, form.positive, strict=True) if p}
    start = dict(zip(names, form.start, strict=True))
    return Written(loglik, start, constraints, np.array(form.limit), np.array(form.stderr))


WAYS = {"inside": inside, "declared": declared}


def assert_limit(fit, written, form):
    """The fit is the limit: what is infinite, what keeps a value, its standard error and ℓ."""
    on_bound = written.constraints is not None and np.any(written.limit == 0)
    names = (Status.SEPARATED, Status.BOUNDARY) if on_bound else (Status.SEPARATED,)
    assert fit.verdict in names, fit.explain()
    x, se = np.asarray(fit.x), np.asarray(fit.se)
    finite = np.isfinite(written.limit)
    assert_array_equal(x[~finite], written.limit[~finite])
    unit = np.where(np.isnan(written.stderr), 1.0, written.stderr)[finite]
    away = (x[finite] - written.limit[finite]) / unit
    assert_allclose(away, 0, atol=form.position)
    assert_allclose(se, written.stderr, rtol=RELATIVE_STDERR)
    assert_allclose(fit.loglik, form.supremum, rtol=0, atol=form.tolerance)


# Its search goes as far at once as where utilities over e^−40 have no digits left.
NESTED = "nested_logit_whose_inner_choice_is_certain"
ROUNDED = ((NESTED, "inside"), (NESTED, "declared"))
CASES = [(name, way) for name in FORMS for way in WAYS if (name, way) not in ROUNDED]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_law_that_degenerates_was_imprecise_or_had_no_finite_part(name, way):
    form = FORMS[name]
    written = WAYS[way](form)
    fit = jm.fit(written.loglik, written.start, form.data, constraints=written.constraints)
    assert_limit(fit, written, form)


@pytest.mark.parametrize("way", ["inside", "declared"])
def test_a_nested_logit_whose_limit_rounding_hides_is_not_converged(way):
    """The inner scale is at its bound, or rounding hides that it goes there; nothing is infinite."""
    form = FORMS[NESTED]
    written = WAYS[way](form)
    fit = jm.fit(written.loglik, written.start, form.data, constraints=written.constraints)
    assert not fit.converged
    assert np.isnan(fit.se[2])
    assert not np.isinf(fit.x[:2]).any()


@pytest.mark.parametrize("name", ["burr_twelve_to_weibull", "two_exponentials_that_merge"])
def test_a_scalar_likelihood_degenerates_alike(name):
    form = FORMS[name]
    written = inside(form)
    fit = jm.fit(lambda t, d: jnp.sum(written.loglik(t, d)), written.start, form.data)
    assert_limit(fit, written, form)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_other_units_degenerate_alike(unit):
    form = FORMS["burr_twelve_to_weibull"]
    written = inside(form)
    shift = np.array([0.0, 0.0, np.log(unit)])
    top = form.supremum - len(form.data) * np.log(unit)
    fit = jm.fit(written.loglik, written.start + shift, form.data * unit)
    assert_limit(fit, written, form._replace(supremum=top))


def test_under_jit_it_degenerates_alike():
    form = FORMS["burr_twelve_to_weibull"]
    written = inside(form)
    with jax.enable_x64(True):
        fit = jax.jit(lambda t, d: jm.fit(written.loglik, t, d))(written.start, form.data)
    assert_limit(jax.tree.map(np.asarray, fit), written, form)


@pytest.mark.parametrize("name", ["burr_twelve_to_weibull", "hill_curve_to_a_power"])
def test_in_a_batch_it_degenerates_alike(name):
    form = FORMS[name]
    written = inside(form)
    both = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), form.data)
    fits = jm.fit_batch(written.loglik, written.start, both, progress=False)
    assert_limit(fits[0], written, form)
    assert_limit(fits[1], written, form)


def test_zipf_mandelbrot_ranks_that_fall_geometrically_are_no_maximum():
    """Both parameters go to infinity, and cancel: rounding may hide it, a maximum there is not."""
    ranks = np.arange(1.0, 31.0)
    p = np.exp(-0.1 * ranks - 0.004 * ranks**2)
    counts = np.random.default_rng(13).multinomial(400, p / p.sum()).astype(float)

    def zipf(theta, d):
        shift, power = jnp.exp(theta)
        mass = -power * jnp.log(d[1] + shift)
        return d[0] * (mass - logsumexp(-power * jnp.log(ranks + shift)))

    for start in ([1.0, 0.7], [1.5, 1.1]):
        fit = jm.fit(zipf, np.array(start), (counts, ranks))
        assert fit.verdict in (Status.SEPARATED, Status.IMPRECISE), fit.explain()
        assert np.isnan(fit.se).all()


@pytest.mark.parametrize("start", [[0.0, 1.0, 2.0], [1.0, 2.0, 1.5], [0.5, 3.0, 1.0]])
def test_what_a_uniform_law_fixes_exactly_had_a_standard_error_of_a_millionth(start):
    """A generalised normal law of uniform data: its shape goes to +∞, its ends to the extremes."""
    y = np.random.default_rng(0).uniform(-1.0, 2.0, 80)

    def loglik(theta, y):
        centre, scale, shape = theta
        constant = jnp.log(shape) - jnp.log(2 * scale) - gammaln(1 / shape)
        return constant - (jnp.abs(y - centre) / scale) ** shape

    fit = jm.fit(loglik, np.array(start), y)
    assert fit.verdict == Status.SEPARATED, fit.explain()
    ends = [(y.max() + y.min()) / 2, (y.max() - y.min()) / 2, np.inf]
    assert_allclose(fit.x, ends, rtol=1e-6)
    assert_allclose(fit.loglik, -len(y) * np.log(2 * ends[1]), rtol=1e-9)
    assert np.isnan(fit.se).all(), fit
    sentence = "the search ended before the estimate or its standard error reached a limit"
    assert sentence in " ".join(fit.explain().split())
