"""Every family against scipy: values, tails, quantiles, moments, scores, samples, information, and what lies outside the support."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import kolmogorov

from jaxmle import families as jf

from .table import ROWS

LEVELS = np.array([1e-6, 0.01, 0.3, 0.5, 0.8, 0.999, 1 - 1e-6])
ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.family.name.replace(" ", "_"))
N = 100_000


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def per_value(family, params, y):
    """The derivative of each log_prob in each parameter, a dictionary of arrays like y."""
    free = {name: jnp.broadcast_to(params[name], y.shape) for name in family.constraints}
    known = {name: params[name] for name in family.known}
    return jax.grad(lambda free: jnp.sum(family.log_prob({**free, **known}, y)))(free)


def points(row):
    """scipy's quantiles (3, 7); and (3, 6) what is outside: ±∞, NaN, beyond each end where there is one, between whole numbers."""
    peer = row.peer(row.columns)
    y = np.broadcast_to(peer.ppf(LEVELS[None, :]), (3, len(LEVELS)))
    low, high = (
        np.broadcast_to(np.asarray(end, float), (3, 1)) for end in row.family.support(row.columns)
    )
    turning = row.family is jf.von_mises  # an angle is never outside
    beyond = [
        low - 0.5 if np.all(np.isfinite(low)) and not turning else np.full_like(low, -np.inf),
        high + 0.5 if np.all(np.isfinite(high)) and not turning else np.full_like(high, np.inf),
    ]
    between = np.full((3, 1), 0.5 if row.family.discrete else np.inf)
    edge = np.broadcast_to([-np.inf, np.inf, np.nan], (3, 3))
    return peer, y, np.concatenate([edge, *beyond, between], axis=1)


@functools.cache
def evaluated(index):
    """Everything that one compilation gives of a family: inside, (3, 7), and outside, (3, 6)."""
    row = ROWS[index]
    family, params = row.family, row.columns
    with jax.enable_x64(True):
        peer, inside, outside = points(row)
        y = np.concatenate([inside, outside], axis=1)
        q = (
            peer.cdf(inside) - 0.5 * peer.pmf(inside)
            if family.discrete
            else np.broadcast_to(LEVELS, inside.shape)
        )
        q = np.concatenate([q, np.broadcast_to([0.0, 1.0, 1.5, -0.5, np.nan, 0.5], (3, 6))], axis=1)
        found = jax.tree.map(np.asarray, jax.jit(functools.partial(everything, row))(params, y, q))
    split = {name: value for name, value in found.items() if name not in ("mean", "variance")}
    return (
        peer,
        inside,
        q[:, :7],
        found | jax.tree.map(lambda a: a[:, :7], split),
        jax.tree.map(lambda a: a[:, 7:], split),
    )


def with_slope(row):
    return row.slope and not row.family.discrete


def everything(row, params, y, q):
    family = row.family
    found = {
        "log_prob": family.log_prob(params, y),
        "score": per_value(family, params, y),
        "mean": family.mean(params),
        "variance": family.variance(params),
    }
    if family.law.log_cdf is not None:
        found |= {"log_cdf": family.log_cdf(params, y), "log_sf": family.log_sf(params, y)}
    if "log_cdf" in found and row.quantile:
        found["quantile"] = family.quantile(params, q)
    if with_slope(row):
        found["slope"] = jax.jvp(lambda y: family.log_cdf(params, y), (y,), (jnp.ones_like(y),))[1]
    return found


def assert_same(found, wanted, tolerance=1e-12):
    assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@ROW
def test_log_prob_is_scipys(row):
    peer, y, _, found, _ = evaluated(ROWS.index(row))
    assert_same(found["log_prob"], peer.logpmf(y) if row.family.discrete else peer.logpdf(y))


WITH_TAILS = pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.family.law.log_cdf],
    ids=lambda row: row.family.name.replace(" ", "_"),
)


@WITH_TAILS
def test_tails_and_quantiles_are_scipys(row):
    peer, y, q, found, _ = evaluated(ROWS.index(row))
    tolerance = 1e-7 if row.rough else 1e-11  # scipy's own tails; mpmath's are in test_tails.py
    assert_same(np.exp(found["log_cdf"]), peer.cdf(y), 1e-7 if row.rough else 1e-12)
    assert_same(np.exp(found["log_sf"]), peer.sf(y), 1e-7 if row.rough else 1e-12)
    if not row.rough:
        with np.errstate(divide="ignore"):
            assert_same(found["log_cdf"], np.log(peer.cdf(y)), tolerance)
            assert_same(found["log_sf"], np.log(peer.sf(y)), tolerance)
    if row.quantile:
        assert_allclose(found["quantile"], peer.ppf(q), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if with_slope(row)],
    ids=lambda row: row.family.name.replace(" ", "_"),
)
def test_the_density_is_the_slope_of_the_distribution_function(row):
    *_, found, _ = evaluated(ROWS.index(row))
    assert_allclose(
        np.log(found["slope"]), found["log_prob"] - found["log_cdf"], rtol=1e-9, atol=1e-9
    )


