"""What scipy cannot tell: shapes through 0, far tails, high concentrations. Reference: mpmath with 40 digits."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxmle import families as jf

SHAPES = np.array([-0.3, -1e-3, -1e-9, 0.0, 1e-12, 1e-6, 0.01, 0.4])


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def w(z, shape):
    return z if shape == 0 else mp.log(1 + shape * z) / shape


def gev(z, shape):
    return -(1 + shape) * w(z, shape) - mp.exp(-w(z, shape))


def gpd(z, shape):
    return -(1 + shape) * w(z, shape)


@pytest.mark.parametrize(
    ("family", "exact", "rest"),
    [(jf.gev, gev, {"loc": 0.0, "scale": 1.0}), (jf.generalised_pareto, gpd, {"scale": 1.0})],
    ids=["gev", "gpd"],
)
def test_value_and_two_derivatives_through_shape_zero(family, exact, rest):
    z = np.full(len(SHAPES), 1.7)

    def at(shape, z):
        return family.log_prob({**rest, "shape": shape}, z)

    found = jax.jit(
        lambda s, z: [jax.vmap(f)(s, z) for f in (at, jax.grad(at), jax.grad(jax.grad(at)))]
    )(SHAPES, z)
    with mp.workdps(80):
        # Derivatives by differences of 80 digits with a step of 1e-10: right to 1e-19 times the fourth derivative.
        h, points = mp.mpf("1e-10"), [mp.mpf(float(shape)) for shape in SHAPES]
        value = [exact(mp.mpf(1.7), s) for s in points]
        first = [(exact(mp.mpf(1.7), s + h) - exact(mp.mpf(1.7), s - h)) / (2 * h) for s in points]
        second = [
            (exact(mp.mpf(1.7), s + h) - 2 * v + exact(mp.mpf(1.7), s - h)) / h**2
            for s, v in zip(points, value, strict=True)
        ]
    for ours, theirs, tolerance in zip(
        found, (value, first, second), (1e-14, 1e-13, 1e-12), strict=True
    ):
        assert_allclose(ours, [float(x) for x in theirs], rtol=tolerance, atol=tolerance)


def test_moments_of_extremes_through_shape_zero():
    with mp.workdps(40):
        mean = [
            float(mp.euler)
            if s == 0
            else float((mp.gamma(1 - mp.mpf(float(s))) - 1) / mp.mpf(float(s)))
            for s in SHAPES
        ]
        spread = [
            float(mp.pi**2 / 6)
            if s == 0
            else float(
                (mp.gamma(1 - 2 * mp.mpf(float(s))) - mp.gamma(1 - mp.mpf(float(s))) ** 2)
                / mp.mpf(float(s)) ** 2
            )
            for s in SHAPES
        ]
    params = {"loc": 0.0, "scale": 1.0, "shape": SHAPES}
    assert_allclose(jf.gev.mean(params), mean, rtol=1e-12)
    assert_allclose(jf.gev.variance(params), spread, rtol=1e-11)


def test_quantiles_of_extremes_through_shape_zero():
    params = {"loc": 0.0, "scale": 1.0, "shape": SHAPES}
    for family, known in ((jf.gev, {}), (jf.generalised_pareto, {})):
        own = {name: params[name] for name in family.constraints} | known
        assert_allclose(
            np.exp(family.log_cdf(own, family.quantile(own, np.full(8, 0.37)))), 0.37, rtol=1e-13
        )


def skew_tail(at, shape, which):
    """∫ 2φ(t)Φ(shape·t) from ``at`` downwards (−1) or upwards (1), cut where the integrand bends: beside ``at``, around 0, and at whole numbers."""
    decay = 1 + abs(at) * (1 + shape**2)
    cuts = (
        [at + which * 3 * j / decay for j in range(13)]
        + [mp.mpf(j) / 8 for j in range(-8, 9)]
        + [mp.mpf(j) for j in range(-9, 10)]
    )
    ends = sorted({at, *(c for c in cuts if (c - at) * which > 0), which * mp.mpf(30)})
    return mp.quad(lambda t: 2 * mp.npdf(t) * mp.ncdf(shape * t), ends, method="gauss-legendre")


@pytest.mark.parametrize("shape", [0.2, 3.0, -8.0])
def test_tails_of_the_skew_normal(shape):
    z = np.array([-6.0, -0.5, 0.0, 2.0])
    params = {"loc": 0.0, "scale": 1.0, "shape": shape}
    both = jax.jit(lambda z: (jf.skew_normal.log_cdf(params, z), jf.skew_normal.log_sf(params, z)))(
        z
    )
    with mp.workdps(30):
        for which, found in ((-1, both[0]), (1, both[1])):
            for point, value in zip(z, found, strict=True):
                assert_allclose(
                    value,
                    float(mp.log(skew_tail(mp.mpf(float(point)), shape, which))),
                    rtol=1e-12,
                    atol=1e-13,
                )


def test_tails_of_the_von_mises():
    kappa = np.array([0.01, 2.0, 50.0, 1e4])
    angle = np.array([-3.0, -0.5, 0.0, 0.01, 0.5, 3.0])
    params = {"loc": 0.0, "kappa": kappa[:, None]}
    both = jax.jit(lambda y: (jf.von_mises.log_cdf(params, y), jf.von_mises.log_sf(params, y)))(
        angle[None, :]
    )
    with mp.workdps(30):
        for i, k in enumerate(kappa):
            total = None
            for j, y in enumerate(angle):
                if k * (1 - np.cos(y)) > 600:
                    continue
                cuts = [
                    mp.mpf(v)
                    for u in ("1e-3", "1e-2", "0.03", "0.1", "0.3", "1", "2")
                    for v in (u, "-" + u)
                ]

                def mass(low, high, k=k, cuts=cuts):
                    inside = sorted({low, high, *(c for c in cuts if low < c < high)})
                    return mp.quad(lambda t: mp.exp(k * (mp.cos(t) - 1)), inside)

                total = total or 2 * mass(mp.mpf(0), mp.pi)
                below = mass(-mp.pi, mp.mpf(float(y))) / total
                assert_allclose(both[0][i, j], float(mp.log(below)), rtol=1e-12, atol=1e-13)
                above = mass(mp.mpf(float(y)), mp.pi) / total
                assert_allclose(both[1][i, j], float(mp.log(above)), rtol=1e-12, atol=1e-13)


def test_the_von_mises_at_a_high_concentration_is_normal():
    """κ = 1e8: scale 1e-4, and the density differs from the normal by O(1/κ)."""
    y = 1e-4 * np.array([0.0, 1.0, 3.0])
    found = jf.von_mises.log_prob({"loc": 0.0, "kappa": 1e8}, y)
    assert_allclose(found, jf.normal.log_prob({"loc": 0.0, "scale": 1e-4}, y), rtol=1e-7)
    assert_allclose(
        jf.von_mises.information({"loc": 0.0, "kappa": 1e8}), np.diag([0.5e-16, 1e8]), rtol=1e-6
    )


def test_beside_the_least_value_of_a_pareto_nothing_is_lost():
    y = 2.0 * (1 + 1e-12)
    with mp.workdps(40):
        wanted = float(mp.log(1 - mp.exp(-3 * mp.log(mp.mpf(y) / 2))))
    assert_allclose(jf.pareto.log_cdf({"shape": 3.0, "scale": 2.0}, y), wanted, rtol=1e-13)


def test_heavy_overflow_has_a_finite_score():
    slope = jax.grad(lambda scale: jf.gumbel.log_prob({"loc": 0.0, "scale": scale}, -900.0))(1.0)
    assert np.isfinite(slope)
    assert jnp.isfinite(jf.gumbel.log_prob({"loc": 0.0, "scale": 1.0}, -900.0))
