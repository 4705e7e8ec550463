"""EM: the optimum of scikit-learn, mclust and mixtools from equal starts; monotone; SEs of the observed information; collapse as a status."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxmle as jm
from jaxmle.datasets import load
from jaxmle.families import normal
from jaxmle.mixtures.em import em, em_steps
from jaxmle.mixtures.gaussian_mixture import COVARIANCE_FORMS, gaussian_mixture
from jaxmle.mixtures.mixture_of import mixture_of
from jaxmle.solvers.status import Status

HERE = Path(__file__).parent / "data"
MCLUST = {"full": "VVV", "tied": "EEE", "diagonal": "VVI", "spherical": "VII"}
SKLEARN = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def real(name):
    """Observations and the labels that EM starts from."""
    if name == "faithful":
        y = load("faithful").data["eruptions"][:, None]
        return y, (y[:, 0] > 3).astype(int)
    sets = pytest.importorskip("sklearn.datasets")
    found = sets.load_iris() if name == "iris" else sets.load_wine()
    return (
        found.data if name == "iris" else found.data[:, [0, 6, 9]]
    ), found.target  # wine: alcohol, flavanoids, colour


def write_r_data():
    y, labels = real("wine")
    np.savetxt(
        HERE / "mixture_wine.csv",
        np.column_stack([y, labels + 1]),
        "%.17g",
        ",",
        header="alcohol,flavanoids,colour,label",
        comments="",
    )
    np.savetxt(
        HERE / "mixture_faithful.csv", real("faithful")[0], "%.17g", header="eruptions", comments=""
    )


def reference():
    with (HERE / "mixture.csv").open() as lines:
        return {
            (row["source"].split("-")[0], row["case"]): float(row["loglik"])
            for row in csv.DictReader(lines)
        }


def from_labels(model, y, labels):
    return model.m_step(np.eye(model.components)[labels], y)


# ---------------------------------------------------------------- equal starts, equal optima


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "kind"),
    [*(("iris", kind) for kind in COVARIANCE_FORMS), ("wine", "full"), ("wine", "tied")],
)
def test_em_equals_mclust_from_equal_starts(name, kind):
    y, labels = real(name)
    model = gaussian_mixture(3, kind)
    _, path = em_steps(model, from_labels(model, y, labels), y, 2000)
    assert_allclose(path[-1], reference()["mclust", f"{name}-{MCLUST[kind]}"], rtol=1e-10)
    assert np.all(np.diff(path) > -1e-10)


def test_the_newton_finish_ends_where_em_does():
    y, labels = real("iris")
    model = gaussian_mixture(3, "diagonal")
    found = em(model, from_labels(model, y, labels), y)
    assert found.fit.converged and len(found.path) < 100
    assert_allclose(found.fit.loglik, reference()["mclust", "iris-VVI"], rtol=1e-12)


@pytest.mark.parametrize("kind", COVARIANCE_FORMS)
def test_em_steps_equal_those_of_scikit_learn(kind):
    mixture = pytest.importorskip("sklearn.mixture")
    y, labels = real("iris")
    model = gaussian_mixture(3, kind)
    start = from_labels(model, y, labels)
    spread = start.get("variance", start.get("covariance"))
    precision = np.linalg.inv(np.stack(spread)) if kind in ("full", "tied") else 1 / spread
    theirs = mixture.GaussianMixture(
        3,
        covariance_type=SKLEARN[kind],
        reg_covar=0.0,
        tol=0.0,
        max_iter=12,
        weights_init=start["weights"],
        means_init=start["loc"],
        precisions_init=precision,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(y)
    params, path = em_steps(model, start, y, 12)
    assert_allclose(params["loc"], theirs.means_, rtol=1e-10)
    assert_allclose(params["weights"], theirs.weights_, rtol=1e-10)
    assert_allclose(
        np.stack(params.get("variance", params.get("covariance"))),
        theirs.covariances_,
        rtol=1e-8,
        atol=1e-12,
    )
    assert path.shape == (12,)
    assert_allclose(em_steps(model, params, y, 12)[1][0] / len(y), theirs.score(y), rtol=1e-12)


def test_em_of_faithful_equals_mclust_mixtools_and_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    y, labels = real("faithful")
    expected = reference()
    model = gaussian_mixture(2, "diagonal")
    found = em(model, from_labels(model, y, labels), y)
    assert found.fit.converged
    for source in ("mclust", "mixtools"):
        assert_allclose(found.fit.loglik, expected[source, "faithful-V"], rtol=1e-11)
    theirs = mixture.GaussianMixture(
        2, reg_covar=0.0, tol=1e-12, max_iter=2000, means_init=[[2.0], [4.3]]
    ).fit(y)
    assert_allclose(found.fit.loglik, theirs.score(y) * len(y), rtol=1e-9)
    assert_allclose(found.params["loc"], np.sort(theirs.means_, axis=0), rtol=1e-5)


# ---------------------------------------------------------------- standard errors


def numpy_loglik(x, y):
    """Two normals of variances v, written out: x = (m₁, m₂, v₁, v₂, w₁)."""
    parts = [
        w / np.sqrt(2 * np.pi * v) * np.exp(-0.5 * (y - m) ** 2 / v)
        for m, v, w in ((x[0], x[2], x[4]), (x[1], x[3], 1 - x[4]))
    ]
    return np.sum(np.log(parts[0] + parts[1]))


def test_standard_errors_are_those_of_the_numerical_observed_information():
    y, labels = real("faithful")
    model = gaussian_mixture(2, "diagonal")
    found = em(model, from_labels(model, y, labels), y).fit
    x = np.array(
        [
            found.params["loc"][0, 0],
            found.params["loc"][1, 0],
            *found.params["variance"].ravel(),
            found.params["weights"][0],
        ]
    )
    assert_allclose(numpy_loglik(x, y[:, 0]), found.loglik, rtol=1e-13)
    h = 3e-4 * np.abs(x)
    hessian = np.zeros((5, 5))
    for i in range(5):
        for j in range(5):
            # Fourth-order differences: the error is of order h⁴ ≈ 1e-14 beside rounding of about 1e-13·ℓ/h² ≈ 1e-5 relative at worst.
            for a, ca in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                for b, cb in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                    hessian[i, j] += (
                        ca
                        * cb
                        * numpy_loglik(
                            x + a * h[i] * np.eye(5)[i] + b * h[j] * np.eye(5)[j], y[:, 0]
                        )
                    )
            hessian[i, j] /= 144 * h[i] * h[j]
    expected = np.sqrt(np.diagonal(np.linalg.inv(-hessian)))
    se = dict(zip(found.names, found.se, strict=True))
    mine = [
        se[name]
        for name in ("loc[0,0]", "loc[1,0]", "variance[0,0]", "variance[1,0]", "weights[0]")
    ]
    assert_allclose(mine, expected, rtol=1e-5)
    assert_allclose(se["weights[1]"], se["weights[0]"], rtol=1e-10)


# ---------------------------------------------------------------- starts, labels, weights


def two_groups(seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, 80), rng.normal(3, 0.5, 40)])


def test_components_come_in_one_order_from_any_start():
    model, y = gaussian_mixture(2, "spherical"), two_groups()
    fits = [em(model, data=y, starts=3, key=key).fit for key in (1, 2)]
    start = fits[0].params
    swapped = model.permuted(start, np.array([1, 0]))
    fits += [em(model, [swapped] * 3, y).fit]
    for fit in fits:
        assert fit.converged
        assert np.all(np.diff(fit.params["loc"][:, 0]) > 0)
        assert_allclose(fit.x, fits[0].x, rtol=1e-9)


def test_many_starts_are_one_program_and_each_equals_its_own_run():
    model, y = gaussian_mixture(2, "spherical"), two_groups()
    starts = model.starts(y, 3, np.random.default_rng(5))
    paths = [em(model, start, y, newton_steps=0, tolerance=1e-6).path for start in starts]
    together = em(model, starts, y, newton_steps=0, tolerance=1e-6)
    assert_allclose(together.logliks, [path[-1] for path in paths], rtol=1e-12)
    assert together.reached == 3
    assert all(np.all(np.diff(path) > -1e-10) for path in paths)


def test_frequency_weights_equal_repeated_rows():
    y = two_groups()
    w = np.arange(len(y)) % 3
    model = gaussian_mixture(2, "spherical")
    start = model.starts(y, 1, np.random.default_rng(0))[0]
    weighted = em(model, start, y, weights=jm.frequency(w.astype(float))).fit
    repeated = em(model, start, np.repeat(y, w)).fit
    assert_allclose(weighted.x, repeated.x, rtol=1e-8)
    assert_allclose(weighted.se, repeated.se, rtol=1e-6)
    assert_allclose(weighted.loglik, repeated.loglik, rtol=1e-12)


def test_blocks_of_rows_do_not_change_the_steps(monkeypatch):
    from jaxmle.mixtures import gaussian_mixture as module

    model, y = gaussian_mixture(2, "spherical"), two_groups()
    start = model.starts(y, 1, np.random.default_rng(0))[0]
    whole = em_steps(model, start, y, 8)
    monkeypatch.setattr(
        module, "ROWS_A_FEATURE_BLOCK", 50
    )  # 120 rows: three blocks, of which the last is padded
    blocks = em_steps(model, start, y, 8)
    assert_allclose(blocks[1], whole[1], rtol=1e-13)
    assert_allclose(blocks[0]["variance"], whole[0]["variance"], rtol=1e-11)


# ---------------------------------------------------------------- collapse


def test_a_collapsing_component_is_unbounded_and_names_its_rows():
    y = np.array([0.0, 0.1, -0.2, 0.3, 0.15, 5.0])
    found = em(gaussian_mixture(2), data=y, starts=3)
    assert found.fit.verdict == Status.UNBOUNDED
    assert (
        np.isinf(found.fit.loglik)
        and np.all(np.isnan(found.fit.x))
        and np.all(np.isnan(found.fit.se))
    )
    assert [rows.tolist() for rows in found.rows] == [[5]] * 3
    assert "row 5" in found.explain() and "variance_floor" in found.explain()
    assert int(found.fit.witness.row) == 5


def test_a_floor_keeps_components_from_collapse_and_is_labelled():
    y = np.array([0.0, 0.1, -0.2, 0.3, 0.15, 5.0])
    found = em(gaussian_mixture(2), data=y, starts=3, variance_floor=0.2)
    assert found.fit.converged and found.fit.mode == "MAP"
    assert np.all(np.diff(found.path) > -1e-10)
    # At the maximum Σ_j = (scatter_j + 2aS)/(N_j + 2a): the lone row has no scatter of its own.
    n_lone = 6 * found.params["weights"][1]
    assert_allclose(
        found.params["covariance"][1][0, 0], (0.4 * np.var(y)) / (n_lone + 0.4), rtol=1e-4
    )


def test_one_collapsing_start_leaves_the_local_maximum_of_the_others():
    y, model = two_groups(), gaussian_mixture(2, "spherical")
    bad = {
        "weights": np.array([0.01, 0.99]),
        "loc": np.array([[y[7]], [1.0]]),
        "variance": np.array([1e-8, 2.0]),
    }
    good = {
        "weights": np.array([0.6, 0.4]),
        "loc": np.array([[0.0], [3.0]]),
        "variance": np.array([1.0, 1.0]),
    }
    found = em(model, [bad, good], y)
    assert found.collapsed.tolist() == [0, -1]
    assert found.rows[0].tolist() == [7]
    assert found.fit.converged and np.isnan(found.logliks[0])
    assert "local maximum" in found.explain()


# ---------------------------------------------------------------- any likelihood


NORMALS = mixture_of(normal, 2)


@pytest.mark.thorough
def test_a_mixture_of_normals_by_weighted_fits_equals_the_closed_form():
    y = two_groups()
    closed, weighted = (
        em(gaussian_mixture(2, "diagonal"), data=y, starts=2),
        em(NORMALS, data=y, starts=2),
    )
    assert closed.fit.converged and weighted.fit.converged
    assert_allclose(weighted.fit.loglik, closed.fit.loglik, rtol=1e-12)
    assert np.all(np.diff(weighted.path) > -1e-9)
    order = np.argsort([part["loc"] for part in weighted.params["components"]])
    assert_allclose(
        np.sort([part["loc"] for part in weighted.params["components"]]),
        closed.params["loc"][:, 0],
        rtol=1e-7,
    )
    assert_allclose(
        [weighted.params["components"][j]["scale"] ** 2 for j in order],
        closed.params["variance"][:, 0],
        rtol=1e-6,
    )
    assert np.all(np.diff(weighted.params["weights"]) < 0)


def test_a_collapsing_component_of_any_family_is_left_out_and_named():
    y = two_groups()
    bad, good = (
        {
            "weights": np.array([w, 1 - w]),
            "components": ({"loc": a, "scale": b}, {"loc": 1.0, "scale": 2.0}),
        }
        for w, a, b in ((0.01, y[7], 1e-4), (0.4, 3.0, 1.0))
    )
    found = em(NORMALS, [bad, good], y)
    assert found.collapsed.tolist() == [0, -1] and found.rows[0].tolist() == [7]
    assert found.fit.converged and "local maximum" in found.explain()


LINE = jm.regression(
    lambda eta, row: (
        -0.5 * ((row["y"] - eta["mu"]) / eta["sigma"]) ** 2
        - jnp.log(eta["sigma"])
        - 0.918938533204672742
    ),
    eta={"mu": jm.linear("x", "beta"), "sigma": "sigma"},
)


@pytest.mark.thorough
def test_a_mixture_of_regressions_finds_both_lines():
    rng = np.random.default_rng(4)
    n = 200
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    which = rng.random(n) < 0.4
    y = np.where(which, x @ [1.0, 2.0], x @ [-1.0, -1.0]) + 0.3 * rng.normal(size=n)
    model = mixture_of(
        LINE,
        2,
        start={"beta": np.zeros(2), "sigma": np.array(1.0)},
        constraints={"sigma": jm.positive},
    )
    found = em(model, data={"x": x, "y": y}, starts=4)
    assert found.fit.converged
    assert np.all(np.diff(found.path) > -1e-9)
    truth = [-1.0, -1.0, 0.3, 1.0, 2.0, 0.3]  # the larger group first
    errors = (found.fit.x[:6] - truth) / found.fit.se[:6]
    assert np.all(np.abs(errors) < 4)
    assert np.all(found.fit.se[:6] < 0.1)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"model": normal}, TypeError, "gaussian_mixture"),
        ({"data": np.array([0.0, np.nan, 1.0])}, ValueError, "row 1"),
        ({"data": np.zeros((2, 2, 2))}, ValueError, r"\(n, d\)"),
        ({"data": np.array([1.0])}, ValueError, "at least as many rows"),
        ({"starts": 0}, ValueError, "starts"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
        ({"weights": np.ones(120)}, TypeError, "frequency"),
        ({"weights": jm.frequency(np.ones(3))}, ValueError, "one for each of 120"),
        (
            {
                "start": {
                    "weights": np.array([0.5, 0.6]),
                    "loc": np.zeros((2, 1)),
                    "variance": np.ones(2),
                }
            },
            ValueError,
            "sum",
        ),
        (
            {
                "start": {
                    "weights": np.full(3, 1 / 3),
                    "loc": np.zeros((3, 1)),
                    "variance": np.ones(3),
                }
            },
            ValueError,
            "3 weights",
        ),
        (
            {
                "start": {
                    "weights": np.array([0.5, 0.5]),
                    "loc": np.zeros((2, 2)),
                    "variance": np.ones(2),
                }
            },
            ValueError,
            "does not fit",
        ),
        (
            {
                "start": {
                    "weights": np.array([0.5, 0.5]),
                    "loc": np.zeros((2, 1)),
                    "covariance": np.eye(1),
                }
            },
            ValueError,
            "variance",
        ),
    ],
)
def test_bad_input_is_refused_with_the_remedy(change, error, told):
    arguments = {
        "model": gaussian_mixture(2, "spherical"),
        "start": None,
        "data": two_groups(),
    } | change
    with pytest.raises(error, match=told):
        em(arguments.pop("model"), arguments.pop("start"), arguments.pop("data"), **arguments)


def test_models_say_what_they_take():
    with pytest.raises(ValueError, match="components"):
        gaussian_mixture(0)
    with pytest.raises(ValueError, match="spherical"):
        gaussian_mixture(2, "round")
    with pytest.raises(ValueError, match="gaussian_mixture"):
        em(mixture_of(normal, 2), data=two_groups(), variance_floor=0.1)
    with pytest.raises(ValueError, match="start is missing"):
        em(mixture_of(LINE, 2), data={"x": np.ones((9, 1)), "y": np.arange(9.0)})
    with pytest.raises(TypeError, match="jit"):
        jax.jit(lambda y: em(gaussian_mixture(2), data=y).fit.loglik)(two_groups())


@pytest.mark.thorough
def test_constant_data_are_a_collapse_not_an_error():
    found = em(gaussian_mixture(2, "spherical"), data=np.full(120, 3.0), starts=3)
    assert found.fit.verdict == Status.UNBOUNDED
    assert "3 of 3 starts" in found.explain()