@ROW
def test_scores_are_the_differences_of_scipys_log_density(row):
    _, y, _, found, _ = evaluated(ROWS.index(row))
    y = y[:, 1:-1]
    for name in row.family.constraints:
        step = 1e-5 * np.maximum(np.abs(row.columns[name]), 0.01)
        values = []
        for sign in (1, -1):
            peer = row.peer(row.columns | {name: row.columns[name] + sign * step})
            values.append(peer.logpmf(y) if row.family.discrete else peer.logpdf(y))
        wanted = (values[0] - values[1]) / (2 * step)
        # Central differences: 1e-16 |ℓ|/step of rounding, and h² of the third derivative.
        size = 1e-10 * (1 + np.abs(values[0])) / step + 1e-6 * np.abs(wanted)
        off = np.abs(found["score"][name][:, 1:-1] - wanted)
        corner = (row.family is jf.laplace) & (np.abs(y - row.columns.get("loc", 0)) < 1e-3)
        assert np.all((off <= size) | corner), (name, np.max(off / size))


@ROW
def test_moments_are_scipys(row):
    peer, _, _, found, _ = evaluated(ROWS.index(row))
    if row.family is jf.von_mises:
        assert_same(found["mean"], row.columns["loc"])
        return
    if row.family is jf.student_t:  # below one degree of freedom there is no mean; scipy says ∞
        assert_same(found["mean"][[0, 2]], peer.mean()[[0, 2]])
        assert np.isnan(found["mean"][1])
    else:
        assert_allclose(found["mean"], peer.mean(), rtol=1e-11)
    heavy = row.family is jf.pareto  # scipy has a NaN for the variance where the mean is infinite
    assert_allclose(
        found["variance"][0 if heavy else slice(None)],
        peer.var()[0 if heavy else slice(None)],
        rtol=1e-11,
    )


@functools.cache
def drawn(index):
    row = ROWS[index]
    with jax.enable_x64(True):
        return np.asarray(row.family.sample(row.first, jax.random.key(index), (N,)))


@pytest.mark.thorough
@ROW
def test_samples_have_scipys_distribution(row):
    """Kolmogorov–Smirnov, or χ² of the cells that hold five or more, at n = 1e5; a right sampler fails one key in 10⁶."""
    y, peer = drawn(ROWS.index(row)), row.peer(row.first)
    if not row.family.discrete:
        ordered, steps = peer.cdf(np.sort(y)), np.arange(N + 1) / N
        distance = max(np.max(ordered - steps[:-1]), np.max(steps[1:] - ordered))
        assert kolmogorov(np.sqrt(N) * distance) > 1e-6
        return
    assert np.issubdtype(y.dtype, np.integer)
    cells = np.arange(y.max() + 1)
    wanted = N * peer.pmf(cells)
    enough = wanted >= 5
    found, rest = np.bincount(y)[enough], N - wanted[enough].sum()
    table = np.append(
        (found - wanted[enough]) ** 2 / wanted[enough],
        (N - found.sum() - rest) ** 2 / max(rest, 1.0),
    )
    assert row.peer.__name__ and chi_square_tail(table.sum(), len(table) - 1) > 1e-6


def chi_square_tail(x, df):
    from scipy.special import chdtrc

    return chdtrc(df, x)


WITH_INFORMATION = [row for row in ROWS if row.family.law.information]


@pytest.mark.parametrize("row", WITH_INFORMATION, ids=lambda row: row.family.name.replace(" ", "_"))
def test_expected_information_is_the_mean_square_of_simulated_scores(row):
    family, y = row.family, drawn(ROWS.index(row)).astype(float)
    scores = jax.jit(functools.partial(per_value, family))(row.first, y)
    table = np.stack([np.asarray(scores[name]) for name in family.names], axis=-1)
    products = table[:, :, None] * table[:, None, :]
    error = products.std(axis=0) / np.sqrt(N)
    found = np.asarray(family.information(row.first))
    assert found.shape == (len(family.names),) * 2
    assert np.all(np.abs(products.mean(axis=0) - found) <= 4 * error + 1e-12), (
        products.mean(axis=0) - found
    ) / error


def test_information_broadcasts():
    found = jf.gamma.information({"rate": np.ones((3, 1)), "shape": np.array([[1.0, 2.0]])})
    assert found.shape == (3, 2, 2, 2)
    assert jf.skew_normal.information({"loc": 0.0, "scale": 1.0, "shape": 1.0}) is None


def test_information_of_a_location_and_scale_has_known_values():
    assert_same(
        jf.gumbel.information({"loc": 0.0, "scale": 2.0}),
        np.array([[1.0, -0.4227843350984671], [-0.4227843350984671, 1.8236806608528794]]) / 4,
    )


# ---------------------------------------------------------------- outside the support


