"""log of the incomplete gamma and beta functions, both tails, with two derivatives in every argument, against 60-digit tables (make_oracles.py)."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose

from jaxmle import special
from tests.special.oracle import DATA, assert_close, derivatives


def complement(jet, d):
    """The derivatives of log(1 − e^f) from those of f; jet is value, gradient, upper Hessian."""
    f, slopes, second = jet[0], jet[1 : 1 + d], jet[1 + d :]
    odds = -1 / mp.expm1(-f)  # −e^f/(1 − e^f)
    mixed = iter(second)
    value = mp.log1p(-mp.exp(f)) if f < -1 else mp.log(-mp.expm1(f))
    return [
        value,
        *(odds * s for s in slopes),
        *(
            odds * (next(mixed) + slopes[i] * slopes[j] * (1 - odds))
            for i in range(d)
            for j in range(i, d)
        ),
    ]


def gamma_jets(row):
    a, x = mp.mpf(float(row[0])), mp.mpf(float(row[1]))
    f, fa, faa = map(mp.mpf, row[2:])
    density = mp.exp((a - 1) * mp.log(x) - x - mp.loggamma(a) - f) * (1 if x <= a else -1)
    small = [
        f,
        fa,
        density,
        faa,
        density * (mp.log(x) - mp.psi(0, a) - fa),
        density * ((a - 1) / x - 1 - density),
    ]
    return [small, complement(small, 2)] if x <= a else [complement(small, 2), small]


def beta_jets(row):
    a, b, x = (mp.mpf(float(v)) for v in row[:3])
    f, fa, fb, faa, fab, fbb = map(mp.mpf, row[3:])
    lower = x * (a + b) <= a
    density = mp.exp(
        (a - 1) * mp.log(x)
        + (b - 1) * mp.log1p(-x)
        + mp.loggamma(a + b)
        - mp.loggamma(a)
        - mp.loggamma(b)
        - f
    ) * (1 if lower else -1)
    both = mp.psi(0, a + b)
    ax, bx = (
        density * (mp.log(x) - mp.psi(0, a) + both - fa),
        density * (mp.log1p(-x) - mp.psi(0, b) + both - fb),
    )
    small = [
        f,
        fa,
        fb,
        density,
        faa,
        fab,
        ax,
        fbb,
        bx,
        density * ((a - 1) / x - (b - 1) / (1 - x) - density),
    ]
    return [small, complement(small, 3)] if lower else [complement(small, 3), small]


@pytest.fixture(scope="module", params=["gamma", pytest.param("beta", marks=pytest.mark.thorough)])
def case(request):
    """Name, coordinates, and the exact derivatives of the log distribution function and of the log survival function."""
    rows = np.genfromtxt(
        DATA / f"{request.param}_tail.csv", delimiter=",", skip_header=1, dtype=str
    )
    jets = gamma_jets if request.param == "gamma" else beta_jets
    with mp.workdps(80):
        lower, upper = (
            np.array([[float(v) for v in jet] for jet in side])
            for side in zip(*map(jets, rows), strict=True)
        )
    d = 2 if request.param == "gamma" else 3
    return request.param, rows[:, :d].astype(float).T, lower, upper


FUNCTIONS = {
    "gamma": (special.log_gammainc, special.log_gammaincc),
    "beta": (special.log_betainc, special.log_betaincc),
}


@pytest.mark.parametrize("side", [0, 1], ids=["lower", "upper"])
def test_value_and_two_derivatives_at_2000_points(case, side):
    name, coordinates, *exact = case
    assert len(coordinates[0]) == 2000
    found = derivatives(FUNCTIONS[name][side], coordinates)
    usual = np.minimum(*coordinates[:2]) >= (0.05 if name == "beta" else 0)
    assert_close(found[usual], exact[side][usual], coordinates[:, usual])
    # log I is there of the order of the shape itself: a few digits fewer, as the docstring says
    if name == "beta":
        assert_close(
            found[~usual], exact[side][~usual], coordinates[:, ~usual], (5e-13, 1e-11, 5e-9)
        )


def test_single_precision_and_edges():
    """Five digits of scipy's functions, which hold where neither tail underflows; then 0, infinity and what is outside."""
    rng = np.random.default_rng(3)
    a, b, x = np.exp(rng.normal(1, 1, (3, 40))).astype(np.float32)
    y = rng.uniform(0.05, 0.95, 40).astype(np.float32)
    edges = np.array(
        [
            [2.0, 2.0, 2.0, 0.0, 2.0],
            [0.0, np.inf, -1.0, 1.0, np.nan],
            [0.0, 1.0, -0.1, 0.5, np.nan],
        ],
        np.float32,
    )
    nothing = [np.nan] * 3
    a, b, x, y = (
        np.append(a, edges[0]),
        np.append(b, [3.0] * 5).astype(np.float32),
        np.append(x, edges[1]),
        np.append(y, edges[2]),
    )
    for function, arguments, name in (
        (special.log_gammaincc, (a, x), "gammaincc"),
        (special.log_betainc, (a, b, y), "betainc"),
    ):
        found = np.asarray(jax.jit(function)(*arguments))
        assert found.dtype == np.float32
        exact = np.log(getattr(scipy.special, name)(*(v[:40].astype(float) for v in arguments)))
        assert_allclose(found[:40], exact, rtol=1e-4, atol=2e-6)
        assert_allclose(
            found[40:], [*([0, -np.inf] if name.endswith("cc") else [-np.inf, 0]), *nothing]
        )


def total(theta, x):
    """A censored gamma sample with shape and rate: the first half failures, the second half survivors."""
    shape, rate = jnp.exp(theta)
    half = x.size // 2
    seen = (
        shape * jnp.log(rate)
        + (shape - 1) * jnp.log(x[:half])
        - rate * x[:half]
        - special.gammaln(shape)
    )
    return jnp.sum(seen) + jnp.sum(special.log_gammaincc(shape, rate * x[half:]))


def test_hessian_of_a_censored_gamma_likelihood():
    x = np.array([0.4, 1.3, 2.2, 0.9, 3.0, 5.0, 0.2, 9.0])
    theta = np.array([0.3, -0.4])

    def exact(s, r):
        shape, rate = mp.exp(s), mp.exp(r)
        seen = sum(
            shape * mp.log(rate) + (shape - 1) * mp.log(v) - rate * v - mp.loggamma(shape)
            for v in map(mp.mpf, map(float, x[:4]))
        )
        return seen + sum(
            mp.log(mp.gammainc(shape, rate * mp.mpf(float(v)), regularized=True)) for v in x[4:]
        )

    with mp.workdps(40):
        expected = [
            [float(mp.diff(exact, tuple(theta), n)) for n in row]
            for row in (((2, 0), (1, 1)), ((1, 1), (0, 2)))
        ]
    with jax.enable_x64(True):
        found = jax.jit(jax.jacrev(jax.jacfwd(total)))(theta, x)
    assert_allclose(found, expected, rtol=1e-12)


def test_third_derivative_in_the_shape():
    """Bias formulas take it."""
    with mp.workdps(40):
        expected = float(mp.diff(lambda a: mp.log(mp.gammainc(a, 3, regularized=True)), 2, 3))
    with jax.enable_x64(True):
        assert_allclose(
            jax.jit(jax.grad(jax.grad(jax.grad(special.log_gammaincc))))(2.0, 3.0),
            expected,
            rtol=1e-11,
        )
