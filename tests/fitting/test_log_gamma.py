"""log Γ of a negative number: jax's lgamma is log |Γ| there, finite between the poles, and no
likelihood means it. Right answers are those of SciPy within the domain.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from numpy.testing import assert_allclose
from scipy import optimize, special

import jaxmle as jm

TRIALS = 12.0
STDERR_OF_SEARCH = 1e-4  # in standard errors: how close SciPy's Nelder–Mead comes


def beta_binomial(t, y):
    a, b = t[0], t[1]
    top = gammaln(y + a) + gammaln(TRIALS - y + b) - gammaln(TRIALS + a + b)
    return top - gammaln(a) - gammaln(b) + gammaln(a + b)


def in_a_scan(t, y):
    return jax.lax.scan(lambda c, row: (c + beta_binomial(t, row), None), 0.0, y)[0]


def in_a_while_loop(t, y):
    def add(state):
        row, total = state
        return row + 1, total + beta_binomial(t, y[row])

    return jax.lax.fori_loop(0, len(y), lambda _, state: add(state), (0, 0.0))[1]


def in_a_branch(t, y):
    return jax.lax.cond(t[0] < 1e6, lambda t: beta_binomial(t, y), lambda t: 0 * y, t)


def in_an_inner_jit(t, y):
    return jax.jit(beta_binomial)(t, y)


def under_a_checkpoint(t, y):
    return jax.checkpoint(beta_binomial)(t, y)


def counts(seed, size=60):
    r = np.random.default_rng(seed)
    return r.binomial(12, r.beta(r.uniform(0.5, 5), r.uniform(0.5, 5), size=size)).astype(float)


def highest(y):
    """The estimates of SciPy, with positive parameters."""

    def minus(log_t):
        a, b = np.exp(log_t)
        return -np.sum(special.betaln(y + a, TRIALS - y + b) - special.betaln(a, b))

    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 5000}
    return np.exp(optimize.minimize(minus, [0.0, 0.0], method="Nelder-Mead", options=options).x)


def assert_near(fit, x):
    assert fit.status == "CONVERGED", fit.explain()
    assert np.max(np.abs(fit.x - x) / fit.se) < STDERR_OF_SEARCH


@pytest.mark.parametrize("start", [[0.25, 2.1], [12.8, 0.13], [0.96, 0.1], [4.0, 0.45], [1.0, 1.0]])
@pytest.mark.parametrize("seed", [1, 5])
def test_a_raw_beta_binomial_was_unbounded_from_ordinary_starts(seed, start):
    """Seven of twelve random starts: a step beyond the pole at zero, where ℓ rises for ever."""
    y = counts(seed)
    assert_near(jm.fit(beta_binomial, np.array(start), y), highest(y))


@pytest.mark.parametrize(
    "form", [in_a_scan, in_a_while_loop, in_a_branch, in_an_inner_jit, under_a_checkpoint]
)
def test_log_gamma_is_found_wherever_it_is_computed(form):
    y = counts(2, 20)
    for start in ([0.25, 2.1], [12.8, 0.13]):
        assert_near(jm.fit(form, np.array(start), y), highest(y))


class Model:
    """A likelihood as an object and as a method."""

    def __call__(self, t, y):
        return beta_binomial(t, y)

    def loglik(self, t, y):
        return beta_binomial(t, y)


CALLABLES = {
    "jit": jax.jit(beta_binomial),
    "partial": functools.partial(lambda scale, t, y: scale * beta_binomial(t, y), 1.0),
    "object": Model(),
    "method": Model().loglik,
    "penalized": jm.penalize(lambda t, y: beta_binomial(t, y), lambda t: 0.0 * t[0]),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_log_gamma_is_kept_to_its_domain_in_any_callable(kind):
    y = counts(5)
    for start in ([0.25, 2.1], [12.8, 0.13]):
        assert_near(jm.fit(CALLABLES[kind], np.array(start), y), highest(y))


def test_a_raw_beta_binomial_in_a_batch_is_kept_to_its_domain_too():
    data = [counts(seed, 30 + seed) for seed in range(5)]
    fits = jm.fit_batch(beta_binomial, np.array([12.8, 0.13]), data, progress=False)
    for i, y in enumerate(data):
        assert_near(fits[i], highest(y))


def test_log_gamma_is_kept_to_its_domain_under_jit_and_vmap_too():
    """Starts from which the ascent took a step beyond the pole, and an ordinary one."""
    y = counts(5)
    starts = np.array([[0.25, 2.1], [12.8, 0.13], [1.0, 1.0]])
    program = jax.jit(jax.vmap(lambda start, y: jm.fit(beta_binomial, start, y), (0, None)))
    with jax.enable_x64(True):
        fits = program(starts, y)
    for i in range(len(starts)):
        assert_near(jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], fits), highest(y))


def test_log_gamma_of_negative_numbers_on_purpose_is_left_as_it_is_under_jit():
    y = np.random.default_rng(0).normal(3.8, 0.1, 50)
    loglik = lambda t, y: -0.5 * ((y - jnp.exp(gammaln(-t[0]))) / 0.1) ** 2  # noqa: E731
    program = jax.jit(lambda start, y: jm.fit(loglik, start, y))
    for start in (0.3, -4.0):
        with jax.enable_x64(True):
            fit = jax.tree.map(np.asarray, program(np.array([start]), y))
        assert fit.status == "CONVERGED"
        assert np.sign(fit.x[0]) == np.sign(start)
        assert_allclose(abs(special.gamma(-fit.x[0])), y.mean(), rtol=1e-9)


@pytest.mark.parametrize("start", [[50.0, 0.3], [35.0, 0.5], [100.0, 0.1]])
def test_a_raw_number_of_animals_went_below_those_that_were_caught(start):
    """Zippin's removal method: N was 25 where 31 had been caught, or the likelihood unbounded."""
    caught = np.array([10, 8, 7, 3, 2, 1, 0.0])
    total = caught.sum()

    def loglik(t, d):
        left = t[0] - jnp.concatenate([jnp.zeros(1), jnp.cumsum(d)])[:-1] - d
        ways = gammaln(t[0] + 1) - gammaln(t[0] - total + 1)
        return ways + total * jnp.log(t[1]) + jnp.sum(left) * jnp.log1p(-t[1])

    def minus(z):
        n, p = total + np.exp(z[0]), special.expit(z[1])
        missed = np.sum(n - np.cumsum(caught))
        ways = special.gammaln(n + 1) - special.gammaln(n - total + 1)
        return -(ways + total * np.log(p) + missed * np.log1p(-p))

    options = {"xatol": 1e-10, "fatol": 1e-13}
    z = optimize.minimize(minus, [1.0, 0.0], method="Nelder-Mead", options=options).x
    fit = jm.fit(loglik, np.array(start), caught)
    assert_near(fit, [total + np.exp(z[0]), special.expit(z[1])])


