"""Cluster and HAC covariances against R's sandwich package, for a linear model; R's lm does not count sigma among the parameters."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.likelihood.information.hac import hac

from .oracle import FOLDER, design, table

R = json.loads((FOLDER / "r_robust.json").read_text())
CARS = table("s09_linear_mtcars")
X, Y = design(CARS, "wt", "hp", "qsec"), CARS["mpg"]
N, Q = X.shape
DATA = {"x": X, "y": Y}
BETA = np.array(R["coef"])
AT = {"beta": BETA, "sigma": np.sqrt(np.mean((Y - X @ BETA) ** 2))}
FIRM, YEAR = np.arange(N) // 4, np.arange(N) % 5


def density(eta, row):
    return jax.scipy.stats.norm.logpdf(row["y"], eta["mu"], eta["sigma"])


MODEL = jm.regression(
    density,
    eta={"mu": jm.linear("x", "beta"), "sigma": "sigma"},
    response=jm.exact(lambda eta, row: jnp.diag(jnp.stack([1.0, 2.0]) / eta["sigma"] ** 2)),
)


def assert_agrees(kind, theirs, clusters=None, factor=1.0):
    """Equal in units of R's standard errors, to 1e-9."""
    theirs = np.array(theirs)
    se = np.sqrt(np.abs(np.diagonal(theirs)))
    ours = np.asarray(jm.vcov(MODEL, kind, clusters=clusters)(AT, DATA))[:Q, :Q] * factor
    negative = np.diagonal(theirs) < 0
    undefined = negative[:, None] | negative[None, :]
    assert np.array_equal(np.isnan(ours), undefined)
    assert_allclose(np.where(undefined, 0.0, (ours - theirs) / np.outer(se, se)), 0.0, atol=1e-9)


@pytest.mark.parametrize("kind", ["CR0", "CR1", "CR1S", "CR2", "CR3"])
def test_clusters_have_the_covariances_of_vcovcl(kind):
    assert_agrees(kind, R["clusters"][kind], FIRM, (N - Q - 1) / (N - Q) if kind == "CR1S" else 1.0)


@pytest.mark.parametrize("kind", ["CR0", "CR1"])
def test_two_way_clusters_have_the_covariances_of_vcovcl(kind):
    """A variance that comes out negative in R is NaN here, and only that."""
    theirs = R["clusters"][f"two_way_{kind}"]
    assert np.any(np.diagonal(theirs) < 0) and np.any(np.diagonal(theirs) > 0)
    assert_agrees(kind, theirs, (FIRM, YEAR))


@pytest.mark.parametrize("lags", [0, 3, 6])
def test_bartlett_lags_are_newey_and_west(lags):
    assert_agrees(hac(lags=lags), R["lags"][str(lags)])


@pytest.mark.parametrize("kernel", ["bartlett", "parzen", "quadratic-spectral"])
def test_kernels_at_a_given_bandwidth_are_those_of_kernhac(kernel):
    assert_agrees(hac(kernel, bandwidth=R["fixed"]["bandwidth"]), R["fixed"][kernel])


@pytest.mark.thorough
@pytest.mark.parametrize("kernel", ["bartlett", "parzen", "quadratic-spectral"])
def test_the_automatic_bandwidth_is_bwneweywest(kernel):
    """R adds the scores up without that of the intercept, and for Bartlett's kernel takes the whole part as its lags."""
    assert_agrees(hac(kernel, weights=[0, 1, 1, 1, 0]), R["automatic"][kernel])
    if kernel != "bartlett":
        assert_agrees(
            hac(kernel, bandwidth=R["automatic"]["bandwidth"][kernel]), R["automatic"][kernel]
        )


def test_kernhac_by_default_is_quadratic_spectral_at_its_own_bandwidth():
    """R multiplies by n/(n − q)."""
    assert_agrees(
        hac("quadratic-spectral", bandwidth=R["default"]["andrews"]),
        R["default"]["vcov"],
        factor=N / (N - Q),
    )
