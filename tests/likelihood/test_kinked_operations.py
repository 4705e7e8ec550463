"""Which programs may have kinks in the parameters: |x| and its kin, and no guard of a special function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats
from jax.scipy.special import gammaln, log_ndtr, logsumexp

from jaxmle import families, models
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.discovery.kinked_operations import may_have_kinks
from jaxmle.parameters.tree import layout_of

Y = np.array([1.0, 2.0, 3.0, 2.0, 1.0, 4.0])


def in_a_loop(t, y):
    return jax.lax.scan(lambda total, v: (total - jnp.abs(v - t[0]), None), 0.0, y)[0]


def by_running_total(t, y):
    """The total is a constant at the first row only."""
    return jax.lax.scan(lambda total, v: (jnp.abs(total) + v * t[0], None), 0.0, y)[0]


KINKED = {
    "laplace": lambda t, y: -jnp.abs(y - t[0]) / jnp.exp(t[1]) - t[1],
    "laplace_of_jax": lambda t, y: stats.laplace.logpdf(y, t[0], 1.0),
    "quantile": lambda t, y: -jnp.where(y > t[0], 0.3, -0.7) * (y - t[0]),
    "check_function": lambda t, y: (t[0] - y) * (0.3 - (y < t[0])),
    "check_function_of_numbers": lambda t, y: (t[0] - y) * (0.3 - (y < t[0]).astype(int)),
    "hinge": lambda t, y: -jnp.maximum(0.0, 1 - y * t[0]),
    "hinge_by_a_choice": lambda t, y: jnp.where(y * t[0] < 1, y * t[0], 1.0),
    "relu": lambda t, y: -jax.nn.relu(1 - y * t[0]),
    "clipped": lambda t, y: jnp.clip(t[0] * y, -1, 1),
    "median": lambda t, y: -jnp.median((y - t[0]) ** 2),
    "loop": in_a_loop,
    "running_total": by_running_total,
    "jitted": jax.jit(lambda t, y: -jnp.abs(y - t[0])),
    "mapped": lambda t, y: jax.vmap(lambda v: -jnp.abs(v - t[0]))(y),
    "lasso": lambda t, y: -0.5 * jnp.sum((y - t[0]) ** 2) - jnp.sum(jnp.abs(t)),
}
SMOOTH = {
    "normal": lambda t, y: stats.norm.logpdf(y, t[0], jnp.exp(t[1])),
    "gamma": lambda t, y: stats.gamma.logpdf(y, jnp.exp(t[0])),
    "beta": lambda t, y: stats.beta.logpdf(y / 10, jnp.exp(t[0]), 2.0),
    "logsumexp": lambda t, y: logsumexp(jnp.stack([t[0] * y, t[1] * y]), axis=0),
    "softmax": lambda t, y: jax.nn.log_softmax(jnp.stack([t[0] * y, t[1] * y]), axis=0)[0],
    "softplus": lambda t, y: -jax.nn.softplus(t[0] * y),
    "logaddexp": lambda t, y: -jnp.logaddexp(0, t[0] * y),
    "normal_tail": lambda t, y: log_ndtr(y * t[0]),
    "log_gamma": lambda t, y: gammaln(y + jnp.exp(t[0])),
    "support": lambda t, y: jnp.where(t[0] > y, -jnp.inf, y * t[0]),
    "size_of_data": lambda t, y: jnp.abs(y) * t[0],
    "comparison_of_data": lambda t, y: (y > 2) * t[0] * y,
    "choice_by_data": lambda t, y: jnp.where(y > 2, t[0] * y, jnp.log1p(t[1] ** 2)),
    "loop": lambda t, y: jax.lax.scan(lambda s, v: (s + jnp.abs(v) * t[0], s), 0.0, y)[1],
    "step": lambda t, y: y * t[0] + jnp.floor(t[0]),
}


def kinked(loglik, start, data):
    layout = layout_of(start)
    return may_have_kinks(as_tree(loglik), layout, layout.ravel(start), data)


@pytest.mark.parametrize("name", KINKED)
def test_what_bends_in_the_parameters_is_seen(name):
    assert kinked(KINKED[name], np.array([0.3, 0.4]), Y)


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_in_the_parameters_is_seen_to_be(name):
    assert not kinked(SMOOTH[name], np.array([0.3, 0.4]), Y)


FAMILIES = [
    *("cauchy", "exponential", "gamma", "generalised_pareto", "geometric", "gev", "gumbel"),
    *("inverse_gamma", "inverse_gaussian", "laplace", "logistic", "lognormal", "negative_binomial"),
    *("normal", "pareto", "poisson", "skew_normal", "student_t", "von_mises", "weibull"),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_of_the_families_laplace_alone_is_kinked(name):
    family = getattr(families, name)
    assert kinked(family, family.start(Y), Y) == (name == "laplace")


@pytest.mark.parametrize("name", ["logistic", "poisson", "student_t", "laplace", "quantile"])
def test_ready_regressions_are_smooth(name):
    """The corner of ``laplace`` and ``quantile`` is rounded there."""
    model = getattr(models, name)()
    y = Y % 2 if name == "logistic" else Y
    data = {"x": np.column_stack([np.ones(6), np.arange(6.0)]), "y": y}
    assert not kinked(model, model.start(data), data)
