"""A mean for a sum, however it is written: read off the program alone, so many forms cost little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from jaxmle.likelihood.discovery.mean_of_rows import is_mean_of_rows
from jaxmle.parameters.tree import layout_of

N = 20
Y = np.random.default_rng(13).normal(size=N)
PAIR = {"y": Y, "w": np.arange(1.0, N + 1)}
SHARE = np.full(N, 1 / N)
UNEQUAL = np.arange(1.0, N + 1)
LAYOUT = layout_of({"m": np.zeros(()), "s": np.ones(())})


def terms(p, d):
    return -0.5 * ((d - p["m"]) / p["s"]) ** 2 - jnp.log(p["s"])


def running(p, d, of):
    return jax.lax.scan(lambda total, y: (total + of(terms(p, y)), None), 0.0, d)[0]


def share_of(d):
    return jnp.full(len(d), 1 / len(d))


def coin(p, ones, zeros):
    return ones * jnp.log(p["s"]) + zeros * jnp.log1p(-p["s"])


def normal_of_mean(p, d, n):
    return -n / 2 * jnp.mean((d - p["m"]) ** 2) / p["s"] ** 2 - n * jnp.log(p["s"])


MEANS = {
    "dot with 1/n": (lambda p, d: jnp.dot(share_of(d), terms(p, d)), Y),
    "terms @ 1/n": (lambda p, d: terms(p, d) @ share_of(d), Y),
    "closed-over 1/n @ terms": (lambda p, d: SHARE @ terms(p, d), Y),
    "sum of closed-over 1/n times terms": (lambda p, d: jnp.sum(SHARE * terms(p, d)), Y),
    "sum of ones / n times terms": (lambda p, d: jnp.sum(jnp.ones(len(d)) / len(d) * terms(p, d)), Y),
    "average with equal weights": (lambda p, d: jnp.average(terms(p, d), weights=jnp.ones(len(d))), Y),
    "average with closed-over shares": (lambda p, d: jnp.average(terms(p, d), weights=SHARE), Y),
    "average with closed-over weights": (lambda p, d: jnp.average(terms(p, d), weights=UNEQUAL), Y),
    "average with weights of the data": (lambda p, d: jnp.average(terms(p, d["y"]), weights=d["w"]), PAIR),
    "weights scaled to one": (lambda p, d: jnp.sum(terms(p, d["y"]) * (d["w"] / d["w"].sum())), PAIR),
    "einsum": (lambda p, d: jnp.einsum("i,i->", share_of(d), terms(p, d)), Y),
    "tensordot": (lambda p, d: jnp.tensordot(terms(p, d), share_of(d), 1), Y),
    "over a sum of ones": (lambda p, d: terms(p, d).sum() / jnp.sum(jnp.ones_like(d)), Y),
    "n-ths added up by a loop": (lambda p, d: running(p, d, lambda term: term / len(d)), Y),
    "in a branch": (lambda p, d: jax.lax.cond(p["s"] > 0, lambda: terms(p, d).mean(), lambda: -jnp.inf), Y),
    "under checkpoint": (jax.checkpoint(lambda p, d: terms(p, d).mean()), Y),
    "twice by the root of n": (lambda p, d: jnp.sum(terms(p, d) / jnp.sqrt(len(d))) / jnp.sqrt(len(d)), Y),
    "over a closed-over n": (lambda p, d: terms(p, d).sum() / N, Y),
    "over a closed-over 2n": (lambda p, d: -jnp.sum((d - p["m"]) ** 2) / (2 * N) - p["s"] ** 2, Y),
    "over a closed-over array n": (lambda p, d: terms(p, d).sum() / jnp.asarray(float(N)), Y),
    "of a statistic": (lambda p, d: coin(p, jnp.mean(d > 0), jnp.mean(d <= 0)), Y),
    "all closed over": (lambda p, d: SHARE @ terms(p, Y), None),
}  # fmt: skip
SUMS = {
    "dot with ones": (lambda p, d: jnp.dot(jnp.ones(len(d)), terms(p, d)), Y),
    "closed-over ones": (lambda p, d: np.ones(N) @ terms(p, d), Y),
    "halves": (lambda p, d: np.full(N, 0.5) @ terms(p, d), Y),
    "weights scaled to n": (lambda p, d: jnp.sum(terms(p, d["y"]) * (d["w"] * len(d["y"]) / d["w"].sum())), PAIR),
    "weights of the data": (lambda p, d: jnp.sum(terms(p, d["y"]) * d["w"]), PAIR),
    "closed-over n times a mean": (lambda p, d: N * terms(p, d).mean(), Y),
    "half a closed-over n times a mean": (lambda p, d: normal_of_mean(p, d, N), Y),
    "statistics": (lambda p, d: coin(p, jnp.sum(d > 0), jnp.sum(d <= 0)), Y),
    "n times means of statistics": (lambda p, d: len(d) * coin(p, jnp.mean(d > 0), jnp.mean(d <= 0)), Y),
    "over a variance": (lambda p, d: -0.5 * jnp.sum((d - p["m"]) ** 2) / jnp.var(d) - p["s"] ** 2, Y),
    "quadrature over 20 nodes": (lambda p, d: jnp.sum(jnp.log(norm.pdf(d[:, None], jnp.arange(20.0)[None] * p["m"], p["s"]) @ SHARE)), Y),
    "a loop": (lambda p, d: running(p, d, lambda term: term), Y),
    "constant added": (lambda p, d: jnp.sum(terms(p, d)) - jnp.mean(d**2), Y),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _wide():
    """As in a fit on the host, which is where the question is asked."""
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_is_known_by_its_program(name):
    assert is_mean_of_rows(MEANS[name][0], LAYOUT, MEANS[name][1])


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_is_not_taken_for_a_mean(name):
    assert not is_mean_of_rows(SUMS[name][0], LAYOUT, SUMS[name][1])
