"""Separation, for six likelihoods in two forms: the label of every cell written down first, signs by linear programs, limits by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog

import jaxmle as jm
from jaxmle import Status
from jaxmle.verdict.recession_cone import certified, cone_of, null_space

from .concave import DECLARED, FORMS, OPAQUE, N, constraints, likelihood, sample, start

LABELS = {
    "complete": Status.SEPARATED,
    "quasi": Status.SEPARATED,
    "collinear": Status.UNIDENTIFIED,
    "scaled": Status.CONVERGED,
}
# The estimates at infinity, by entry; NaN where the cone leaves the sign open, 0 for a finite one.
INFINITE = {
    "logit": {"complete": [np.nan, np.inf, np.nan], "quasi": [0, 0, np.inf]},
    "probit": {"complete": [np.nan, np.inf, np.nan], "quasi": [0, 0, np.inf]},
    "poisson": {"complete": [-np.inf, np.nan, np.nan], "quasi": [0, 0, -np.inf]},
    "multinomial": {
        "quasi": [0, 0, 0, 0, np.nan, np.inf]
    },  # class 2 outruns both others; class 1 against class 0 is open among those rows
    "ordinal": {"complete": [np.inf, np.nan, -np.inf, np.inf], "quasi": [0, np.inf, 0, 0]},
    "cox": {"complete": [np.inf, np.nan], "quasi": [0, -np.inf]},
}


def fitted(form, name, data):
    return jm.fit(likelihood(form, name), start(name), data, constraints=constraints(name))


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize(("form", "name"), FORMS)
def test_every_cell_has_its_label(form, name, case):
    fit = fitted(form, name, sample(name, case))
    assert fit.verdict == LABELS[case], fit.explain()
    infinite = np.where(np.isfinite(fit.x), 0.0, fit.x)
    if case in INFINITE[name]:
        assert_array_equal(infinite, INFINITE[name][case])
    if case in ("complete", "quasi"):
        assert np.isnan(fit.se[infinite != 0]).all()
        assert int(fit.witness.certificate) == (2 if form == "declared" else 1)
        for term, value in zip(fit.names, fit.x, strict=True):
            assert (f"{term} → " in fit.explain()) == np.isinf(value)


@pytest.mark.thorough
@pytest.mark.parametrize(("form", "name"), FORMS)
def test_a_column_in_other_units_changes_no_z_value(form, name):
    scaled = sample(name, "scaled")
    x = scaled["x"].copy()
    x[:, -1] /= 1e6
    assert_allclose(
        fitted(form, name, scaled).zvalues,
        fitted(form, name, scaled | {"x": x}).zvalues,
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPAQUE)
def test_finite_coefficients_and_errors_are_those_far_along_the_direction(name):
    """The full information, inverted as it stands thirty units out: what is finite there is what the limit reports."""
    data = sample(name, "quasi", seed=8, integers=True)
    fit = fitted("declared" if name in DECLARED else "opaque", name, data)
    finite = np.isfinite(fit.x)
    assert fit.verdict == Status.SEPARATED
    assert finite.any() and not finite.all()
    direction = fit.witness.direction
    with jax.enable_x64(True):
        x = jnp.asarray(np.where(finite, fit.x, 0.0) + 30 * direction / np.max(np.abs(direction)))

        def loglik(x):
            return jnp.sum(OPAQUE[name](fit.layout.unravel(x), data))

        score, information = np.array(jax.grad(loglik)(x)), -np.array(jax.hessian(loglik)(x))
    unit = 1 / np.sqrt(np.diagonal(information))
    vcov = np.linalg.inv(information * np.outer(unit, unit)) * np.outer(unit, unit)
    assert_allclose(np.sqrt(np.diagonal(vcov))[finite], fit.se[finite], rtol=1e-6)
    assert_allclose((vcov @ score)[finite] / fit.se[finite], 0.0, atol=2e-6)


# ---------------------------------------------------------------- 500 designs of small whole numbers


def integer_designs():
    rng = np.random.default_rng(5)
    x = np.concatenate([np.ones((500, 12, 1)), rng.integers(-2, 3, (500, 12, 2))], axis=2)
    y = (rng.random((500, 12)) < 1 / (1 + np.exp(-(x @ np.array([0.3, 1.0, -1.0]))))).astype(float)
    return x, y


def verdict_by_linear_programs(x, y):
    """Albert and Anderson (1984) by linear programs over {d : (2y − 1) x'd ≥ 0, |d_j| ≤ 1}: status, and the infinite estimates with their signs."""
    rows, p = x * (2 * y - 1)[:, None], x.shape[1]

    def top(c):
        return -linprog(-c, A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1)).fun

    if top(rows.sum(axis=0)) < 1e-7:
        return (
            Status.CONVERGED if np.linalg.matrix_rank(x) == p else Status.UNIDENTIFIED
        ), np.zeros(p)
    up, down = (np.array([top(sign * e) > 1e-7 for e in np.eye(p)]) for sign in (1, -1))
    return Status.SEPARATED, np.where(
        up & down, np.nan, np.where(up, np.inf, np.where(down, -np.inf, 0.0))
    )


