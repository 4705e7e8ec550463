"""Likelihoods, their data, and their derivatives row by row in NumPy: the brute-force side of every comparison in this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, log_ndtr
from jax.scipy.stats import norm
from scipy import special, stats

import jaxmle as jm
from tests.likelihoods import logit, poisson, probit

N = 60
RNG = np.random.default_rng(2024)
X = np.column_stack([np.ones(N), RNG.normal(size=N), RNG.uniform(-1, 1, size=N)])
OFFSET = RNG.normal(scale=0.3, size=N)
ETA = X @ [0.3, 0.8, -0.6]
LOGIT = {"x": X, "y": (RNG.uniform(size=N) < special.expit(ETA)).astype(float)}
PROBIT = {"x": X, "y": (RNG.normal(size=N) < ETA).astype(float)}
POISSON = {"x": X, "y": RNG.poisson(np.exp(ETA)).astype(float)}
NORMAL = {"x": X, "y": ETA + RNG.normal(scale=1.5, size=N) * (1 + 0.5 * np.abs(X[:, 1]))}

BETA = {"beta": np.array([0.1, 0.5, -0.4])}
BETA_SIGMA = {**BETA, "sigma": np.array(1.2)}


# ---------------------------------------------------------------- opaque forms


def normal(params, data):
    return norm.logpdf(data["y"], data["x"] @ params["beta"], params["sigma"])


# ---------------------------------------------------------------- declared forms, with their expected information

LINEAR = jm.linear("x", "beta")
EXACT = {
    "logit": jm.exact(lambda eta, row: 0.25 / jnp.cosh(eta["eta"] / 2) ** 2),
    "poisson": jm.exact(lambda eta, row: jnp.exp(eta["eta"])),
    "normal": jm.exact(
        lambda eta, row: jnp.diag(jnp.stack([1 / eta["s"] ** 2, 2 / eta["s"] ** 2]))
    ),
}
BINARY = jm.enumeration("y", [0.0, 1.0])

declared_logit = jm.regression(
    lambda eta, row: row["y"] * eta["eta"] - jnp.logaddexp(0.0, eta["eta"]),
    {"eta": LINEAR},
    response=EXACT["logit"],
)
declared_probit = jm.regression(
    lambda eta, row: row["y"] * log_ndtr(eta["eta"]) + (1 - row["y"]) * log_ndtr(-eta["eta"]),
    {"eta": LINEAR},
    response=BINARY,
)
declared_poisson = jm.regression(
    lambda eta, row: row["y"] * eta["eta"] - jnp.exp(eta["eta"]) - gammaln(row["y"] + 1),
    {"eta": LINEAR},
    response=EXACT["poisson"],
)
declared_normal = jm.regression(
    lambda eta, row: norm.logpdf(row["y"], eta["mu"], eta["s"]),
    {"mu": LINEAR, "s": "sigma"},
    response=EXACT["normal"],
)


# ---------------------------------------------------------------- by hand


class Rows(NamedTuple):
    """What a likelihood is, row by row: terms (n,), scores (n, p), information (n, p, p) observed and expected."""

    terms: np.ndarray
    scores: np.ndarray
    observed: np.ndarray
    expected: np.ndarray

    def take(self, index: Any) -> Rows:
        return Rows(*(part[index] for part in self))


def _one_predictor(
    x: np.ndarray, terms: np.ndarray, slope: np.ndarray, observed: np.ndarray, expected: np.ndarray
) -> Rows:
    outer = x[:, :, None] * x[:, None, :]
    return Rows(
        terms, slope[:, None] * x, observed[:, None, None] * outer, expected[:, None, None] * outer
    )


def logit_rows(params: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> Rows:
    x, y = data["x"], data["y"]
    mu = special.expit(x @ params["beta"])
    return _one_predictor(x, stats.bernoulli.logpmf(y, mu), y - mu, mu * (1 - mu), mu * (1 - mu))


def probit_rows(params: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> Rows:
    x, y = data["x"], data["y"]
    eta, q = x @ params["beta"], 2 * y - 1
    mills = q * stats.norm.pdf(eta) / stats.norm.cdf(q * eta)
    mu = stats.norm.cdf(eta)
    return _one_predictor(
        x,
        np.log(stats.norm.cdf(q * eta)),
        mills,
        mills * (mills + eta),
        stats.norm.pdf(eta) ** 2 / (mu * (1 - mu)),
    )


def poisson_rows(params: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> Rows:
    x, y = data["x"], data["y"]
    mu = np.exp(x @ params["beta"])
    return _one_predictor(x, stats.poisson.logpmf(y, mu), y - mu, mu, mu)


def normal_rows(params: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> Rows:
    x, s = data["x"], float(params["sigma"])
    r = data["y"] - x @ params["beta"]
    n, q = x.shape
    scores = np.column_stack([r[:, None] * x / s**2, r**2 / s**3 - 1 / s])
    observed, expected = np.zeros((n, q + 1, q + 1)), np.zeros((n, q + 1, q + 1))
    observed[:, :q, :q] = expected[:, :q, :q] = x[:, :, None] * x[:, None, :] / s**2
    observed[:, :q, q] = observed[:, q, :q] = 2 * r[:, None] * x / s**3
    observed[:, q, q] = 3 * r**2 / s**4 - 1 / s**2
    expected[:, q, q] = 2 / s**2
    return Rows(stats.norm.logpdf(r, scale=s), scores, observed, expected)


class Case(NamedTuple):
    """One likelihood in both forms, its data, parameters away from the maximum, and its rows by hand."""

    opaque: Callable
    declared: Callable
    params: dict[str, np.ndarray]
    data: dict[str, np.ndarray]
    rows: Callable[..., Rows]

    def by_hand(self) -> Rows:
        return self.rows(self.params, self.data)


CASES = {
    "logit": Case(logit, declared_logit, BETA, LOGIT, logit_rows),
    "probit": Case(probit, declared_probit, BETA, PROBIT, probit_rows),
    "poisson": Case(poisson, declared_poisson, BETA, POISSON, poisson_rows),
    "normal": Case(normal, declared_normal, BETA_SIGMA, NORMAL, normal_rows),
}


# ---------------------------------------------------------------- maxima and sandwiches by hand


def newton(
    rows: Callable[..., Rows], data: dict[str, np.ndarray], weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The maximum of a one-predictor likelihood by Fisher scoring in NumPy."""
    w, beta = np.ones(len(data["y"])) if weights is None else weights, np.zeros(data["x"].shape[1])
    for _ in range(60):
        at = rows({"beta": beta}, data)
        beta = beta + np.linalg.solve(np.tensordot(w, at.expected, 1), w @ at.scores)
    return {"beta": beta}


