"""Regression of a continuous response: normal (also with a modelled scale), gamma, inverse
Gaussian, beta.

The design ``data["x"]`` (n, q) holds every column, including the intercept's.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.likelihood.regression import linear, regression
from jaxmle.likelihood.response import exact
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import constant, eta_of
from jaxmle.models.common.start_values import clip, column, regress, spread
from jaxmle.parameters.constraints import positive
from jaxmle.special.exponential import exp_excess
from jaxmle.special.gamma import trigamma
from jaxmle.special.logistic import bernoulli_divergence, log_sigmoid, sigmoid
from jaxmle.special.stirling import HALF_LOG_2PI, stirling_error

# ---------------------------------------------------------------- normal


def normal_logpdf(eta: Tree, row: Tree) -> Array:
    """The log density of N(mu, sigma²) at y."""
    return (
        -0.5 * ((row["y"] - eta["mu"]) / eta["sigma"]) ** 2 - jnp.log(eta["sigma"]) - HALF_LOG_2PI
    )


def _normal_information(eta: Tree, row: Tree) -> Array:
    return jnp.diag(jnp.stack([1.0 / eta["sigma"] ** 2, 2.0 / eta["sigma"] ** 2]))


def normal_log_scale_logpdf(eta: Tree, row: Tree) -> Array:
    """The log density of N(mu, exp(2 log_sigma)) at y."""
    return (
        -0.5 * ((row["y"] - eta["mu"]) * jnp.exp(-eta["log_sigma"])) ** 2
        - eta["log_sigma"]
        - HALF_LOG_2PI
    )


def _log_scale_information(eta: Tree, row: Tree) -> Array:
    return jnp.diag(jnp.stack([jnp.exp(-2 * eta["log_sigma"]), jnp.full_like(eta["mu"], 2.0)]))


@made_once
def normal(*, scale: str | None = None, offset: str | None = None) -> Model:
    """Normal linear regression, y ~ N(xβ, σ²), or with a modelled scale: y ~ N(xβ, exp(zγ)²).

    σ̂² is the maximum-likelihood estimate, RSS/n. Parameters: ``beta`` (q,) and ``sigma``; or
    ``beta`` and ``gamma`` (r,).

    Args:
        scale: name of the design (n, r) of log σ; None for one σ.
        offset: name of a data leaf (n,) added to the mean.

    Returns:
        A ``Model`` of the data ``{"x": (n, q), "y": (n,)}``.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> x = np.column_stack([np.ones(4), [0.0, 1.0, 2.0, 3.0]])
    >>> fit = jm.fit(models.normal(), data={"x": x, "y": np.array([1.0, 2.0, 2.0, 4.0])})
    >>> fit.params["beta"].round(4).tolist(), round(float(fit.params["sigma"]), 4)
    ([0.9, 0.9], 0.4183)
    """
    mean = linear("x", "beta", offset)
    if scale is None:
        return Model(
            "normal",
            regression(
                normal_logpdf, {"mu": mean, "sigma": "sigma"}, response=exact(_normal_information)
            ),
            functools.partial(_start_normal, offset=offset),
            {"sigma": positive},
            lambda params, data: constant(eta_of(params, data, offset), params["sigma"]),
            response_laws.normal,
            coding=coding.optional(offset),
        )
    return Model(
        "normal",
        regression(
            normal_log_scale_logpdf,
            {"mu": mean, "log_sigma": linear(scale, "gamma")},
            response=exact(_log_scale_information),
        ),
        functools.partial(_start_heteroskedastic, offset=offset, scale=scale),
        None,
        lambda params, data: (
            eta_of(params, data, offset),
            jnp.exp(eta_of(params, data, None, scale, "gamma")),
        ),
        response_laws.normal,
        coding=coding.optional(offset),
    )


def _start_normal(data: Tree, offset: str | None) -> Tree:
    y = column(data, "y")
    target = y if offset is None else y - column(data, offset)
    beta, mean = regress(data, "x", target)
    return {"beta": beta, "sigma": spread(target - mean, target)}


def _start_heteroskedastic(data: Tree, offset: str | None, scale: str) -> Tree:
    """log|e| regressed on z: E log|N(0, 1)| = −0.635 = −(γ + log 2)/2."""
    y = column(data, "y")
    xp = namespace(y)
    target = y if offset is None else y - column(data, offset)
    beta, mean = regress(data, "x", target)
    size = spread(target - mean, target)[..., None]
    gamma, _ = regress(data, scale, xp.log(xp.maximum(xp.abs(target - mean), 0.05 * size)) + 0.635)
    return {"beta": beta, "gamma": gamma}


# ---------------------------------------------------------------- gamma

REMEDY_FOR_ZEROS = "model the zeros separately, by models.logistic() of y > 0"


def gamma_logpdf(eta: Tree, row: Tree) -> Array:
    """The log density of a gamma response with mean exp(log_mu) and variance mean²/shape."""
    shape = eta["shape"]
    y = row["y"]
    log_ratio = jnp.log(y) - eta["log_mu"]
    # k(log k + log r − r) − log Γ(k) − log y, with Stirling's formula for log Γ: large terms cancel
    # at a large k.
    constant = 0.5 * jnp.log(shape) - HALF_LOG_2PI - stirling_error(1 / shape)
    return constant - shape * exp_excess(log_ratio) - jnp.log(y)


def _gamma_information(eta: Tree, row: Tree) -> Array:
    return jnp.diag(jnp.stack([eta["shape"], trigamma(eta["shape"]) - 1 / eta["shape"]]))


@made_once
def gamma(*, offset: str | None = None) -> Model:
    """Gamma regression with a log link: mean μ = exp(xβ), variance μ²/shape. Parameters: ``beta``
    (q,) and ``shape``.

    The shape is the maximum-likelihood estimate; software that estimates the dispersion from
    Pearson's χ² reports different standard errors.

    Args:
        offset: name of a data leaf (n,) added to log μ.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.array([0.5])}
    >>> float(models.gamma()({"beta": np.zeros(1), "shape": 2.0}, data)[0])  # log(4y) − 2y
    -0.3069
    """
    return Model(
        "gamma",
        regression(
            gamma_logpdf,
            {"log_mu": linear("x", "beta", offset), "shape": "shape"},
            response=exact(_gamma_information),
        ),
        functools.partial(_start_positive, offset=offset, power=2),
        {"shape": positive},
        lambda params, data: constant(jnp.exp(eta_of(params, data, offset)), params["shape"]),
        response_laws.gamma,
        coding=(coding.positive("y", zeros=REMEDY_FOR_ZEROS), *coding.optional(offset)),
    )


def _start_positive(data: Tree, offset: str | None, power: int) -> Tree:
    """log y on x, its mean moved so that E(y/μ) = 1; the shape from E (y − μ)² = μᵖ/shape."""
    y = column(data, "y")
    xp = namespace(y)
    y = xp.maximum(y, 1e-300 if y.dtype == "float64" else 1e-30)
    z = xp.log(y) if offset is None else xp.log(y) - column(data, offset)
    beta, mean = regress(data, "x", z)
    ratio = xp.exp(xp.clip(z - mean, -30.0, 30.0))
    mu = xp.exp(
        xp.clip(xp.log(y) - (z - mean), -300.0, 300.0)
        if y.dtype == "float64"
        else xp.clip(xp.log(y) - (z - mean), -30.0, 30.0)
    )
    dispersion = xp.mean(
        (ratio - 1) ** 2 if power == 2 else (ratio - 1) ** 2 / (ratio * mu), axis=-1
    )
    return {"beta": beta, "shape": clip(1 / dispersion, 1e-4, 1e8)}


# ---------------------------------------------------------------- inverse Gaussian


def inverse_gaussian_logpdf(eta: Tree, row: Tree) -> Array:
    """The log density of an inverse Gaussian response with mean exp(log_mu) and variance
    mean³/shape.
    """
    shape = eta["shape"]
    y = row["y"]
    distance = y * jnp.exp(-eta["log_mu"]) - 1
    return 0.5 * jnp.log(shape) - HALF_LOG_2PI - 1.5 * jnp.log(y) - 0.5 * shape * distance**2 / y


def _inverse_gaussian_information(eta: Tree, row: Tree) -> Array:
    return jnp.diag(jnp.stack([eta["shape"] * jnp.exp(-eta["log_mu"]), 0.5 / eta["shape"] ** 2]))


@made_once
def inverse_gaussian(*, offset: str | None = None) -> Model:
    """Inverse Gaussian regression with a log link: mean μ = exp(xβ), variance μ³/shape. Parameters:
    ``beta`` (q,) and ``shape``.

    Args:
        offset: name of a data leaf (n,) added to log μ.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.ones(1)}
    >>> float(models.inverse_gaussian()({"beta": np.zeros(1), "shape": 1.0}, data)[0])  # −½ log 2π
    -0.9189
    """
    return Model(
        "inverse_gaussian",
        regression(
            inverse_gaussian_logpdf,
            {"log_mu": linear("x", "beta", offset), "shape": "shape"},
            response=exact(_inverse_gaussian_information),
        ),
        functools.partial(_start_positive, offset=offset, power=3),
        {"shape": positive},
        lambda params, data: constant(jnp.exp(eta_of(params, data, offset)), params["shape"]),
        response_laws.inverse_gaussian,
        coding=(coding.positive("y", zeros=REMEDY_FOR_ZEROS), *coding.optional(offset)),
    )


# ---------------------------------------------------------------- beta


def beta_logpdf(eta: Tree, row: Tree) -> Array:
    """The log density of a beta response with mean sigmoid(eta) and variance mean(1 − mean)/(1 +
    phi).
    """
    logit = eta["eta"]
    phi = eta["phi"]
    y = row["y"]
    a = sigmoid(logit) * phi
    b = sigmoid(-logit) * phi
    # The gamma functions by Stirling's formula; their large parts combine to −φ times the
    # divergence of y from the mean.
    constant = 0.5 * (jnp.log(phi) + log_sigmoid(logit) + log_sigmoid(-logit)) - HALF_LOG_2PI
    errors = stirling_error(1 / phi) - stirling_error(1 / a) - stirling_error(1 / b)
    return constant + errors - phi * bernoulli_divergence(logit, y) - jnp.log(y) - jnp.log1p(-y)


def _beta_information(eta: Tree, row: Tree) -> Array:
    """The expected information of a beta response: Ferrari & Cribari-Neto (2004), Journal of
    Applied Statistics 31, appendix A.
    """
    mean = sigmoid(eta["eta"])
    phi = eta["phi"]
    a = trigamma(mean * phi)
    b = trigamma((1 - mean) * phi)
    slope = mean * (1 - mean)
    cross = phi * slope * (mean * a - (1 - mean) * b)
    corner = mean**2 * a + (1 - mean) ** 2 * b - trigamma(phi)
    return jnp.stack([jnp.stack([(phi * slope) ** 2 * (a + b), cross]), jnp.stack([cross, corner])])


@made_once
def beta(*, offset: str | None = None) -> Model:
    """Beta regression of a response in (0, 1) with a logit link: mean μ = sigmoid(xβ), variance μ(1
    − μ)/(1 + phi).

    Parameters: ``beta`` (q,) and the precision ``phi``. Ferrari & Cribari-Neto (2004), Journal of
    Applied Statistics 31, p. 799.

    Args:
        offset: name of a data leaf (n,) added to the logit of the mean.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.array([0.5])}
    >>> float(models.beta()({"beta": np.zeros(1), "phi": 4.0}, data)[0])  # Beta(2, 2): log 1.5
    0.4055
    """
    return Model(
        "beta",
        regression(
            beta_logpdf,
            {"eta": linear("x", "beta", offset), "phi": "phi"},
            response=exact(_beta_information),
        ),
        functools.partial(_start_beta, offset=offset),
        {"phi": positive},
        lambda params, data: constant(sigmoid(eta_of(params, data, offset)), params["phi"]),
        response_laws.beta,
        coding=(coding.proportion(), *coding.optional(offset)),
    )


def _start_beta(data: Tree, offset: str | None) -> Tree:
    y = clip(column(data, "y"), 1e-6, 1 - 1e-6)
    xp = namespace(y)
    logit = xp.log(y) - xp.log1p(-y)
    beta, eta = regress(data, "x", logit if offset is None else logit - column(data, offset))
    eta = eta if offset is None else eta + column(data, offset)
    mean = 1 / (1 + xp.exp(-xp.clip(eta, -30.0, 30.0)))
    # Var(logit y) ≈ 1/(μ(1 − μ)(1 + φ))
    precision = xp.mean(1 / clip(mean * (1 - mean), 1e-3, 1.0), axis=-1) / xp.maximum(
        xp.mean((logit - eta) ** 2, axis=-1), 1e-8
    )
    return {"beta": beta, "phi": clip(precision - 1, 0.5, 1e6)}