def test_log_gamma_of_negative_numbers_on_purpose_is_left_as_it_is():
    """|Γ(−t)| with 0 < t < 1, as of a tempered stable law; also after a fit of the same function
    that began where the argument is positive.
    """
    y = np.random.default_rng(0).normal(3.8, 0.1, 50)
    loglik = lambda t, y: -0.5 * ((y - jnp.exp(gammaln(-t[0]))) / 0.1) ** 2  # noqa: E731
    for start in (0.3, -4.0, 0.3):
        fit = jm.fit(loglik, np.array([start]), y)
        assert fit.status == "CONVERGED"
        assert np.sign(fit.x[0]) == np.sign(start)
        assert_allclose(abs(special.gamma(-fit.x[0])), y.mean(), rtol=1e-9)


def test_a_binomial_coefficient_of_impossible_counts_stays_zero():
    """log Γ is +∞ at 0, −1, −2, …: an N-mixture sums over all N, also those below a count. The
    oracle leaves these out by a mask.
    """
    r = np.random.default_rng(1)
    animals = r.negative_binomial(3, 1 / 3, size=(80, 1))
    y = r.binomial(animals, 0.4, size=(80, 3)).astype(float)
    sizes = jnp.arange(0.0, 80.0)

    def loglik(masked, t, d):
        p = jax.nn.sigmoid(t[1])
        share = t[2] / (t[2] + jnp.exp(t[0]))  # a negative binomial of mean exp t₀ and size t₂
        prior = gammaln(sizes + t[2]) - gammaln(t[2]) - gammaln(sizes + 1)
        prior = prior + t[2] * jnp.log(share) + sizes * jnp.log1p(-share)

        def row(counts):
            n, k = sizes[:, None], counts[None]
            left = jnp.where(n >= k, n - k, 0.0) if masked else n - k
            ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(left + 1)
            terms = jnp.sum(ways + k * jnp.log(p) + left * jnp.log1p(-p), axis=1)
            possible = jnp.all(n >= k, axis=1) if masked else True
            return jax.scipy.special.logsumexp(prior + terms, where=possible)

        return jax.vmap(row)(d)

    written, oracle = (
        jm.fit(functools.partial(loglik, masked), np.array([1.5, 0.0, 2.0]), y)
        for masked in (False, True)
    )
    assert written.status == oracle.status
    assert_allclose(written.loglik, oracle.loglik, rtol=1e-9)
    assert_allclose(written.x, oracle.x, rtol=1e-6)


def test_what_is_not_asked_for_changes_nothing_else():
    """A likelihood with parameters within their domain: estimates and errors to the last digits."""
    y = counts(3)
    raw = jm.fit(beta_binomial, np.array([1.0, 1.0]), y)
    declared = jm.fit(
        lambda p, y: beta_binomial(jnp.stack([p["a"], p["b"]]), y),
        {"a": 1.0, "b": 1.0},
        y,
        constraints=jm.positive,
    )
    assert_allclose(raw.x, declared.x, rtol=1e-9)
    assert_allclose(raw.se, declared.se, rtol=1e-7)
