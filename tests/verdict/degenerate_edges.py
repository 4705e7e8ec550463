"""Small likelihoods as in ``degenerate_cores``, whose verdict hangs on an edge: of the support, of a variance, or a declared bound."""

import jax.numpy as jnp
import numpy as np

from jaxmle import Status

from .degenerate_cores import ROWS, Core, column, spread

# ---------------------------------------------------------------- a finite edge of the support


def threshold_gamma_terms(u, c, y):
    """A gamma law of known shape below one, above a threshold: it diverges as the threshold reaches the smallest value."""
    above = y[:, 0] - u[:, 0]
    return (c[:, 0] - 1) * jnp.log(above) - c[:, 1] * above


def draw_threshold(rng):
    place = rng.normal() * 3
    return Core(
        start=np.array([place - rng.uniform(0.1, 3.0)]),
        label=Status.UNBOUNDED,
        constants=np.array([rng.uniform(0.2, 0.9), rng.uniform(0.3, 3.0)]),
        response=column(place + rng.gamma(1.0, 1.0, ROWS)),
    )


def extreme_value_terms(u, c, y):
    """A generalised extreme value law of known shape below −1: it diverges as its upper end reaches the largest value."""
    v = 1 + c[:, 0] * (y[:, 0] - u[:, 0]) / c[:, 1]
    return -(1 + 1 / c[:, 0]) * jnp.log(v) - v ** (-1 / c[:, 0])


def draw_extreme_value(rng):
    """The end of the support lies at u − c₁/c₀; the start keeps every value below it."""
    y = rng.normal(size=ROWS)
    shape = -rng.uniform(1.1, 3.0)
    scale = rng.uniform(0.5, 2.0)
    edge = y.max() + scale / shape
    return Core(
        start=np.array([edge + rng.uniform(0.2, 2.0)]),
        label=Status.UNBOUNDED,
        constants=np.array([shape, scale]),
        response=column(y),
    )


# ---------------------------------------------------------------- a variance component, and bounds that are declared


def component_terms(u, c, y):
    """One-way analysis of variance, (mean, log sd between, log sd within), a group a row."""
    between = jnp.exp(2 * u[:, 1])
    within = jnp.exp(2 * u[:, 2])
    count = y.shape[1]
    mean = y.mean(1)
    total = within + count * between
    squares = jnp.sum((y - mean[:, None]) ** 2, 1)
    return -0.5 * (
        (count - 1) * jnp.log(within)
        + jnp.log(total)
        + squares / within
        + count * (mean - u[:, 0]) ** 2 / total
    )


def draw_component(rng):
    """Group means that scatter less than the values within groups: the variance between groups is zero."""
    inner = rng.normal(size=(ROWS, 3))
    inner = inner - inner.mean(1, keepdims=True)
    within = np.sum(inner**2) / (2 * ROWS)
    level = spread(rng, rng.normal(), np.sqrt(within / 3 * rng.uniform(0.2, 0.8)))
    y = level[:, None] + inner
    return Core(
        start=np.array([y.mean() + rng.normal(), rng.uniform(-1.5, 0.5), rng.uniform(-0.5, 0.5)]),
        label=Status.SEPARATED,
        response=y,
        sign=np.array([0.0, -1.0, 0.0]),
        supremum=-0.5 * y.size * (np.log(y.var()) + 1),
    )


def counting_terms(u, c, y):
    """Events of a signal over one to three backgrounds, and of each background alone, in the manner of on and off regions."""
    on = y[:, 0] * jnp.log(u[:, 0] + jnp.sum(u[:, 1:], 1)) - u[:, 0] - jnp.sum(u[:, 1:], 1)
    ratio = c[:, 0:1]
    off = y[:, 1:] * jnp.log(ratio * u[:, 1:]) - ratio * u[:, 1:]
    return on + jnp.sum(off, 1)


def draw_counting(size, excess):
    """Backgrounds of a whole number each in the off region; on the whole, the excess is zero, negative or positive."""

    def draw(rng):
        background = rng.integers(2, 9, size - 1).astype(float)
        ratio = float(rng.integers(1, 4))
        factor = {0: 0.0, -1: -rng.uniform(0.2, 0.9), 1: rng.uniform(0.5, 2.0)}[excess]
        surplus = factor * background.sum()
        on = background.sum() + surplus
        return Core(
            start=rng.uniform(0.5, 3.0, size),
            label=Status.CONVERGED if excess > 0 else Status.BOUNDARY,
            constants=np.array([ratio]),
            response=np.tile(np.concatenate([[on], ratio * background]), (ROWS, 1)),
            estimate=np.concatenate([[surplus], background]) if excess >= 0 else None,
            stderr=counting_stderr(on, background, ratio, free=excess > 0),
        )

    return draw


def counting_stderr(on, background, ratio, free):
    """Standard errors with the signal free, or held at the bound where on = Σ background."""
    if free:
        variance = np.concatenate([[on + background.sum() / ratio], background / ratio])
        return np.sqrt(variance / ROWS)
    information = np.diag(ratio / background) + 1 / background.sum()
    held = np.sqrt(np.diag(np.linalg.inv(information)) / ROWS)
    return np.concatenate([[np.nan], held])
