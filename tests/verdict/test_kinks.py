"""Likelihoods with kinks: the maximum is where the score jumps through zero. The oracles are medians, SciPy's linear
programs and closed forms.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize

import jaxmle as jm
from jaxmle import Status, families
from tests.verdict.answers import assert_fit

TO_THE_ORACLE = (
    1e-9  # of a standard error: kinks are found to rounding, the linear program to 1e-10
)


def laplace(t, y):
    return -jnp.abs(y - t[0]) / jnp.exp(t[1]) - t[1] - jnp.log(2.0)


def sample(seed, n, unit=1.0):
    return unit * np.random.default_rng(seed).laplace(2.0, 1.5, n)


def moments(y):
    """The median and the mean distance from it."""
    median = np.median(y)
    return median, np.mean(np.abs(y - median))


def quantile_line(design, y, level):
    """The regression quantile and its check loss, by SciPy's linear program."""
    n, k = design.shape
    cost = np.concatenate([np.zeros(2 * k), np.full(n, level), np.full(n, 1 - level)])
    equal = np.hstack([design, -design, np.eye(n), -np.eye(n)])
    found = optimize.linprog(cost, A_eq=equal, b_eq=y, method="highs-ds")
    return found.x[:k] - found.x[k : 2 * k], found.fun


def check_loss(residual, level):
    return jnp.where(residual > 0, level, level - 1.0) * residual


@pytest.mark.parametrize("n", [31, 30])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_laplace_family_has_its_median_in_any_unit(unit, n):
    y = sample(5, n, unit)
    median, scale = moments(y)
    fit = jm.fit(families.laplace, data=y)
    assert_fit(fit, "CONVERGED", se=np.full(2, scale / np.sqrt(n)))
    assert_allclose(fit.x, [median, scale], rtol=0, atol=TO_THE_ORACLE * scale / np.sqrt(n))
    assert "kink" in fit.explain()
    assert ("flat between two kinks" in fit.explain()) == (n == 30)


def in_a_loop(t, y):
    return jax.lax.scan(lambda total, v: (total + laplace(t, v), None), 0.0 * t[0], y)[0]


FORMS = {"terms": laplace, "sum": lambda t, y: jnp.sum(laplace(t, y)), "scan": in_a_loop}


@pytest.mark.parametrize("n", [31, 30])
@pytest.mark.parametrize("form", FORMS)
def test_a_laplace_law_of_ones_own_has_its_median_in_any_form(form, n):
    y = sample(1, n)
    median, scale = moments(y)
    fit = jm.fit(FORMS[form], np.array([y[0], 0.0]), y)
    assert_fit(fit, "CONVERGED", se=[np.nan, n**-0.5])
    assert_allclose(fit.x, [median, np.log(scale)], rtol=0, atol=TO_THE_ORACLE * n**-0.5)
    assert "no standard error" in fit.explain()


def test_tied_data_have_their_median():
    y = np.round(sample(0, 31))
    median, scale = moments(y)
    fit = jm.fit(laplace, np.array([0.3, 0.0]), y)
    assert_fit(fit, "CONVERGED", x=[median, np.log(scale)], atol=1e-9)


def test_a_batch_and_a_trace_find_the_same_kinks():
    rows = np.stack([sample(seed, 31) for seed in range(4)])
    right = np.array([moments(y) for y in rows])
    right[:, 1] = np.log(right[:, 1])
    batch = jm.fit_batch(laplace, np.array([1.0, 0.0]), rows, progress=False)
    assert [str(status) for status in batch.status] == ["CONVERGED"] * 4
    assert_allclose(batch.x, right, rtol=0, atol=1e-9)
    assert_allclose(batch.se[:, 1], 31**-0.5, rtol=1e-9)
    with jax.enable_x64(True):
        start = jnp.array([1.0, 0.0])
        traced = jax.jit(jax.vmap(lambda y: jm.fit(laplace, start, y)))(rows)
        assert np.all(np.asarray(traced.status) == int(jm.Status.CONVERGED))
        assert_allclose(traced.x, right, rtol=0, atol=1e-9)