@ROW
def test_outside_the_support_the_log_density_is_minus_infinity_with_finite_derivatives(row):
    *_, outside = evaluated(ROWS.index(row))
    beyond = np.array([0, 1, 3, 4, 5])
    assert np.all(np.isneginf(outside["log_prob"][:, beyond]))
    assert np.all(np.isnan(outside["log_prob"][:, 2])), "NaN stays NaN"
    for name, score in outside["score"].items():
        assert np.all(np.isfinite(score[:, beyond])), name


@WITH_TAILS
def test_the_tails_beyond_the_support_are_0_and_1(row):
    *_, outside = evaluated(ROWS.index(row))
    low, high = (
        np.broadcast_to(np.asarray(end, float), (3, 1))[:, 0]
        for end in row.family.support(row.columns)
    )
    for column, cdf, sf in (
        (0, -np.inf, 0.0),
        (1, 0.0, -np.inf),
        (3, -np.inf, 0.0),
        (4, 0.0, -np.inf),
    ):
        assert np.all(outside["log_cdf"][:, column] == cdf)
        assert np.all(outside["log_sf"][:, column] == sf)
    if not row.quantile:
        return
    assert_same(outside["quantile"][:, 0], low)
    assert_same(outside["quantile"][:, 1], high)
    assert np.all(np.isnan(outside["quantile"][:, 2:5]))


@pytest.mark.parametrize(
    ("family", "params", "y", "wanted"),
    [
        (jf.gamma, {"shape": 1.0, "rate": 3.0}, 0.0, np.log(3.0)),
        (jf.gamma, {"shape": 2.0, "rate": 3.0}, 0.0, -np.inf),
        (jf.gamma, {"shape": 0.5, "rate": 3.0}, 0.0, np.inf),
        (jf.exponential, {"rate": 3.0}, 0.0, np.log(3.0)),
        (jf.weibull, {"shape": 1.0, "scale": 2.0}, 0.0, -np.log(2.0)),
        (jf.lognormal, {"meanlog": 0.0, "sdlog": 1.0}, 0.0, -np.inf),
        (jf.beta, {"shape1": 1.0, "shape2": 3.0}, 0.0, np.log(3.0)),
        (jf.beta, {"shape1": 3.0, "shape2": 1.0}, 1.0, np.log(3.0)),
        (jf.beta, {"shape1": 2.0, "shape2": 0.5}, 1.0, np.inf),
        (jf.pareto, {"shape": 3.0, "scale": 2.0}, 2.0, np.log(1.5)),
        (jf.generalised_pareto, {"shape": 0.2, "scale": 2.0}, 0.0, -np.log(2.0)),
    ],
)
def test_the_log_density_at_the_end_of_the_support(family, params, y, wanted):
    assert_same(family.log_prob(params, y), wanted)


def test_on_the_host_a_family_runs_in_float64_and_under_a_trace_in_that_of_the_trace():
    assert_allclose(
        jf.poisson.log_prob({"rate": 2}, np.array([0, 3], np.int8)),
        [-2.0, -2.0 + 3 * np.log(2) - np.log(6)],
    )
    with jax.enable_x64(False):
        y, params = np.array([0, 127], np.int8), {"rate": np.float32(0.3)}
        found = jf.poisson.log_prob(params, y)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        assert_allclose(
            found, stats.poisson.logpmf(y.astype(int), float(params["rate"])), rtol=1e-13
        )
        assert isinstance(jf.poisson.mean(params), np.float64)
        traced = jax.jit(lambda p: jf.exponential.log_prob(p, np.array([0, 3])))({"rate": 2.0})
        assert traced.dtype == np.float32
        assert_allclose(traced, np.log(2) - np.array([0.0, 6.0]), rtol=1e-6)


def test_quantiles_differentiate_by_the_implicit_function_theorem():
    """dy/dq = 1/f(y), and dy/dθ = −F_θ/f; a scale moves the quantile in proportion."""
    params = {"loc": jnp.asarray(0.0), "kappa": jnp.asarray(2.3)}
    y, slope = jax.jit(
        jax.value_and_grad(
            lambda q, loc: jf.von_mises.quantile(params | {"loc": loc}, q), argnums=(0, 1)
        )
    )(jnp.asarray(0.9), jnp.asarray(0.5))
    assert_allclose(
        slope, [np.exp(-jf.von_mises.log_prob(params | {"loc": 0.5}, y)), 1.0], rtol=1e-10
    )


def test_the_slope_of_a_laplace_density_at_its_corner_is_the_mean_of_its_two_sides():
    def score(loc):
        return jax.grad(lambda m: jf.laplace.log_prob({"loc": m, "scale": 2.0}, 1.0))(loc)

    assert_allclose([score(1.0 - 1e-9), score(1.0), score(1.0 + 1e-9)], [0.5, 0.0, -0.5])


@ROW
def test_a_family_says_in_its_docstring_what_it_is(row):
    assert "scipy" in row.family.__doc__ or "distribution" in row.family.__doc__
    assert row.family.__doc__ != jf.Family.__doc__
