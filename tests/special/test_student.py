"""Student's t, log density and log distribution function, against mpmath, up to the normal at df = inf."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose

from jaxmle import special
from tests.special.oracle import DATA, assert_close, derivatives

N = 2000


def density(z, nu):
    """log density, gradient and upper Hessian in (z, ν)."""
    psi, s = mp.psi, nu + z * z
    value = (
        mp.loggamma((nu + 1) / 2)
        - mp.loggamma(nu / 2)
        - mp.log(nu * mp.pi) / 2
        - (nu + 1) / 2 * mp.log1p(z * z / nu)
    )
    in_nu = (
        psi(0, (nu + 1) / 2)
        - psi(0, nu / 2)
        - 1 / nu
        - mp.log1p(z * z / nu)
        + (nu + 1) * z * z / (nu * s)
    ) / 2
    in_nunu = (
        psi(1, (nu + 1) / 2) / 2
        - psi(1, nu / 2) / 2
        + 1 / nu**2
        + 2 * z * z / (nu * s)
        - (nu + 1) * z * z * (2 * nu + z * z) / (nu * s) ** 2
    ) / 2
    return (
        value,
        -(nu + 1) * z / s,
        in_nu,
        -(nu + 1) * (nu - z * z) / s**2,
        z * (1 - z * z) / s**2,
        in_nunu,
    )


def test_log_density():
    rng = np.random.default_rng(1)
    nu, z = 10 ** rng.uniform(-2, 12, N), rng.normal(0, 3, N)
    z[:400] = 10 ** rng.uniform(-6, 6, 400)
    nu[400:420], z[400:420] = 20.0, np.linspace(-6, 6, 20)  # where Stirling's form begins
    with mp.workdps(70):
        exact = np.array(
            [
                [float(v) for v in density(mp.mpf(float(s)), mp.mpf(float(t)))]
                for s, t in zip(z, nu, strict=True)
            ]
        )
    assert_close(derivatives(special.student_t_logpdf, (z, nu)), exact, (z, nu))


@pytest.mark.thorough
def test_normal_limit_and_its_slopes_in_the_inverse_of_df():
    z = np.linspace(-5, 5, 11)

    def three(z, w):
        first = jax.grad(special.student_t_logpdf_inverse_df, 1)
        second = jax.grad(first, 1)
        return (
            special.student_t_logpdf_inverse_df(z, w),
            first(z, w),
            second(z, w),
            jax.grad(second, 1)(z, w),
        )

    with jax.enable_x64(True):
        value, slope, curvature, third = jax.jit(jax.vmap(three, (0, None)))(z, 0.0)
    assert_allclose(value, -0.5 * z**2 - 0.5 * np.log(2 * np.pi), rtol=1e-15)
    assert_allclose(slope, (z**4 - 2 * z**2 - 1) / 4, rtol=1e-14)
    assert_allclose(
        curvature, z**4 / 2 - z**6 / 3, rtol=1e-13, atol=1e-15
    )  # −½(1 + w)(z² − wz⁴/2 + w²z⁶/3 − w³z⁸/4)
    assert_allclose(
        third, 0.25 - z**6 + 0.75 * z**8, rtol=1e-12, atol=1e-15
    )  # and w³/24 of log Γ((ν + 1)/2) − log Γ(ν/2) − ½ log(ν/2)


@pytest.mark.thorough
def test_log_distribution_function_at_2000_points_of_either_sign():
    rows = np.genfromtxt(DATA / "t_tail.csv", delimiter=",", skip_header=1, dtype=str)
    assert len(rows) == N

    def jets(row):
        z, nu = mp.mpf(float(row[0])), mp.mpf(float(row[1]))
        f, fn, fnn = map(mp.mpf, row[2:])
        value, in_z, in_nu, *_ = density(z, nu)
        hazard = mp.exp(value - f)
        small = [f, hazard, fn, hazard * (in_z - hazard), hazard * (in_nu - fn), fnn]
        odds = -1 / mp.expm1(-f)
        first, second = (
            [-odds * hazard, odds * fn],
            [
                small[3] + hazard**2 * (1 - odds),
                -small[4] - hazard * fn * (1 - odds),
                fnn + fn**2 * (1 - odds),
            ],
        )
        return small, [
            mp.log1p(-mp.exp(f)) if f < -1 else mp.log(-mp.expm1(f)),
            *first,
            *(odds * s for s in second),
        ]

    with mp.workdps(50):
        lower, upper = (
            np.array([[float(v) for v in jet] for jet in side])
            for side in zip(*map(jets, rows), strict=True)
        )
    z, nu = rows[:, 0].astype(float), rows[:, 1].astype(float)
    found = derivatives(
        special.student_t_logcdf,
        (np.concatenate([z, -z, EDGES[0]]), np.concatenate([nu, nu, EDGES[1]])),
    )
    for got, exact, sign in ((found[:N], lower, 1), (found[N : 2 * N], upper, -1)):
        assert_close(got, exact, (sign * z, nu))
    # at 0: ½, slope 2f(0), nothing in ν; at df = inf the normal; a negative df gives NaN
    edges = found[2 * N :]
    assert_allclose(
        edges[0, :3], [-np.log(2), 2 * np.exp(float(density(0.0, 3.0)[0])), 0], atol=1e-15
    )
    assert_allclose(edges[1:5, 0], scipy.special.log_ndtr(EDGES[0, 1:5]), rtol=2e-13)
    assert_allclose(edges[1:5, 2], 0, atol=1e-15)
    assert np.isnan(edges[5, 0])


EDGES = np.array([[0.0, -8.0, -1.0, 1.0, 3.0, 1.0], [3.0, np.inf, np.inf, np.inf, np.inf, -1.0]])


def total(theta, y):
    """A sample right-censored in its second half, with location, log scale and log degrees of freedom."""
    loc, scale, df = theta[0], jnp.exp(theta[1]), jnp.exp(theta[2])
    z, half = (y - loc) / scale, y.size // 2
    return (
        jnp.sum(special.student_t_logpdf(z[:half], df))
        - half * theta[1]
        + jnp.sum(special.student_t_logsf(z[half:], df))
    )


def test_hessian_of_a_censored_t_likelihood():
    y, theta = np.array([0.4, -1.3, 2.2, 0.9, 3.0, 0.3, -0.8, 5.0]), np.array([0.2, -0.1, 1.2])

    def exact(m, s, t):
        nu, half = mp.exp(t), mp.mpf("0.5")
        z = [(mp.mpf(float(v)) - m) / mp.exp(s) for v in y]

        def survival(v):
            inner = mp.betainc(nu / 2, half, 0, nu / (nu + v * v), regularized=True) / 2
            return inner if v > 0 else 1 - inner

        return (
            sum(density(v, nu)[0] for v in z[:4]) - 4 * s + sum(mp.log(survival(v)) for v in z[4:])
        )

    with mp.workdps(20):
        unit = np.eye(3, dtype=int)
        expected = np.zeros((3, 3))
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
            expected[i, j] = expected[j, i] = mp.diff(
                exact, tuple(theta), tuple(int(v) for v in unit[i] + unit[j])
            )
    with jax.enable_x64(True):
        found = jax.jit(jax.hessian(total))(theta, y)
    assert_allclose(found, expected, rtol=1e-10)