@pytest.mark.thorough
def test_a_batch_and_a_trace_of_the_laplace_family_have_its_standard_errors():
    rows = np.stack([sample(seed, 31) for seed in range(3)])
    scale = np.array([moments(y)[1] for y in rows])
    right = np.stack([scale, scale], axis=1) / np.sqrt(31)
    batch = jm.fit_batch(families.laplace, None, rows, progress=False)
    assert_allclose(batch.se, right, rtol=1e-9)
    start = {"loc": 1.0, "scale": 1.0}

    def fitted(y):
        return jm.fit(families.laplace, start, y, constraints={"scale": jm.positive})

    with jax.enable_x64(True):
        traced = jax.jit(jax.vmap(fitted))(rows)
        assert np.all(np.asarray(traced.status) == int(jm.Status.CONVERGED))
        assert_allclose(traced.se, right, rtol=1e-9)


@pytest.mark.thorough
def test_the_derivative_of_a_fit_at_a_kink_is_not_claimed():
    """The implicit function theorem asks for a root of a smooth score."""
    with jax.enable_x64(True):
        slope = jax.jacrev(lambda y: jm.fit(laplace, jnp.zeros(2), y).params)(sample(0, 7))
    assert np.all(np.isnan(slope))


def test_no_kink_is_sought_where_the_program_has_none(monkeypatch):
    """Neither under a trace nor in a batch the search is even traced; alone neither."""

    def refuse(*_):
        raise AssertionError("a kink is sought")

    monkeypatch.setattr("jaxmle.fitting.passes.seek_kink", refuse)
    monkeypatch.setattr("jaxmle.fitting.one_loop.seek_kink", refuse)
    monkeypatch.setattr("jaxmle.batch.chunks.solver.begin_search", refuse)
    x = np.linspace(-1.0, 1.0, 12)
    separated = (x > 0) * 1.0

    def logit(t, y):
        return y * t[0] * x - jnp.logaddexp(0.0, t[0] * x)

    assert jm.fit(logit, np.zeros(1), separated).verdict.name == "SEPARATED"
    jm.fit_batch(logit, np.zeros(1), np.stack([separated, 1.0 - separated]), progress=False)
    jax.eval_shape(lambda y: jm.fit(logit, jnp.zeros(1), y).status, separated)
    with pytest.raises(AssertionError, match="a kink is sought"):
        jax.eval_shape(lambda y: jm.fit(laplace, jnp.zeros(2), y).status, x)


@pytest.mark.parametrize("level", [0.5, 0.3])
@pytest.mark.parametrize("columns", [3, 5])
def test_regression_quantiles_are_the_vertices_of_the_linear_program(columns, level):
    rng = np.random.default_rng(columns)
    design = np.column_stack([np.ones(61), rng.normal(size=(61, columns - 1))])
    y = design @ rng.normal(size=columns) + rng.laplace(size=61)
    right, loss = quantile_line(design, y, level)

    def bare(t, d):
        return -check_loss(d[1] - d[0] @ t, level)

    def with_scale(t, d):
        return -check_loss(d[1] - d[0] @ t[:-1], level) / jnp.exp(t[-1]) - t[-1]

    fit = jm.fit(bare, np.zeros(columns), (design, y))
    assert_fit(fit, "CONVERGED", x=right, loglik=-loss, atol=1e-9)
    fit = jm.fit(with_scale, np.zeros(columns + 1), (design, y))
    assert_fit(fit, "CONVERGED", x=[*right, np.log(loss / 61)], atol=1e-9)
    assert_allclose(fit.se[-1], 61**-0.5, rtol=1e-6)


def test_a_line_of_a_curved_median_passes_through_data():
    """y = exp(a + bx): at the maximum the curve passes through two points, which no derivative shows."""
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 2, size=40)
    y = np.exp(0.3 + 0.8 * x) + rng.laplace(size=40)

    def loss(t):
        return np.sum(np.abs(y - np.exp(t[0] + t[1] * x)))

    fit = jm.fit(lambda t, d: -jnp.abs(d[1] - jnp.exp(t[0] + t[1] * d[0])), np.zeros(2), (x, y))
    assert_fit(fit, "CONVERGED")
    assert np.sum(np.abs(y - np.exp(fit.x[0] + fit.x[1] * x)) < 1e-8) == 2
    starts = np.random.default_rng(0).normal([0.3, 0.8], 0.3, size=(20, 2))
    options = {"xatol": 1e-10, "fatol": 1e-12}
    ends = [optimize.minimize(loss, s, method="Nelder-Mead", options=options) for s in starts]
    assert loss(fit.x) <= min(end.fun for end in ends) + 1e-9


