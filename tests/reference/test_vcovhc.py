"""HC0 to HC3 against R's sandwich::vcovHC, for canonical links with either bread and for other links with the expected one.

R's glm takes the expected information for its bread, the same as the observed one for logit and Poisson only. R's lm does not count sigma
among the parameters of HC1.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, log_ndtr, ndtr
from numpy.testing import assert_allclose

import jaxmle as jm
from tests.tolerances import ROBUST_COVARIANCE

from .oracle import FOLDER, table

R = json.loads((FOLDER / "r_vcovhc.json").read_text())
KINDS = ("HC0", "HC1", "HC2", "HC3")


def relative(ours, theirs):
    """The difference of two covariances in units of the standard errors of the second."""
    se = np.sqrt(np.diagonal(theirs))
    return (np.asarray(ours) - theirs) / np.outer(se, se)


def design(name, response, drop=()):
    columns = {key: np.asarray(value, float) for key, value in table(name).items()}
    x = [
        np.ones(len(columns[response])),
        *(value for key, value in columns.items() if key != response and key not in drop),
    ]
    return columns, np.stack(x, axis=1), columns[response]


def cloglog(y, eta):
    return y * jnp.log(-jnp.expm1(-jnp.exp(eta))) - (1 - y) * jnp.exp(eta)


BINARY = {
    "logit": (
        lambda y, eta: y * eta - jnp.logaddexp(0.0, eta),
        lambda eta: jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta),
    ),
    "probit": (
        lambda y, eta: log_ndtr((2 * y - 1) * eta),
        lambda eta: jax.scipy.stats.norm.pdf(eta) ** 2 / (ndtr(eta) * ndtr(-eta)),
    ),
    "cloglog": (cloglog, lambda eta: jnp.exp(2 * eta - jnp.exp(eta)) / -jnp.expm1(-jnp.exp(eta))),
}


def binary(link):
    density, weight = BINARY[link]
    return jm.regression(
        lambda eta, row: density(row["y"], eta["eta"]),
        eta={"eta": jm.linear("x", "beta")},
        response=jm.exact(lambda eta, row: weight(eta["eta"])),
    )


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("link", BINARY)
def test_binary_regressions_have_the_covariances_of_r(link, kind):
    _, x, y = design("s10_logit_birthwt", "low")
    model, data = binary(link), {"x": x, "y": y}
    fit = jm.fit(model, {"beta": np.zeros(x.shape[1])}, data)
    assert_allclose(fit.params["beta"], R[link]["coef"], atol=1e-7 * fit.se.min())
    ours = jm.vcov(model, kind=kind, bread="expected")(fit.params, data)
    assert_allclose(relative(ours, np.array(R[link][kind])), 0.0, atol=ROBUST_COVARIANCE)
    if link == "logit":
        assert_allclose(
            relative(jm.vcov(model, kind=kind)(fit.params, data), np.array(R[link][kind])),
            0.0,
            atol=ROBUST_COVARIANCE,
        )
        assert_allclose(
            jm.fit(model, fit.params, data, vcov=kind).vcov, ours, rtol=ROBUST_COVARIANCE
        )


@pytest.mark.parametrize("kind", KINDS)
def test_poisson_regression_has_the_covariances_of_r(kind):
    columns, x, y = design("s12_poisson_offset_insurance", "claims", drop=("holders",))

    def density(eta, row):
        return row["y"] * eta["mu"] - jnp.exp(eta["mu"]) - gammaln(row["y"] + 1)

    model = jm.regression(
        density,
        eta={"mu": jm.linear("x", "beta", offset="log_n")},
        response=jm.exact(lambda eta, row: jnp.exp(eta["mu"])),
    )
    data = {"x": x, "y": y, "log_n": np.log(columns["holders"])}
    fit = jm.fit(model, {"beta": np.zeros(x.shape[1])}, data)
    assert_allclose(
        relative(jm.vcov(model, kind=kind)(fit.params, data), np.array(R["poisson"][kind])),
        0.0,
        atol=ROBUST_COVARIANCE,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_linear_regression_has_the_covariances_of_r(kind):
    _, x, y = design("s09_linear_mtcars", "mpg")
    n, q = x.shape

    def density(eta, row):
        return jax.scipy.stats.norm.logpdf(row["y"], eta["mu"], eta["sigma"])

    def information(eta, row):
        return jnp.diag(jnp.stack([1.0, 2.0]) / eta["sigma"] ** 2)

    model = jm.regression(
        density,
        eta={"mu": jm.linear("x", "beta"), "sigma": "sigma"},
        response=jm.exact(information),
    )
    data = {"x": x, "y": y}
    fit = jm.fit(
        model,
        {"beta": np.zeros(q), "sigma": float(y.std())},
        data,
        constraints={"sigma": jm.positive},
    )
    ours = np.asarray(jm.vcov(model, kind=kind)(fit.params, data))[:q, :q]
    counted = (n - q - 1) / (n - q) if kind == "HC1" else 1.0
    assert_allclose(
        relative(ours * counted, np.array(R["linear"][kind])), 0.0, atol=ROBUST_COVARIANCE
    )
