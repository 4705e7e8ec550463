"""Concavity proved from a program: of what is concave by the textbook, and of nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import norm, poisson

import jaxmle as jm
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.concavity import is_concave

X = np.linspace(-1, 1, 12)
COUNTS = 1.0 + np.arange(12) % 5
BINARY = np.arange(12) % 2.0
SIGNS = 2 * BINARY - 1


def line(t, x):
    return t[0] + t[1] * x


def zero_inflated(t, y):
    rest = jax.nn.log_sigmoid(-t[1]) + poisson.logpmf(y, jnp.exp(t[0]))
    return jnp.where(
        y == 0, jnp.logaddexp(jax.nn.log_sigmoid(t[1]), jax.nn.log_sigmoid(-t[1])), rest
    )


def by_rows(t, d):
    return jax.lax.scan(lambda c, r: (c, jax.nn.log_sigmoid(r[1] * line(t, r[0]))), 0.0, d)[1]


def negative_binomial(t, y):
    mean, size = jnp.exp(t[0]), jnp.exp(t[1])
    gammas = gammaln(y + size) - gammaln(size)
    return gammas + size * (t[1] - jnp.log(size + mean)) + y * (t[0] - jnp.log(size + mean))


CONCAVE = {
    "logaddexp": (lambda t, d: d[1] * line(t, d[0]) - jnp.logaddexp(0, line(t, d[0])), (X, BINARY)),
    "log_of_a_share": (lambda t, d: jnp.log1p(-jax.nn.sigmoid(line(t, d))), X),
    "probit": (lambda t, d: norm.logcdf(d[1] * line(t, d[0])), (X, SIGNS)),
    "softmax": (
        lambda t, d: jax.nn.log_softmax(d[:, None] * jnp.append(t, 0.0)[None, :], axis=1)[:, 0],
        X,
    ),
    "poisson": (lambda t, d: poisson.logpmf(d[1], jnp.exp(line(t, d[0]))), (X, COUNTS)),
    "rows_in_a_loop": (by_rows, (X, SIGNS)),
    "zero_inflated_without_zeros": (zero_inflated, COUNTS),
    "a_convex_function_times_negative_data": (lambda t, d: d * jnp.exp(line(t, X)), -COUNTS),
    "less_a_matrix_of_positive_data": (
        lambda t, d: -(d @ jnp.exp(t)),
        np.outer(COUNTS, [1.0, 2.0]),
    ),
    "a_convex_function_divided_by_negative_data": (lambda t, d: jnp.exp(line(t, X)) / d, -COUNTS),
}
NOT_CONCAVE = {
    "zero_inflated_with_zeros": (zero_inflated, COUNTS - 1),
    "negative_binomial": (negative_binomial, COUNTS),
    "normal_with_log_deviation": (lambda t, d: norm.logpdf(d, t[0], jnp.exp(t[1])), X),
    "a_convex_term": (lambda t, d: t[0] ** 2 - t[1] ** 2 + d, X),
    "a_product": (lambda t, d: -((d - t[0] * t[1]) ** 2), X),
    "a_convex_function_times_data_of_both_signs": (lambda t, d: d * jnp.exp(line(t, X)), SIGNS),
    "a_matrix_of_data_of_both_signs": (
        lambda t, d: d @ jnp.exp(t),
        np.outer(COUNTS, [-1.0, 1.0]),
    ),
    "a_convex_function_divided_by_data_of_both_signs": (
        lambda t, d: jnp.exp(line(t, X)) / d,
        SIGNS,
    ),
}


def proved(loglik, data):
    with jax.enable_x64(True):
        layout = jm.fit(loglik, np.zeros(2), data, max_steps=1).layout
        free = np.ones(2, bool)
        return is_concave(as_tree(loglik), layout, np.array([0.1, 0.2]), free, data)


@pytest.mark.parametrize("name", CONCAVE)
def test_a_likelihood_that_is_concave_is_proved_to_be(name):
    assert proved(*CONCAVE[name])


@pytest.mark.parametrize("name", NOT_CONCAVE)
def test_a_likelihood_that_is_not_concave_is_never_proved_to_be(name):
    assert not proved(*NOT_CONCAVE[name])