def test_censored_laplace_observations():
    """The maximum lies at a value that was observed, or at a censoring point; the oracle tries all of them."""
    y = np.random.default_rng(4).laplace(40.0, 30.0, 81)
    seen = y < 60.0
    y = np.minimum(y, 60.0)

    def minus(loc, log_scale):
        z = (y - loc) / np.exp(log_scale)
        density = -np.abs(z) - log_scale - np.log(2)
        tail = np.where(z < 0, np.log1p(-0.5 * np.exp(np.minimum(z, 0))), -z - np.log(2))
        return -np.sum(np.where(seen, density, tail))

    def profile(loc):
        return optimize.minimize_scalar(lambda s: minus(loc, s), bounds=(1, 6), method="bounded")

    best = min(y, key=lambda loc: profile(loc).fun)
    right = optimize.minimize_scalar(
        lambda s: minus(best, s), bounds=(1, 6), method="bounded", options={"xatol": 1e-10}
    )

    def terms(t, d):
        z = (d[0] - t[0]) / jnp.exp(t[1])
        near = jnp.where(z < 0, z, 0.0)
        tail = jnp.where(z < 0, jnp.log1p(-0.5 * jnp.exp(near)), -z - jnp.log(2.0))
        return jnp.where(d[1], -jnp.abs(z) - t[1] - jnp.log(2.0), tail)

    fit = jm.fit(terms, np.array([30.0, 3.0]), (y, seen))
    assert_fit(fit, "CONVERGED", x=[best, right.x], loglik=-right.fun)


def test_the_hinge_of_a_support_vector_machine():
    """The dual problem by SciPy: some margins are exactly one, the others' multipliers 0 or 1."""
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    sign = np.sign(design @ [0.3, 1.0, -1.0] + rng.normal(size=60))

    def dual(a):
        w = design.T @ (a * sign)
        return 0.5 * w @ w - a.sum(), sign * (design @ w) - 1

    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 10_000, "maxfun": 100_000}
    found = optimize.minimize(
        dual, np.full(60, 0.5), jac=True, bounds=[(0, 1)] * 60, method="L-BFGS-B", options=options
    )

    def loglik(t, d):
        hinge = jnp.maximum(0.0, 1.0 - d[1] * (d[0] @ t))
        return -jnp.sum(hinge) - 0.5 * jnp.sum(t**2)

    fit = jm.fit(loglik, np.zeros(3), (design, sign))
    assert_fit(fit, "CONVERGED", x=design.T @ (found.x * sign), atol=1e-7)


def test_a_lasso_that_holds_a_coefficient_at_zero():
    """With an orthogonal design each coefficient is soft-thresholded."""
    rng = np.random.default_rng(0)
    design, _ = np.linalg.qr(rng.normal(size=(50, 3)))
    y = design @ [6.0, 0.5, -4.0] + rng.normal(size=50)
    least_squares = design.T @ y
    right = np.sign(least_squares) * np.maximum(np.abs(least_squares) - 1.5, 0)
    assert np.sum(right == 0) == 1

    def loglik(t, d):
        return -0.5 * jnp.sum((d[1] - d[0] @ t) ** 2) - 1.5 * jnp.sum(jnp.abs(t))

    fit = jm.fit(loglik, np.full(3, 0.2), (design, y))
    assert_fit(fit, "CONVERGED", x=right, se=np.where(right == 0, np.nan, 1.0), atol=1e-9)


def least_maximum(design, y):
    """The least largest residual of a line, by SciPy's linear program."""
    n, k = design.shape
    sides = np.vstack([np.hstack([s * design, -np.ones((n, 1))]) for s in (1, -1)])
    cost = np.append(np.zeros(k), 1.0)
    bounds = [(None, None)] * (k + 1)
    return optimize.linprog(cost, A_ub=sides, b_ub=np.append(y, -y), bounds=bounds).fun


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_what_is_called_the_least_largest_residual_is_it(seed):
    """Where several maxima meet, jumps do not add up: at seeds 1 and 6 shares between 0 and 1 of each
    do not prove a maximum.
    """
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(20), rng.normal(size=(20, 2))])
    y = design @ rng.normal(size=3) + rng.uniform(-1, 1, size=20)
    fit = jm.fit(lambda t, d: -jnp.max(jnp.abs(d[1] - d[0] @ t)), np.zeros(3), (design, y))
    right = abs(fit.loglik + least_maximum(design, y)) < 1e-9
    assert (fit.verdict.name == "CONVERGED") == right
    assert right == (seed == 0)