def least_squares(
    data: dict[str, np.ndarray], weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The maximum of the normal linear model: least squares, and the root mean squared residual."""
    w = np.ones(len(data["y"])) if weights is None else weights
    beta = np.linalg.solve(data["x"].T @ (w[:, None] * data["x"]), data["x"].T @ (w * data["y"]))
    return {"beta": beta, "sigma": np.sqrt(w @ (data["y"] - data["x"] @ beta) ** 2 / w.sum())}


def bread(information: np.ndarray) -> np.ndarray:
    return np.linalg.inv(information)


def hc(
    rows: Rows,
    kind: str,
    base: str = "observed",
    w: np.ndarray | None = None,
    meat: np.ndarray | None = None,
) -> np.ndarray:
    """HC0 to HC3, written as a sum over rows. ``w`` weighs terms, ``meat`` their outer products."""
    n, p = rows.scores.shape
    w = np.ones(n) if w is None else w
    meat = w if meat is None else meat
    j = np.tensordot(w, getattr(rows, base), 1)
    unit = np.divide(
        meat, w, out=np.zeros(n), where=w > 0
    )  # the share of J that belongs to one unit of a row
    count = np.sum(np.divide(w**2, meat, out=np.zeros(n), where=meat > 0))
    root = np.linalg.cholesky(j)
    total = np.zeros((p, p))
    for i in range(n):
        s = rows.scores[i]
        if kind == "HC3":
            s = j @ np.linalg.solve(j - unit[i] * rows.expected[i], s)
        if kind == "HC2":  # (I − Ã)^(−½) in the coordinates in which J is the identity
            inside = np.linalg.inv(root) @ (unit[i] * rows.expected[i]) @ np.linalg.inv(root).T
            values, vectors = np.linalg.eigh(np.eye(p) - inside)
            s = root @ vectors @ np.diag(values**-0.5) @ vectors.T @ np.linalg.solve(root, s)
        total += meat[i] * np.outer(s, s)
    factor = count / (count - p) if kind == "HC1" else 1.0
    return factor * bread(j) @ total @ bread(j)


def cluster_sums(rows: Rows, labels: Any, w: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """Σ_g S_g S_g' and the number of clusters, by a loop over the labels."""
    n, p = rows.scores.shape
    w = np.ones(n) if w is None else w
    labels = [str(label) for label in labels]
    groups = sorted({label for label, weight in zip(labels, w, strict=True) if weight > 0})
    total = np.zeros((p, p))
    for group in groups:
        s = sum(w[i] * rows.scores[i] for i in range(n) if labels[i] == group)
        total += np.outer(s, s)
    return total, len(groups)
