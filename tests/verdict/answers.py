"""What a fit is compared with, and a few likelihoods and optimisers that several tests share."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

import jaxmle as jm

POSITION_IN_STDERR = 1e-5  # of estimates against oracles that stop at 1e-7 standard errors
RELATIVE_STDERR = 1e-4  # of standard errors against differences of SciPy's functions


def assert_fit(fit, *names, x=None, se=None, loglik=None, atol=1e-5):
    """Status, estimates (NaN: not compared), standard errors (NaN: there is none) and log-likelihood of a fit."""
    assert fit.verdict.name in names, f"{fit.verdict.name}: {fit.explain()}"
    if x is not None:
        right = np.asarray(x, float)
        compared = ~np.isnan(right)
        scale = np.where(np.isfinite(right), np.maximum(1.0, np.abs(right)), 1.0)
        assert_array_equal(np.isinf(fit.x)[compared], np.isinf(right)[compared])
        assert_allclose((fit.x / scale)[compared], (right / scale)[compared], rtol=0, atol=atol)
    if se is not None:
        assert_allclose(fit.se, np.asarray(se, float), rtol=RELATIVE_STDERR)
    if loglik is not None:
        assert_allclose(fit.loglik, loglik, rtol=1e-7, atol=1e-4)


def members(loglik, starts, data, **options):
    """The fits of one data set from several starts in one batch, apart."""
    count = len(starts)
    starts = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * count), data)
    fits = jm.fit_batch(loglik, starts, stacked, params_axis=0, progress=False, **options)
    return [fits[i] for i in range(count)]


def highest(minus, starts, **options):
    """The best of Nelder–Mead climbs of −ℓ from several starts: (x, ℓ)."""
    settings = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20000, "maxfev": 20000, **options}
    ends = [
        optimize.minimize(minus, start, method="Nelder-Mead", options=settings) for start in starts
    ]
    best = min(ends, key=lambda end: end.fun)
    best = optimize.minimize(minus, best.x, method="Nelder-Mead", options=settings)
    return best.x, -best.fun


def negative_binomial(mean, size, y):
    """As it is mostly written, by log-gamma functions of y + size and of size."""
    gammas = gammaln(y + size) - gammaln(size) - gammaln(y + 1.0)
    return gammas + size * jnp.log(size / (size + mean)) + y * jnp.log(mean / (size + mean))


def beta_binomial(a, b, y, trials):
    """Log mass by log-gamma functions, without the binomial coefficient."""
    top = gammaln(y + a) + gammaln(trials - y + b) - gammaln(trials + a + b)
    return top - gammaln(a) - gammaln(b) + gammaln(a + b)


def two_derivatives(value):
    """x ↦ (Hessian, gradient) as NumPy arrays, from one program: the operations of jax one by one are compiled one by one."""

    def gradient(x):
        slope = jax.grad(value)(x)
        return slope, slope

    both = jax.jit(jax.jacfwd(gradient, has_aux=True))
    return lambda x: tuple(np.asarray(part) for part in both(jnp.asarray(x)))
