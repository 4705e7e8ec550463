"""``jeffreys`` and ``mean_br`` against R's brglm2 (MPL_Jeffreys and AS_mean), also where the maximum is at infinity."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, polygamma
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.inference.diagnostics.bias_reduction import mean_br
from jaxmle.likelihood.information.bias import jeffreys
from tests.tolerances import ESTIMATE_IN_SE, STDERR

from .oracle import FOLDER, design, table
from .test_vcovhc import BINARY as WEIGHTS

R = json.loads((FOLDER / "r_brglm2.json").read_text())
SEPARATED = R["separated"]
BIRTH = table("s10_logit_birthwt")
COLUMNS = ("age", "lwt", "black", "other", "smoke", "ptl", "ht", "ui")
BIRTHWT = {"x": design(BIRTH, *COLUMNS), "y": BIRTH["low"]}
SPLIT = {"x": np.column_stack([np.ones(8), SEPARATED["x"]]), "y": np.array(SEPARATED["y"], float)}


def assert_agrees(fit, theirs, places=slice(None)):
    """Estimates to 1e-6 of a standard error, standard errors to 1e-6 of themselves."""
    assert fit.converged
    assert_allclose((fit.x[places] - theirs["coef"]) / fit.se[places], 0.0, atol=ESTIMATE_IN_SE)
    assert_allclose(fit.se[places], theirs["se"], rtol=STDERR)


def binary(link, response):
    density = WEIGHTS[link][0]
    return jm.regression(
        lambda eta, row: density(row["y"], eta["eta"]),
        eta={"eta": jm.linear("x", "beta")},
        response=response,
    )


# The closed law of a canonical link; for probit, the information in closed form, and everything else by enumeration.
CLOSED = {
    link: binary(
        link,
        jm.exact(lambda eta, row, w=WEIGHTS[link][1]: w(eta["eta"]), cross=lambda eta, row: 0.0),
    )
    for link in ("logit", "probit")
}
LAWS = {"logit": CLOSED["logit"], "probit": binary("probit", jm.enumeration("y", [0.0, 1.0]))}


@pytest.mark.parametrize("link", LAWS)
def test_binary_regressions(link):
    start = {"beta": np.zeros(9)}
    mean, penalised = (
        mean_br(LAWS[link], start, BIRTHWT),
        jm.fit(jeffreys(CLOSED[link]), start, BIRTHWT),
    )
    assert_agrees(mean, R[link]["AS_mean"])
    assert_agrees(penalised, R[link]["MPL_Jeffreys"])
    assert (mean.mode, penalised.mode) == ("BR (mean)", "MPL (Jeffreys)")
    assert np.isnan(mean.aic) and np.isnan(penalised.bic)
    apart = np.max(np.abs(mean.x - penalised.x) / mean.se)
    assert apart < 1e-8 if link == "logit" else apart > 1e-3


@pytest.mark.parametrize("link", LAWS)
def test_separated_binary_samples_have_finite_estimates(link):
    start = {"beta": np.zeros(2)}
    assert_agrees(mean_br(LAWS[link], start, SPLIT), SEPARATED[link]["AS_mean"])
    assert_agrees(jm.fit(jeffreys(CLOSED[link]), start, SPLIT), SEPARATED[link]["MPL_Jeffreys"])


def poisson_density(eta, row):
    return row["y"] * eta["mu"] - jnp.exp(eta["mu"]) - gammaln(row["y"] + 1)


POISSON = jm.regression(
    poisson_density,
    eta={"mu": jm.linear("x", "beta", offset="offset")},
    response=jm.exact(lambda eta, row: jnp.exp(eta["mu"]), cross=lambda eta, row: 0.0),
)


def test_poisson_regression():
    ins = table("s12_poisson_offset_insurance")
    x = design(ins, "dist2", "dist3", "dist4", "group_n", "age_n")
    data, start = (
        {"x": x, "y": ins["claims"], "offset": np.log(ins["holders"])},
        {"beta": np.zeros(x.shape[1])},
    )
    assert_agrees(mean_br(POISSON, start, data), R["poisson"]["AS_mean"])
    assert_agrees(jm.fit(jeffreys(POISSON), start, data), R["poisson"]["MPL_Jeffreys"])


def test_counts_that_are_all_zero_in_a_group_have_finite_estimates():
    g, start = np.array(SEPARATED["g"], float), {"beta": np.zeros(2)}
    data = {
        "x": np.column_stack([np.ones_like(g), g]),
        "y": np.array(SEPARATED["count"], float),
        "offset": np.zeros_like(g),
    }
    assert_agrees(mean_br(POISSON, start, data), SEPARATED["poisson"]["AS_mean"])
    assert_agrees(jm.fit(jeffreys(POISSON), start, data), SEPARATED["poisson"]["MPL_Jeffreys"])


def choice_density(eta, row):
    all_of_them = jnp.concatenate([jnp.zeros(1, eta["u"].dtype), eta["u"]])
    return all_of_them[row["y"].astype(int)] - jax.nn.logsumexp(all_of_them)


def choice_information(eta, row):
    share = jax.nn.softmax(jnp.concatenate([jnp.zeros(1, eta["u"].dtype), eta["u"]]))[1:]
    return jnp.diag(share) - share[:, None] * share[None, :]


MULTINOMIAL = jm.regression(
    choice_density,
    eta={"u": jm.linear("x", "beta")},
    response=jm.exact(choice_information, cross=lambda eta, row: jnp.zeros((2, 2, 2))),
)


def test_separated_multinomial_samples_have_finite_estimates():
    data = {
        "x": np.column_stack([np.ones(10), SEPARATED["z"]]),
        "y": np.array(SEPARATED["choice"], float) - 1,
    }
    start = {"beta": np.zeros((2, 2))}
    for fit, kind in (
        (mean_br(MULTINOMIAL, start, data), "AS_mean"),
        (jm.fit(jeffreys(MULTINOMIAL), start, data), "MPL_Jeffreys"),
    ):
        theirs = {
            key: np.array(SEPARATED["multinomial"][kind][key]).T.ravel() for key in ("coef", "se")
        }
        assert_agrees(fit, theirs)


def normal_cross(eta, row):
    """E(∂²f ∂f) of a normal in its mean and variance: ν_mv,m = −1/v², ν_vv,v = −1/v³."""
    v, zero = eta["v"], jnp.zeros((2, 2, 2))
    return zero.at[0, 1, 0].set(-1 / v**2).at[1, 0, 0].set(-1 / v**2).at[1, 1, 1].set(-1 / v**3)


NORMAL = jm.regression(
    lambda eta, row: jax.scipy.stats.norm.logpdf(row["y"], eta["mu"], jnp.sqrt(eta["v"])),
    eta={"mu": jm.linear("x", "beta"), "v": "v"},
    response=jm.exact(
        lambda eta, row: jnp.diag(jnp.stack([1 / eta["v"], 0.5 / eta["v"] ** 2])),
        cross=normal_cross,
    ),
)


def test_the_bias_of_a_variance_is_taken_off_exactly():
    """The root is RSS/(n − q), the unbiased estimate."""
    cars = table("s09_linear_mtcars")
    data = {"x": design(cars, "wt", "hp", "qsec"), "y": cars["mpg"]}
    fit = mean_br(NORMAL, {"beta": np.zeros(4), "v": 300.0}, data, constraints={"v": jm.positive})
    assert_agrees(fit, R["normal"]["AS_mean"], slice(0, 4))
    assert_allclose(fit.params["v"], R["normal"]["AS_mean"]["dispersion"], rtol=1e-7)
    assert_allclose(
        fit.params["v"],
        np.sum((data["y"] - data["x"] @ fit.params["beta"]) ** 2) / (32 - 4),
        rtol=1e-9,
    )


def gamma_density(eta, row):
    shape, z = 1 / eta["v"], row["y"] * jnp.exp(-eta["mu"])
    return shape * (jnp.log(shape) + jnp.log(z) - z) - gammaln(shape) - jnp.log(row["y"])


def gamma_cross(eta, row):
    """With a the shape: ν_mm,m = −a, ν_ma,m = 1, others 0; then by the chain rule for v = 1/a, where ν_vv,v = a'a''I_aa."""
    a, zero = 1 / eta["v"], jnp.zeros((2, 2, 2))
    excess = polygamma(1, a) - 1 / a
    return (
        zero.at[0, 0, 0]
        .set(-a)
        .at[0, 1, 0]
        .set(-(a**2))
        .at[1, 0, 0]
        .set(-(a**2))
        .at[1, 1, 1]
        .set(-2 * a**5 * excess)
    )


GAMMA = jm.regression(
    gamma_density,
    eta={"mu": jm.linear("x", "beta"), "v": "v"},
    response=jm.exact(
        lambda eta, row: jnp.diag(
            jnp.stack([1 / eta["v"], (polygamma(1, 1 / eta["v"]) - eta["v"]) / eta["v"] ** 4])
        ),
        cross=gamma_cross,
    ),
)


def test_gamma_regression_with_its_dispersion():
    clot = table("s13_gamma_log_clotting")
    data = {"x": design(clot, "logu"), "y": clot["lot1"]}
    fit = mean_br(
        GAMMA, {"beta": np.array([5.0, -0.5]), "v": 0.1}, data, constraints={"v": jm.positive}
    )
    assert_agrees(fit, R["gamma"]["AS_mean"], slice(0, 2))
    assert_allclose(fit.params["v"], R["gamma"]["AS_mean"]["dispersion"], rtol=1e-6)