@pytest.mark.parametrize("form", ["declared", pytest.param("opaque", marks=pytest.mark.thorough)])
def test_five_hundred_integer_designs_have_the_verdict_and_signs_of_linear_programs(form):
    x, y = integer_designs()
    fits = jm.fit_batch(likelihood(form, "logit"), start("logit"), {"x": x, "y": y}, progress=False)
    truth = [verdict_by_linear_programs(*pair) for pair in zip(x, y, strict=True)]
    assert_array_equal(fits.status, [int(status) for status, _ in truth])
    assert_array_equal(np.where(np.isfinite(fits.x), 0.0, fits.x), [ends for _, ends in truth])
    separated = fits.status == Status.SEPARATED
    assert 200 < separated.sum() < 300
    assert_array_equal(fits.witness.certificate[separated], 2 if form == "declared" else 1)
    assert np.isnan(fits.se[~np.isfinite(fits.x)]).all()
    for i in range(0, 500, 50):
        alone = jm.fit(likelihood(form, "logit"), start("logit"), {"x": x[i], "y": y[i]})
        assert alone.status == fits.status[i]
        assert_array_equal(np.where(np.isfinite(alone.x), 0.0, alone.x), truth[i][1])
        assert_allclose(alone.se, fits.se[i], rtol=1e-6)


# ---------------------------------------------------------------- ordered categories


@pytest.mark.parametrize("form", ["declared", "opaque"])
def test_an_empty_middle_category_closes_its_gap_and_keeps_the_other_errors(form):
    data = sample("ordinal", "sound")
    data["y"] = np.where(data["y"] == 1, 2.0, data["y"])
    fit = fitted(form, "ordinal", data)
    binary = jm.fit(
        OPAQUE["logit"],
        start("logit"),
        {"x": np.column_stack([-np.ones(N), data["x"]]), "y": (data["y"] > 0) * 1.0},
    )
    assert fit.verdict == Status.BOUNDARY, fit.explain()
    assert "cut[1] = cut[0]" in fit.explain()
    assert_allclose(
        fit.x, [*binary.x[1:], binary.x[0], binary.x[0]], rtol=0, atol=1e-6 * fit.se.min()
    )
    assert_allclose(fit.se, [*binary.se[1:], binary.se[0], binary.se[0]], rtol=1e-6)


@pytest.mark.parametrize("form", ["declared", "opaque"])
def test_an_empty_end_category_has_an_infinite_cut(form):
    data = sample("ordinal", "sound")
    data["y"] = np.minimum(data["y"], 1.0)
    fit = fitted(form, "ordinal", data)
    assert fit.verdict == Status.SEPARATED, fit.explain()
    assert_array_equal(np.isfinite(fit.x), [True, True, True, False])
    assert fit.x[3] == np.inf
    assert np.isfinite(fit.se[:3]).all()


# ---------------------------------------------------------------- the cone itself


def test_an_overlap_of_one_part_in_ten_thousand_million_is_seen_in_exact_arithmetic():
    """x = 1e-10 fails and −1e-10 succeeds: floating linear programs call the sample separated."""
    x = np.array([-1.0, 1e-10, -1e-10, 1.0])
    rows = np.column_stack([np.ones(4), x]) * np.array([-1.0, -1.0, 1.0, 1.0])[:, None]
    assert not np.any(cone_of(rows).touched)
    assert not certified(rows, np.array([0.0, 1.0]))
    apart = (
        np.column_stack([np.ones(4), np.array([-1.0, -1e-10, 1e-10, 1.0])])
        * np.array([-1.0, -1.0, 1.0, 1.0])[:, None]
    )
    assert certified(apart, cone_of(apart).direction)


def test_the_exact_null_space_is_orthogonal_to_its_rows():
    from fractions import Fraction

    rows = [
        [Fraction(v) for v in row] for row in np.random.default_rng(2).normal(size=(3, 5)).tolist()
    ]
    basis = null_space([*rows, rows[0]], 5)
    assert len(basis) == 2
    assert all(
        sum(a * b for a, b in zip(row, vector, strict=True)) == 0
        for row in rows
        for vector in basis
    )


@pytest.mark.thorough
def test_random_cones_have_the_signs_of_linear_programs():
    rng = np.random.default_rng(3)
    for _ in range(100):
        rows = rng.integers(-2, 3, (int(rng.integers(3, 12)), 4)).astype(float)
        rows = rows[np.any(rows != 0, axis=1)]

        def top(c, rows=rows):
            return -linprog(-c, A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1)).fun

        up, down = (np.array([top(sign * e) > 1e-7 for e in np.eye(4)]) for sign in (1, -1))
        cone = cone_of(rows)
        assert_array_equal(cone.touched, up | down)
        assert_array_equal(cone.signs, np.where(up & ~down, 1, np.where(down & ~up, -1, 0)))
        assert_array_equal(cone.strict, [top(row) > 1e-7 for row in rows])
        assert np.min(rows @ cone.direction) > -1e-7


def test_a_tail_that_sinks_below_the_information_that_counts_is_still_a_recession():
    """Poisson samples with one event: the last information of the tail was cut away, the climb called SINGULAR, one in 100 000 UNBOUNDED."""
    rng, b, n = np.random.default_rng(5), 40_000, 50
    x = np.concatenate([np.ones((b, n, 1)), np.round(rng.normal(size=(b, n, 2)), 2)], axis=2)
    y = rng.poisson(np.exp(x @ [-2.5, 0.5, -0.4])).astype(float)
    for member in (258, 607, 27246):
        fit = jm.fit(jm.models.poisson(), data={"x": x[member], "y": y[member]})
        assert fit.verdict == Status.SEPARATED, fit.explain()
        touched = cone_of(
            np.concatenate([x[member][y[member] > 0], -x[member][y[member] > 0], -x[member]])
        ).touched
        assert_array_equal(~np.isfinite(fit.x), touched)
