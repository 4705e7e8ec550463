"""Degrees of freedom of CR2 variances: Bell and McCaffrey's for linear models, known cases, and a simulation under the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

import jaxmle as jm
from jaxmle.inference.hypotheses.satterthwaite import satterthwaite

RNG = np.random.default_rng(8)
N = 40
GROUP = np.sort(RNG.integers(0, 7, size=N))
X = np.column_stack([np.ones(N), RNG.normal(size=N), GROUP < 2])
DATA = {"x": X, "y": X @ [1.0, 0.5, -0.5] + RNG.normal(size=N)}
NORMAL = jm.regression(
    lambda eta, row: jax.scipy.stats.norm.logpdf(row["y"], eta["mu"], eta["sigma"]),
    {"mu": jm.linear("x", "beta"), "sigma": "sigma"},
    response=jm.exact(lambda eta, row: jnp.diag(jnp.stack([1.0, 2.0]) / eta["sigma"] ** 2)),
)


@pytest.fixture(scope="module")
def fit():
    return jm.fit(
        NORMAL,
        {"beta": np.zeros(3), "sigma": 1.0},
        DATA,
        constraints={"sigma": jm.positive},
        vcov="CR2",
        clusters=GROUP,
    )


def bell_mccaffrey(contrast):
    """(Σ λ)²/Σ λ² of G'G, the columns of G being (I − H)_g'(I − H_gg)^(−½)X_g(X'X)⁻¹c (Bell & McCaffrey 2002, eq. 9)."""
    inverse = np.linalg.inv(X.T @ X)
    hat, columns = X @ inverse @ X.T, []
    for g in np.unique(GROUP):
        mine = GROUP == g
        values, q = np.linalg.eigh(np.eye(mine.sum()) - hat[np.ix_(mine, mine)])
        columns.append(
            (np.eye(N) - hat)[:, mine] @ (q * values**-0.5) @ q.T @ X[mine] @ inverse @ contrast
        )
    omega = np.array(columns) @ np.array(columns).T
    return np.trace(omega) ** 2 / np.sum(omega**2)


CONTRASTS = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, -2, 0]])


def test_linear_models_have_the_degrees_of_freedom_of_bell_and_mccaffrey(fit):
    found = satterthwaite(NORMAL, fit, DATA, clusters=GROUP, contrasts=CONTRASTS)
    assert_allclose(found.df, [bell_mccaffrey(c[:3]) for c in CONTRASTS], rtol=1e-9)
    assert_allclose(
        found.stderr, np.sqrt(np.einsum("qi,ij,qj->q", CONTRASTS, fit.vcov, CONTRASTS)), rtol=1e-6
    )
    assert_allclose(found.estimate, CONTRASTS @ fit.x, rtol=1e-12)
    assert found.df[2] < found.df[1] < 7  # two treated clusters of seven
    each = satterthwaite(NORMAL, fit, DATA, clusters=GROUP)
    assert each.names == fit.names
    assert_allclose(each.df[:3], found.df[:3], rtol=1e-12)
    t = special.stdtrit(found.df, 0.95)
    assert_allclose(
        found.conf_int(0.9),
        np.stack([found.estimate - t * found.stderr, found.estimate + t * found.stderr], axis=1),
        rtol=1e-12,
    )
    assert_allclose(
        found.pvalues,
        2 * special.stdtr(found.df, -np.abs(found.estimate / found.stderr)),
        rtol=1e-12,
    )
    assert "std. error" in repr(each)


def test_rows_as_clusters_of_a_mean_have_n_minus_one():
    def mean(params, data):
        return -0.5 * (data["y"] - params["m"]) ** 2

    data = {"y": DATA["y"]}
    fit = jm.fit(mean, {"m": 0.0}, data)
    assert_allclose(satterthwaite(mean, fit, data).df, [N - 1], rtol=1e-9)


def test_a_held_parameter_has_none(fit):
    held = jm.fix(NORMAL, {"beta[1]": 0.5})
    found = satterthwaite(
        held,
        jm.fit(held, fit.params, DATA, constraints={"sigma": jm.positive}),
        DATA,
        clusters=GROUP,
    )
    assert (
        np.isnan(found.df[1])
        and np.isnan(found.stderr[1])
        and np.all(np.isfinite(found.df[[0, 2]]))
    )


def test_arguments_are_checked(fit):
    with pytest.raises(ValueError, match=r"contrasts must be finite numbers \(q, 4\)"):
        satterthwaite(NORMAL, fit, DATA, clusters=GROUP, contrasts=[1.0, 0.0])
    with pytest.raises(ValueError, match="two-way"):
        satterthwaite(NORMAL, fit, DATA, clusters=np.column_stack([GROUP, GROUP]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        satterthwaite(NORMAL, fit, DATA, clusters=GROUP).conf_int(95)
