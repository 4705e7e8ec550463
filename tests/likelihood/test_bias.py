"""Jeffreys's penalty and the first-order bias against closed forms; penalised profiles; Cox's partial likelihood; batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

import jaxmle as jm
from jaxmle.likelihood.information.bias import jeffreys
from jaxmle.likelihood.information.calculus import cox_snell
from tests.likelihoods import logit, probit

from .cases import BETA, BETA_SIGMA, LINEAR, LOGIT, NORMAL, N, X, declared_logit, normal

START = {"beta": np.zeros(3)}
OPAQUE = jm.with_response(logit, jm.enumeration("y", [0.0, 1.0]))
CLOSED = jm.regression(
    declared_logit.density,
    {"eta": LINEAR},
    response=jm.exact(declared_logit.response.information, cross=lambda eta, row: 0.0),
)


def logit_parts(beta, x=X, w=1.0):
    """Mean, weights, F, and the leverages of the weighted hat matrix."""
    mu = special.expit(x @ beta)
    f = x.T @ ((w * mu * (1 - mu))[:, None] * x)
    return mu, f, w * mu * (1 - mu) * np.einsum("ia,ab,ib->i", x, np.linalg.inv(f), x)


def firth_score(beta, x=X, y=LOGIT["y"]):
    """Firth (1993), eq. 3.1 for logistic regression: Σ (y − μ + h(½ − μ)) x."""
    mu, _, h = logit_parts(beta, x)
    return (y - mu + h * (0.5 - mu)) @ x


def differences(f, beta, step=1e-5):
    return np.array(
        [(f(beta + step * e) - f(beta - step * e)) / (2 * step) for e in np.eye(len(beta))]
    )


@pytest.mark.thorough
@pytest.mark.parametrize("loglik", [OPAQUE, CLOSED], ids=["enumerated", "closed"])
def test_the_penalty_is_half_the_log_determinant_with_its_derivatives(loglik):
    at = jm.evaluate(jeffreys(loglik), BETA, LOGIT)
    _, f, _ = logit_parts(BETA["beta"])
    assert_allclose(
        at.value, jm.evaluate(loglik, BETA, LOGIT).value + 0.5 * np.linalg.slogdet(f)[1], rtol=1e-12
    )
    assert_allclose(at.score, firth_score(BETA["beta"]), rtol=1e-9, atol=1e-10)
    assert_allclose(
        at.hessian, differences(firth_score, BETA["beta"]), rtol=1e-6
    )  # central differences of order step²
    assert_allclose(
        jeffreys(loglik)(BETA, LOGIT), at.value, rtol=1e-5
    )  # float32 outside the host road


@pytest.mark.parametrize("loglik", [OPAQUE, CLOSED], ids=["enumerated", "closed"])
def test_the_bias_of_a_logit_is_the_closed_one(loglik):
    """Cordeiro & McCullagh (1991): b = (X'WX)⁻¹X'Wξ, ξ_i = h_i (μ_i − ½)/w_i."""
    mu, f, h = logit_parts(BETA["beta"])
    assert_allclose(
        cox_snell(loglik)(BETA, LOGIT)["beta"],
        np.linalg.solve(f, X.T @ (h * (mu - 0.5))),
        rtol=1e-9,
    )


def test_the_bias_of_a_rate_a_mean_and_a_standard_deviation():
    """λ/n for an exponential rate, whose mean over samples is nλ/(n − 1); −(2q + 1)σ/(4n) for the σ of a regression with q columns."""
    rate = jm.regression(
        lambda eta, row: jnp.log(eta["rate"]) - eta["rate"] * row["y"],
        {"rate": "rate"},
        response=jm.exact(lambda eta, row: eta["rate"] ** -2, cross=lambda eta, row: 0.0),
    )
    assert_allclose(
        cox_snell(rate)({"rate": np.array(3.0)}, {"y": np.ones(N)})["rate"], 3.0 / N, rtol=1e-12
    )

    def cross(eta, row):
        s, zero = eta["s"], jnp.zeros((2, 2, 2))
        return zero.at[0, 1, 0].set(-2 / s**3).at[1, 0, 0].set(-2 / s**3).at[1, 1, 1].set(-6 / s**3)

    def information(eta, row):
        return jnp.diag(jnp.stack([1 / eta["s"] ** 2, 2 / eta["s"] ** 2]))

    def density(eta, row):
        return jax.scipy.stats.norm.logpdf(row["y"], eta["mu"], eta["s"])

    found = cox_snell(
        jm.regression(
            density, {"mu": LINEAR, "s": "sigma"}, response=jm.exact(information, cross=cross)
        )
    )(BETA_SIGMA, NORMAL)
    assert_allclose(found["beta"], 0.0, atol=1e-15)
    assert_allclose(found["sigma"], -7 * 1.2 / (4 * N), rtol=1e-12)
    # A predictor that is curved in its parameter: the same σ through its logarithm has the bias of log σ, b/σ − Var/(2σ²) = −(q + 1)/(2n).
    curved = jm.regression(
        density,
        {"mu": LINEAR, "s": lambda params, row: jnp.exp(params["log_sigma"])},
        response=jm.exact(information, cross=cross),
    )
    logarithm = cox_snell(curved)({**BETA, "log_sigma": np.log(1.2)}, NORMAL)["log_sigma"]
    assert_allclose(logarithm, -7 / (4 * N) - 1 / (4 * N), rtol=1e-10)


def test_simulation_comes_near_the_sum_over_the_support():
    """1 000 samples: four standard errors of the mean, from the spread over five keys."""

    def draw(key, params, data):
        return {
            **data,
            "y": jax.random.bernoulli(key, jax.nn.sigmoid(data["x"] @ params["beta"])).astype(
                float
            ),
        }

    laws = [
        jm.with_response(logit, jm.simulation(draw, key=jax.random.key(i), draws=200))
        for i in range(5)
    ]
    found = np.array([cox_snell(law)(BETA, LOGIT)["beta"] for law in laws])
    assert np.all(
        np.abs(found.mean(axis=0) - cox_snell(CLOSED)(BETA, LOGIT)["beta"])
        < 4 * found.std(axis=0, ddof=1) / np.sqrt(5) + 1e-12
    )


def test_frequency_weights_are_repeated_rows():
    w = np.arange(N) % 3 + 0.0
    again = np.repeat(np.arange(N), w.astype(int))
    rows = {key: value[again] for key, value in LOGIT.items()}
    assert_allclose(
        cox_snell(jm.weight(CLOSED, jm.frequency(w)))(BETA, LOGIT)["beta"],
        cox_snell(CLOSED)(BETA, rows)["beta"],
        rtol=1e-9,
    )
    assert_allclose(
        jm.evaluate(jm.weight(jeffreys(CLOSED), jm.frequency(w)), BETA, LOGIT).score,
        firth_score(BETA["beta"], rows["x"], rows["y"]),
        rtol=1e-9,
    )


def test_what_is_held_leaves_the_information_inside_the_penalty_but_not_outside_it():
    """fix(jeffreys(…)) is a slice of the penalised likelihood, as for its profile; jeffreys(fix(…)) is a smaller model."""
    held = {"beta[1]": 0.5}
    outside, inside = (
        jm.evaluate(jm.fix(jeffreys(CLOSED), held), BETA, LOGIT),
        jm.evaluate(jeffreys(jm.fix(CLOSED, held)), BETA, LOGIT),
    )
    _, f, _ = logit_parts(BETA["beta"])
    loglik = jm.evaluate(CLOSED, BETA, LOGIT).value
    assert_allclose(outside.value, loglik + 0.5 * np.linalg.slogdet(f)[1], rtol=1e-12)
    assert_allclose(
        inside.value, loglik + 0.5 * np.linalg.slogdet(f[np.ix_([0, 2], [0, 2])])[1], rtol=1e-12
    )
    assert_allclose(
        outside.score, np.where([True, False, True], firth_score(BETA["beta"]), 0.0), rtol=1e-9
    )
    held_fit = jm.fit(jm.fix(jeffreys(CLOSED), held), START, LOGIT)
    assert held_fit.mode == "MPL (Jeffreys)" and held_fit.df == 2
    assert_allclose(firth_score(held_fit.x)[[0, 2]], 0.0, atol=1e-8)
    smaller = cox_snell(jm.fix(CLOSED, held))(BETA, LOGIT)["beta"]
    mu = special.expit(X @ np.where([True, False, True], BETA["beta"], 0.5))
    w, part = mu * (1 - mu), X[:, [0, 2]]
    f = part.T @ (w[:, None] * part)
    h = w * np.einsum("ia,ab,ib->i", part, np.linalg.inv(f), part)
    assert_allclose(smaller[[0, 2]], np.linalg.solve(f, part.T @ (h * (mu - 0.5))), rtol=1e-9)
    assert smaller[1] == 0


# ---------------------------------------------------------------- fits


def cox(params, data):
    """Breslow's partial likelihood, one scalar; no ties."""
    eta = data["x"] @ params["beta"]
    risk = jnp.where(data["time"][None, :] >= data["time"][:, None], eta[None, :], -jnp.inf)
    return jnp.sum(data["event"] * (eta - jax.nn.logsumexp(risk, axis=1)))


def test_separated_partial_likelihood_has_a_finite_estimate():
    """All events have x₁ = 1. Firth's score of Heinze & Schemper (2001) vanishes: U_r + ½ tr(I⁻¹ ∂I/∂β_r), I the observed information."""
    rng = np.random.default_rng(3)
    x = np.column_stack([np.r_[np.ones(5), np.zeros(7)], rng.normal(size=12)])
    data = {"time": np.arange(12.0), "x": x, "event": np.r_[np.ones(5), np.zeros(7)]}
    fit = jm.fit(jeffreys(cox, information="observed"), {"beta": np.zeros(2)}, data)
    assert fit.converged and (fit.mode, fit.vcov_kind) == (
        "MPL (Jeffreys, observed information)",
        "observed (unpenalised)",
    )

    def parts(beta):
        value, information = 0.0, np.zeros((2, 2))
        for i in range(5):
            w = np.exp(x[i:] @ beta)
            mean = w @ x[i:] / w.sum()
            value += x[i] @ beta - np.log(w.sum())
            information += (x[i:] - mean).T @ ((w / w.sum())[:, None] * (x[i:] - mean))
        return value + 0.5 * np.linalg.slogdet(information)[1], information

    value, information = parts(fit.x)
    assert_allclose(fit.loglik, value, rtol=1e-12)
    assert_allclose(
        differences(lambda b: parts(b)[0], fit.x), 0.0, atol=1e-8
    )  # rounding of central differences
    assert_allclose(fit.se, np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-9)


def test_each_member_of_a_batch_solves_firths_equation():
    """The third member is separated."""
    y = np.stack([LOGIT["y"], 1 - LOGIT["y"], (X[:, 1] > 0).astype(float)])
    fits = jm.fit_batch(
        jeffreys(CLOSED), START, {"x": X, "y": y}, in_axes={"x": None, "y": 0}, progress=False
    )
    assert (
        np.all(fits.converged)
        and fits.mode == "MPL (Jeffreys)"
        and fits.vcov_kind == "expected (unpenalised)"
    )
    for i in range(3):
        assert_allclose(firth_score(fits[i].x, y=y[i]), 0.0, atol=1e-8)
        assert_allclose(fits[i].vcov, np.linalg.inv(logit_parts(fits[i].x)[1]), rtol=1e-9)


def test_what_has_no_such_penalty_is_refused():
    with pytest.raises(ValueError, match="'expected' or 'observed'"):
        jeffreys(CLOSED, information="opg")
    with pytest.raises(
        ValueError, match="needs the distribution of the response.*information='observed'"
    ):
        jm.fit(jeffreys(logit), START, LOGIT)
    for options in ({"vcov": "HC0"}, {"vcov": "opg"}, {"clusters": np.arange(N)}):
        with pytest.raises(ValueError, match="unpenalised information, vcov='auto'"):
            jm.fit(jeffreys(CLOSED), START, LOGIT, **options)
    with pytest.raises(ValueError, match="a sum with sampling weights is not a likelihood"):
        jm.fit(jeffreys(CLOSED), START, LOGIT, weights=jm.sampling(np.ones(N)))
    with pytest.raises(ValueError, match=r"write jeffreys\(pool"):
        jm.fit(jm.pool(jeffreys(CLOSED), CLOSED), START, (LOGIT, LOGIT))
    with pytest.raises(ValueError, match="needs the distribution of the response"):
        cox_snell(normal)(BETA_SIGMA, NORMAL)
    with pytest.raises(ValueError, match="cross="):
        cox_snell(declared_logit)(BETA, LOGIT)
    with pytest.raises(ValueError, match="the bias of a penalised estimate is not defined"):
        cox_snell(jm.penalize(CLOSED, jm.ridge(1.0)))(BETA, LOGIT)
    short = jm.with_response(probit, jm.enumeration("y", [1.0]))
    assert np.all(np.isnan(cox_snell(short)(BETA, LOGIT)["beta"]))  # part of the support is missing
