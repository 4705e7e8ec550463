"""The record of ``mean_br``, its roads, and what it refuses; its numbers are compared with brglm2 in tests/reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, special

import jaxmle as jm
from jaxmle.inference.diagnostics.bias_reduction import mean_br
from jaxmle.inference.profiles.profile import profile
from jaxmle.likelihood.information.bias import jeffreys
from jaxmle.solvers.status import Status
from tests.marks import thorough_but_for

RNG = np.random.default_rng(4)
X = np.column_stack([np.ones(20), RNG.normal(size=20), RNG.normal(size=20)])
Y = (RNG.uniform(size=(4, 20)) < special.expit(X @ [0.2, 1.0, 0.0])).astype(float)
Y[3] = X[:, 1] > 0
LOGIT = jm.regression(
    lambda eta, row: row["y"] * eta["mu"] - jnp.logaddexp(0.0, eta["mu"]),
    {"mu": jm.linear("x", "beta")},
    response=jm.exact(
        lambda eta, row: jax.nn.sigmoid(eta["mu"]) * jax.nn.sigmoid(-eta["mu"]),
        cross=lambda eta, row: 0.0,
    ),
)
START = {"beta": np.zeros(3)}


def firth_score(beta, y, x=X):
    mu = special.expit(x @ beta)
    w = mu * (1 - mu)
    h = w * np.einsum("ia,ab,ib->i", x, np.linalg.inv(x.T @ (w[:, None] * x)), x)
    return (y - mu + h * (0.5 - mu)) @ x


@pytest.mark.thorough
def test_a_batch_by_vmap_solves_each_members_equation():
    with jax.enable_x64(True):
        fits = jax.vmap(lambda y: mean_br(LOGIT, START, {"x": X, "y": y}))(jnp.asarray(Y))
    assert np.all(np.asarray(fits.converged)) and fits.mode == "BR (mean)"
    for i in range(4):
        assert_allclose(firth_score(np.asarray(fits.x[i]), Y[i]), 0.0, atol=1e-8)


def test_the_record_can_be_read_and_kept(tmp_path):
    data = {"x": X, "y": Y[0]}
    fit = mean_br(LOGIT, START, data)
    assert (
        isinstance(fit.x, np.ndarray) and fit.x.dtype == np.float64 and fit.vcov_kind == "expected"
    )
    at = jm.evaluate(LOGIT, fit.params, data)
    assert_allclose(fit.loglik, at.value, rtol=1e-12)
    assert_allclose(fit.score, at.score, rtol=1e-9, atol=1e-12)
    assert_allclose(
        fit.vcov, np.linalg.inv(jm.information(LOGIT, "expected")(fit.params, data)), rtol=1e-9
    )
    fit.save(tmp_path / "fit.npz")
    assert_allclose(jm.Fit.load(tmp_path / "fit.npz").x, fit.x, rtol=0)
    assert "CONVERGED" in fit.summary() and np.all(np.isfinite(fit.interval()))


@pytest.mark.thorough
def test_weights_repeat_rows_and_what_is_held_stays():
    w = np.arange(20) % 3 + 0.0
    again = np.repeat(np.arange(20), w.astype(int))
    fit = mean_br(LOGIT, START, {"x": X, "y": Y[0]}, weights=jm.frequency(w))
    assert_allclose(firth_score(fit.x, Y[0][again], X[again]), 0.0, atol=1e-8)
    assert fit.n == w.sum()
    held = mean_br(jm.fix(LOGIT, {"beta[0]": 0.0}), START, {"x": X, "y": Y[0]})
    assert held.x[0] == 0 and np.isnan(held.se[0]) and held.df == 2
    assert_allclose(firth_score(held.x[1:], Y[0], X[:, 1:]), 0.0, atol=1e-8)


def test_failures_are_told():
    twice = {"x": X[:, [0, 1, 1]], "y": Y[0]}
    singular = mean_br(LOGIT, START, twice)
    assert singular.verdict in (Status.NONFINITE, Status.STALLED) and np.all(np.isnan(singular.se))
    early = mean_br(LOGIT, START, {"x": X, "y": Y[3]}, max_steps=1)
    assert (
        early.verdict is Status.MAX_STEPS
        and np.all(np.isnan(early.se))
        and np.all(np.isfinite(early.x))
    )


def test_what_it_refuses():
    data = {"x": X, "y": Y[0]}

    def plain(params, data):
        return LOGIT(params, data)

    for loglik, options, said in [
        (plain, {}, "needs the distribution of the response"),
        (jeffreys(LOGIT), {}, "a penalised likelihood is"),
        (LOGIT, {"weights": jm.sampling(np.ones(20))}, "sampling weights"),
        (LOGIT, {"max_steps": -1}, "max_steps must be"),
        (jm.fix(LOGIT, {"beta": 0.0}), {}, "every parameter is fixed"),
    ]:
        with pytest.raises(ValueError, match=said):
            mean_br(loglik, START, data, **options)
    with pytest.raises(ValueError, match="params0 is missing"):
        mean_br(LOGIT, None, data)
    with pytest.raises(TypeError, match="bool"):
        mean_br(LOGIT, {"beta": np.zeros(3, bool)}, data)


def test_the_profile_of_a_separated_sample_is_that_of_the_penalised_likelihood():
    """Both ends are finite where the likelihood has no maximum: Heinze & Schemper (2002), Statistics in Medicine 21."""
    x, y = X[:, :2], Y[3]
    data, penalised = {"x": x, "y": y}, jeffreys(LOGIT)
    fit = jm.fit(penalised, {"beta": np.zeros(2)}, data)

    def along(slope):
        def minus(intercept):
            eta = intercept + slope * x[:, 1]
            w = special.expit(eta) * special.expit(-eta)
            return (
                -np.sum(y * eta - np.logaddexp(0, eta))
                - 0.5 * np.linalg.slogdet(x.T @ (w[:, None] * x))[1]
            )

        return -optimize.minimize_scalar(minus, bracket=(-1, 1), tol=1e-10).fun

    def gap(slope):
        return 2 * (fit.loglik - along(slope)) - special.chdtri(1, 0.05)

    ends = [optimize.brentq(gap, 0.0, fit.x[1]), optimize.brentq(gap, fit.x[1], 60.0)]
    assert_allclose(profile(penalised, fit, data).conf_int()["beta"][1], ends, rtol=1e-6)


COUNTS = RNG.poisson(np.exp(X @ [0.5, 0.3, 0.0])).astype(float)
CLASSES = RNG.integers(0, 3, size=20).astype(float)
READY = {
    "logistic": (jm.models.logistic(), Y[0], np.arange(2.0)),
    "probit": (jm.models.probit(), Y[0], np.arange(2.0)),
    "cloglog": (jm.models.cloglog(), Y[0], np.arange(2.0)),
    "poisson": (jm.models.poisson(), COUNTS, np.arange(60.0)),
    "multinomial": (jm.models.multinomial(3), CLASSES, np.arange(3.0)),
}


@pytest.mark.parametrize("name", thorough_but_for(READY, "logistic", "poisson", "multinomial"))
def test_ready_models_bring_the_moments_that_the_bias_needs(name):
    """The closed moments equal the sum over all values of the response."""
    model, y, values = READY[name]
    data = {"x": X, "y": y}
    fit = mean_br(model, data=data)
    assert fit.converged
    counted = jm.with_response(model.likelihood, jm.enumeration("y", values))
    assert_allclose(
        jm.cox_snell(model)(fit.params, data)["beta"],
        jm.cox_snell(counted)(fit.params, data)["beta"],
        rtol=1e-8,
        atol=1e-12,
    )


@pytest.mark.thorough
def test_a_binomial_row_is_as_many_bernoulli_rows():
    trials = np.full(20, 3.0)
    y = np.minimum(COUNTS, 3.0)
    wide = np.repeat(X, 3, axis=0), np.concatenate([[1.0] * int(k) + [0.0] * int(3 - k) for k in y])
    for link, single in (("logit", jm.models.logistic()), ("probit", jm.models.probit())):
        grouped = mean_br(jm.models.binomial(link=link), data={"x": X, "y": y, "trials": trials})
        assert_allclose(grouped.x, mean_br(single, data={"x": wide[0], "y": wide[1]}).x, rtol=1e-7)
