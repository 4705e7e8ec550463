"""Entropies and divergences of families that have a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy

from jaxmle._types import Array, NamedParams, Tree
from jaxmle.families.bounded import beta
from jaxmle.families.counts import poisson
from jaxmle.families.family import Family
from jaxmle.families.location_scale import cauchy, gumbel, laplace, logistic, normal
from jaxmle.families.multivariate import multivariate_normal
from jaxmle.families.positive import exponential, gamma, lognormal, weibull
from jaxmle.inference.selection.averages import Information
from jaxmle.special.gamma import EULER_GAMMA


def closed_form(value: float | Array) -> Information:
    """A value in nats from a formula, with an error of eight roundings."""
    number = float(value)
    return Information(
        number, float(8 * np.finfo(float).eps * max(1.0, abs(number))), "closed form"
    )


def _gamma_entropy(p: NamedParams) -> Array:
    a = p["shape"]
    return a - np.log(p["rate"]) + scipy.special.gammaln(a) + (1 - a) * scipy.special.digamma(a)


def _beta_entropy(p: NamedParams) -> Array:
    a = p["shape1"]
    b = p["shape2"]
    digamma = scipy.special.digamma
    return (
        scipy.special.betaln(a, b)
        - (a - 1) * digamma(a)
        - (b - 1) * digamma(b)
        + (a + b - 2) * digamma(a + b)
    )


def _normal_divergence(p: NamedParams, q: NamedParams) -> Array:
    ratio = p["scale"] / q["scale"]
    return 0.5 * (ratio**2 - 1 - 2 * np.log(ratio) + ((p["loc"] - q["loc"]) / q["scale"]) ** 2)


def _gamma_divergence(p: NamedParams, q: NamedParams) -> Array:
    a = p["shape"]
    c = q["shape"]
    gammaln = scipy.special.gammaln
    return (
        (a - c) * scipy.special.digamma(a)
        - gammaln(a)
        + gammaln(c)
        + c * np.log(p["rate"] / q["rate"])
        + a * (q["rate"] / p["rate"] - 1)
    )


def _laplace_divergence(p: NamedParams, q: NamedParams) -> Array:
    gap = np.abs(p["loc"] - q["loc"])
    ratio = p["scale"] / q["scale"]
    return ratio * np.exp(-gap / p["scale"]) + gap / q["scale"] - np.log(ratio) - 1


def _vector_divergence(p: NamedParams, q: NamedParams) -> Array:
    """The divergence of two normal vectors, ½{tr(Σq⁻¹Σp) + δ'Σq⁻¹δ − d + log(det Σq/det Σp)}."""
    root = np.linalg.cholesky(q["covariance"])
    root_of_p = np.linalg.cholesky(p["covariance"])
    turned = scipy.linalg.solve_triangular(
        root, np.column_stack([root_of_p, q["loc"] - p["loc"]]), lower=True
    )
    return 0.5 * (np.sum(turned**2) - len(root)) + np.sum(
        np.log(np.diagonal(root)) - np.log(np.diagonal(root_of_p))
    )


STANDARD_NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
# Cover & Thomas (2006), Elements of Information Theory, table 17.1.
ENTROPIES: dict[Family, Callable[[NamedParams], Tree]] = {
    normal: lambda p: STANDARD_NORMAL_ENTROPY + np.log(p["scale"]),
    lognormal: lambda p: STANDARD_NORMAL_ENTROPY + np.log(p["sdlog"]) + p["meanlog"],
    laplace: lambda p: 1 + np.log(2 * p["scale"]),
    logistic: lambda p: 2 + np.log(p["scale"]),
    cauchy: lambda p: np.log(4 * math.pi * p["scale"]),
    gumbel: lambda p: 1 + EULER_GAMMA + np.log(p["scale"]),
    exponential: lambda p: 1 - np.log(p["rate"]),
    gamma: _gamma_entropy,
    weibull: lambda p: 1 + EULER_GAMMA * (1 - 1 / p["shape"]) + np.log(p["scale"] / p["shape"]),
    beta: _beta_entropy,
    multivariate_normal: lambda p: (
        len(p["loc"]) * STANDARD_NORMAL_ENTROPY
        + np.sum(np.log(np.diagonal(np.linalg.cholesky(p["covariance"]))))
    ),
}
DIVERGENCES: dict[Family, Callable[[NamedParams, NamedParams], Tree]] = {
    normal: _normal_divergence,
    lognormal: lambda p, q: _normal_divergence(
        *({"loc": law["meanlog"], "scale": law["sdlog"]} for law in (p, q))
    ),
    laplace: _laplace_divergence,
    exponential: lambda p, q: np.log(p["rate"] / q["rate"]) + q["rate"] / p["rate"] - 1,
    gamma: _gamma_divergence,
    poisson: lambda p, q: p["rate"] * np.log(p["rate"] / q["rate"]) - p["rate"] + q["rate"],
    cauchy: lambda p, q: np.log(
        ((p["scale"] + q["scale"]) ** 2 + (p["loc"] - q["loc"]) ** 2)
        / (4 * p["scale"] * q["scale"])
    ),
    multivariate_normal: _vector_divergence,
}
