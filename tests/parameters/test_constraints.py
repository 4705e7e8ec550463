"""Maps between the user's scale and the free scale: round trips, images, and derivatives against finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_less

import jaxmle as jm
from jaxmle.parameters import Chart, layout_of

# constraint, a start inside it, printed entries, free coordinates
MAPS = {
    "positive": (jm.positive, np.array([0.3, 2.0]), 2, 2),
    "negative": (jm.negative, np.array([-0.3, -2.0]), 2, 2),
    "interval": (jm.interval(-1.0, 4.0), np.array([-0.5, 0.0, 3.9]), 3, 3),
    "lower": (jm.lower(2.0), np.array([[2.5], [7.0]]), 2, 2),
    "upper": (jm.upper(-3.0), np.array([-3.5, -10.0]), 2, 2),
    "simplex": (jm.simplex, np.array([0.2, 0.5, 0.3]), 3, 2),
    "simplex rows": (jm.simplex, np.array([[0.2, 0.8], [0.6, 0.4]]), 4, 2),
    "ordered": (jm.ordered, np.array([-1.0, 0.5, 3.0]), 3, 3),
    "ordered rows": (jm.ordered, np.array([[-1.0, 0.5], [2.0, 9.0]]), 4, 4),
    "correlation": (
        jm.correlation,
        np.array([[1.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 1.0]]),
        3,
        3,
    ),
    "correlation of one": (jm.correlation, np.array([[1.0, -0.7], [-0.7, 1.0]]), 1, 1),
    "covariance": (
        jm.covariance,
        np.array([[4.0, 1.0, -0.5], [1.0, 2.0, 0.3], [-0.5, 0.3, 1.0]]),
        6,
        6,
    ),
}


def chart_of(case):
    constraint, leaf, _, _ = MAPS[case]
    layout = layout_of({"v": leaf}, {"v": constraint})
    return Chart(layout, (False,) * layout.p)


def points(case, spread=1.5):
    """Free points, drawn from a fixed seed."""
    return np.random.default_rng(7).normal(scale=spread, size=(20, chart_of(case).k))


@pytest.mark.parametrize("case", MAPS)
def test_sizes(case):
    _, _, printed, free = MAPS[case]
    chart = chart_of(case)
    assert (chart.layout.p, chart.k, len(chart.layout.bounds)) == (printed, free, printed)


@pytest.mark.parametrize("case", MAPS)
def test_the_user_point_comes_back_from_the_free_scale(case):
    chart, leaf = chart_of(case), MAPS[case][1]
    x = chart.layout.ravel({"v": leaf})
    z = chart.to_free(x)
    assert isinstance(z, np.ndarray) and z.dtype == np.float64
    assert_allclose(chart.to_user(z, x), x, rtol=1e-14, atol=1e-15)
    assert_allclose(chart.layout.unravel(chart.to_user(z, x))["v"], leaf, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("case", MAPS)
def test_the_free_point_comes_back_from_the_user_scale(case):
    chart = chart_of(case)
    for z in points(case):
        x = chart.to_user(z, np.zeros(chart.layout.p))
        assert_allclose(
            chart.to_free(x), z, rtol=1e-10, atol=1e-10
        )  # a correlation near one leaves 1e-12 of its z


@pytest.mark.parametrize("case", MAPS)
def test_the_image_lies_inside_the_constraint(case):
    chart, constraint = chart_of(case), MAPS[case][0]
    low, high = np.array(chart.layout.bounds).T
    for z in points(case, spread=3.0):
        x = chart.to_user(z, np.zeros(chart.layout.p))
        assert np.all((x > low) & (x < high))
        leaf = chart.layout.unravel(x)["v"]
        assert constraint.violation(leaf) is None
        if case.startswith("simplex"):
            assert_allclose(leaf.sum(axis=-1), 1.0, rtol=1e-15)
        if case.startswith("ordered"):
            assert np.all(np.diff(leaf, axis=-1) > 0)
        if case.startswith(("correlation", "covariance")):
            assert np.array_equal(leaf, leaf.T)
            assert_array_less(0, np.linalg.eigvalsh(leaf))
        if case.startswith("correlation"):
            assert np.all(np.diag(leaf) == 1.0)


def test_every_map_is_the_same_under_jax():
    charts = {case: chart_of(case) for case in MAPS}
    zs = {case: points(case)[0] for case in MAPS}
    zero = {case: np.zeros(chart.layout.p) for case, chart in charts.items()}
    with jax.enable_x64(True):
        users = jax.jit(
            lambda zs: {
                case: charts[case].to_user(z, jnp.asarray(zero[case])) for case, z in zs.items()
            }
        )(zs)
        frees = jax.jit(lambda xs: {case: charts[case].to_free(x) for case, x in xs.items()})(users)
    for case in MAPS:
        assert users[case].dtype == np.float64
        assert_allclose(
            users[case], charts[case].to_user(zs[case], zero[case]), rtol=1e-14, atol=1e-16
        )
        assert_allclose(frees[case], zs[case], rtol=1e-12, atol=1e-13)


def test_the_jacobian_of_every_map_equals_central_differences():
    charts = {case: chart_of(case) for case in MAPS}
    zs = {case: points(case, spread=0.8)[1] for case in MAPS}
    zero = {case: np.zeros(chart.layout.p) for case, chart in charts.items()}
    with jax.enable_x64(True):
        exact = jax.jit(
            lambda zs: {
                case: jax.jacfwd(lambda z, c=case: charts[c].to_user(z, jnp.asarray(zero[c])))(z)
                for case, z in zs.items()
            }
        )(zs)
    for case, z in zs.items():
        step = 1e-5  # truncation 1e-10, rounding 1e-11
        rough = np.stack(
            [
                (charts[case].to_user(z + d, zero[case]) - charts[case].to_user(z - d, zero[case]))
                / (2 * step)
                for d in step * np.eye(len(z))
            ],
            axis=1,
        )
        assert_allclose(exact[case], rough, rtol=1e-8, atol=1e-8, err_msg=case)


FORMULAS = [
    (jm.positive, math.log(2.0), 2.0),
    (jm.lower(3.0), math.log(2.0), 5.0),
    (jm.negative, math.log(2.0), -0.5),
    (jm.upper(3.0), -math.log(2.0), 1.0),
    (jm.interval(0.0, 1.0), math.log(3.0), 0.75),
    (jm.interval(-10.0, 10.0), 0.0, 0.0),
]


@pytest.mark.parametrize(("constraint", "z", "x"), FORMULAS)
def test_scalar_maps_are_the_textbook_ones(constraint, z, x):
    assert_allclose(constraint.to_user(np.array([z]), (1,)), [x], rtol=1e-15, atol=1e-15)
    assert_allclose(constraint.to_free(np.array([x]), (1,)), [z], rtol=1e-15, atol=1e-15)


def test_a_correlation_of_one_pair_is_fishers_z():
    z = np.array([0.8])
    assert_allclose(jm.correlation.to_user(z, (2, 2)), np.tanh(z), rtol=1e-15)


def test_a_covariance_is_its_cholesky_factor_with_logged_diagonal():
    matrix = MAPS["covariance"][1]
    factor = np.linalg.cholesky(matrix)
    np.fill_diagonal(factor, np.log(np.diag(factor)))
    assert_allclose(
        chart_of("covariance").to_free(matrix[np.tril_indices(3)]),
        factor[np.tril_indices(3)],
        rtol=1e-14,
    )


def test_a_value_beside_either_bound_keeps_its_digits():
    """From the upper end the map loses nothing relative to the width; 1 − 1e-12 is a number of its own."""
    z = math.log(1e-12)
    assert_allclose(jm.interval(0, 1).to_user(np.array([z]), (1,)), [1e-12], rtol=1e-11)
    assert jm.interval(0, 1).to_user(np.array([-z]), (1,))[0] == 1 - 1e-12


def test_large_free_values_neither_overflow_nor_warn():
    far = np.array([800.0, -800.0])
    with np.errstate(all="raise", under="ignore"):
        assert_allclose(jm.simplex.to_user(far, (3,)), [1.0, 0.0, 0.0], atol=1e-300)
    user = jm.interval(2, 5).to_user(np.array([-40.0, 40.0]), (2,))
    assert_allclose(user, [2, 5], rtol=1e-15)


def test_an_interval_needs_two_ends_in_order():
    for a, b in [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)]:
        with pytest.raises(ValueError, match="an interval needs lower < upper"):
            jm.interval(a, b)


def test_entries_held_by_fix_do_not_move():
    layout = layout_of({"v": np.array([1.0, 2.0, 3.0])}, {"v": jm.positive})
    chart = Chart(layout, (False, True, False))
    assert_allclose(
        chart.to_user(np.log([5.0, 7.0]), np.array([1.0, 2.0, 3.0])), [5.0, 2.0, 7.0], rtol=1e-15
    )
    assert_allclose(chart.to_free(np.array([5.0, 2.0, 7.0])), np.log([5.0, 7.0]), rtol=1e-15)


def test_a_leaf_constrained_as_a_whole_is_held_as_a_whole():
    layout = layout_of({"w": np.full(3, 1 / 3)}, {"w": jm.simplex})
    with pytest.raises(ValueError, match=r"w is constrained as a whole \(simplex\)"):
        Chart(layout, (True, False, False))
    assert Chart(layout, (True, True, True)).k == 0