def jumps_down(t, y):
    """Rises to 2, where ℓ itself falls by one."""
    return jnp.sum(jnp.where(t[0] < 2.0, 3.0 * t[0], 1.0 - t[0])) + 0.0 * jnp.sum(y)


def steps(t, y):
    """A parabola less steps that its score does not see."""
    return -0.5 * jnp.sum((y - t[0]) ** 2) + 5.0 * jnp.floor(7.0 * t[0])


def valley(t, y):
    """A kink that opens upwards is no maximum."""
    return jnp.sum(jnp.minimum(jnp.abs(t[0]), 1e6)) + 0.0 * jnp.sum(y)


def rough(t, y):
    """A parabola with ripples as close as the digits of its parameter."""
    return -0.5 * jnp.sum((y - t[0]) ** 2) + 1e-3 * jnp.sin(1e15 * t[0])


@pytest.mark.parametrize("loglik", [jumps_down, steps, valley, rough])
@pytest.mark.parametrize("start", [0.0, 1.3, 2.0, 2.5])
def test_what_is_discontinuous_rough_or_a_valley_is_no_kink(loglik, start):
    y = np.random.default_rng(0).normal(2.1, 1.0, 25)
    fit = jm.fit(loglik, np.array([start]), y)
    assert "kink" not in fit.explain()
    assert loglik in (steps, rough) or fit.verdict.name != "CONVERGED"


def test_hinges_that_separate_leave_the_estimate_open():
    """Beyond the margin the loss is zero for ever: there is no kink on the far side."""
    x = np.array([-2.0, -1.0, 1.5, 3.0])
    sign = np.sign(x)
    fit = jm.fit(
        lambda t, d: -jnp.maximum(0.0, 1.0 - d[1] * d[0] * t[0]), np.array([0.1]), (x, sign)
    )
    assert fit.verdict.name != "CONVERGED"


def test_a_declared_median_regression_stalled_in_a_batch():
    """Its designs are stored by columns there; asked with those, its program showed no kink."""
    rng = np.random.default_rng(1)
    x = np.stack([np.ones((4, 21)), rng.normal(size=(4, 21))], axis=2)
    y = x @ [1.0, 2.0] + rng.laplace(size=(4, 21))
    median = jm.regression(
        lambda eta, row: -jnp.abs(row["y"] - eta["m"]) - jnp.log(2.0),
        {"m": jm.linear("x", "beta")},
    )
    start = {"beta": np.zeros(2)}
    fits = jm.fit_batch(median, start, {"x": x, "y": y})
    for member in range(4):
        alone = jm.fit(median, start, {"x": x[member], "y": y[member]})
        assert fits[member].verdict == alone.verdict == jm.Status.CONVERGED
        assert_allclose(fits[member].x, alone.x, rtol=1e-12)


def _loss(z, level):
    """The check function in the ways in which it is written."""
    return {
        "comparison": z * (level - (z < 0)),
        "choice": jnp.where(z < 0, z * (level - 1), z * level),
        "absolute": 0.5 * (jnp.abs(z) + (2 * level - 1) * z),
        "maximum": jnp.maximum(z * (level - 1), z * level),
    }


@pytest.mark.parametrize("form", ["comparison", "choice", "absolute", "maximum"])
@pytest.mark.parametrize("start", [[0.0, 0.0], [3.0, 1.0]])
def test_a_quantile_by_a_comparison_stalled(form, start):
    """An asymmetric Laplace law: the order statistic, and the mean loss around it."""
    y = np.random.default_rng(1).gumbel(size=51) * 2 + 1
    right = np.sort(y)[38]
    z = y - right

    def loglik(theta, y):
        z = (y - theta[0]) / jnp.exp(theta[1])
        return jnp.log(0.75 * 0.25) - theta[1] - _loss(z, 0.75)[form]

    fit = jm.fit(loglik, np.array(start), y)
    assert fit.verdict == Status.CONVERGED, fit.explain()
    assert_allclose(fit.x, [right, np.log(np.mean(z * (0.75 - (z < 0))))], rtol=1e-9)
