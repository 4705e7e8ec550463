"""Regression robust to outliers: Student's t, Laplace, quantile regression."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import scipy

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.likelihood.regression import Predictor, linear, regression
from jaxmle.likelihood.response import exact
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import constant, eta_of
from jaxmle.models.common.response_laws import PredictiveLaw, uniform
from jaxmle.models.common.start_values import column, design, fitted, least_squares, regress, spread
from jaxmle.parameters.constraints import positive
from jaxmle.special.student import student_t_df_information, student_t_logpdf

# ---------------------------------------------------------------- Student's t


def _student_density(df: float | None, eta: Tree, row: Tree) -> Array:
    freedom = eta["df"] if df is None else df + 0.0 * eta["scale"]
    return student_t_logpdf((row["y"] - eta["mu"]) / eta["scale"], freedom) - jnp.log(eta["scale"])


def _student_information(df: float | None, eta: Tree, row: Tree) -> Array:
    """The expected information of Student's t: Lange, Little & Taylor (1989), Journal of the
    American Statistical Association 84, appendix B.
    """
    s = eta["scale"]
    v = eta["df"] if df is None else df + 0.0 * eta["scale"]
    zero = jnp.zeros_like(s)
    centre = (v + 1) / ((v + 3) * s**2)
    scale = 2 * v / ((v + 3) * s**2)
    if df is not None:
        return jnp.diag(jnp.stack([centre, scale]))
    cross = -2 / (s * (v + 1) * (v + 3))
    freedom = student_t_df_information(v)
    return jnp.stack(
        [
            jnp.stack([centre, zero, zero]),
            jnp.stack([zero, scale, cross]),
            jnp.stack([zero, cross, freedom]),
        ]
    )


@made_once
def student_t(*, df: float | None = None, offset: str | None = None) -> Model:
    """Robust regression, y = xβ + scale·T with T Student's t. Parameters: ``beta`` (q,), ``scale``,
    and ``df`` unless it is given.

    Data with tails no heavier than normal have their maximum at df = ∞: the fit is then SEPARATED,
    and the other estimates are valid. Lange, Little & Taylor (1989), Journal of the American
    Statistical Association 84, p. 881.

    Args:
        df: fixed degrees of freedom; None to estimate them.
        offset: name of a data leaf (n,) added to the centre.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((6, 1)), "y": np.array([0.9, 1.0, 1.2, 0.8, 1.1, 50.0])}
    >>> jm.fit(models.student_t(df=2.0), data=data).params["beta"].round(2).tolist()
    [1.0...]
    """
    if df is not None and not df > 0:
        raise ValueError(f"df must be positive; got {df!r}")
    eta: dict[str, Predictor] = {"mu": linear("x", "beta", offset), "scale": "scale"}
    if df is None:
        eta["df"] = "df"
    return Model(
        "student_t",
        regression(
            functools.partial(_student_density, df),
            eta,
            response=exact(functools.partial(_student_information, df)),
        ),
        functools.partial(_start_student, df=df, offset=offset),
        {"scale": positive} | ({"df": positive} if df is None else {}),
        lambda params, data: constant(
            eta_of(params, data, offset), params["scale"], params["df"] if df is None else df
        ),
        response_laws.student_t,
        coding=coding.optional(offset),
    )


def _reweighted(data: Tree, offset: str | None, freedom: float) -> tuple[Array, Array, Array]:
    """Coefficients, residuals and scale after ten steps of the EM algorithm of Student's t at
    ``freedom``.
    """
    y = column(data, "y")
    xp = namespace(y)
    y = y if offset is None else y - column(data, offset)
    matrix, single = design(data, "x", y)
    beta = least_squares(matrix, y)
    for _ in range(10):
        residual = y - fitted(matrix, beta)
        size = xp.maximum(1.4826 * xp.median(xp.abs(residual), axis=-1), 1e-3 * spread(residual, y))
        weight = (freedom + 1) / (freedom + (residual / size[..., None]) ** 2)
        beta = least_squares(matrix, y, weight)
    residual = y - fitted(matrix, beta)
    size = xp.maximum(1.4826 * xp.median(xp.abs(residual), axis=-1), 1e-3 * spread(residual, y))
    return beta[..., 0] if single else beta, residual, size


def _start_student(data: Tree, df: float | None, offset: str | None) -> Tree:
    beta, _, size = _reweighted(data, offset, 3.0 if df is None else float(df))
    return {"beta": beta, "scale": 0.9 * size} | ({"df": 5.0 + 0.0 * size} if df is None else {})


# ---------------------------------------------------------------- Laplace and quantile regression


def _check_density(level: float, bandwidth: float, log_mass: float, eta: Tree, row: Tree) -> Array:
    """The log density −ρ(r/b) − log b − log mass of a smoothed check function ρ(z) = (τ − ½)z +
    ½√(z² + c²).
    """
    z = (row["y"] - eta["mu"]) / eta["scale"]
    return (
        -(level - 0.5) * z - 0.5 * jnp.sqrt(z * z + bandwidth**2) - jnp.log(eta["scale"]) - log_mass
    )


def _log_mass(level: float, bandwidth: float) -> float:
    """The log of ∫ e^{−ρ}, the mass of a hyperbolic density: c K₁(c√(τ(1 − τ)))/√(τ(1 − τ))
    (Barndorff-Nielsen 1977); 1/(τ(1 − τ)) as c → 0.
    """
    gamma = math.sqrt(level * (1 - level))
    return math.log(bandwidth * float(scipy.special.k1(bandwidth * gamma)) / gamma)


@made_once
def quantile(level: float = 0.5, *, bandwidth: float = 0.25, offset: str | None = None) -> Model:
    """Quantile regression as the likelihood of an asymmetric Laplace distribution with a smoothed
    kink. Parameters: ``beta`` (q,) and ``scale``.

    The check function is smoothed over ``bandwidth`` scales, so that its second derivative
    estimates the density of the residuals at 0; with the kink itself there is no information
    matrix. Smoothing moves the estimates by the order of bandwidth². The distribution is a working
    model: ask for ``vcov="HC0"``, whose standard errors are right for any distribution of the
    residuals; the default ones are right only if the residuals are Laplace. Koenker & Machado
    (1999), Journal of the American Statistical Association 94, p. 1298; smoothing: Fernandes,
    Guerre & Horta (2021), Journal of Business & Economic Statistics 39, p. 338.

    Args:
        level: level of the quantile, in (0, 1).
        bandwidth: width of the smoothed kink in units of ``scale`` (the mean check loss).
        offset: name of a data leaf (n,) added to the quantile.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {"x": np.ones((9, 1)), "y": np.arange(9.0) ** 2}
    >>> jm.fit(models.quantile(0.5), data=data, vcov="HC0").params["beta"].round(1).tolist()
    [16.2]
    """
    return _check_model("quantile", level, bandwidth, offset)


@made_once
def laplace(*, bandwidth: float = 0.25, offset: str | None = None) -> Model:
    """Laplace regression: least absolute errors (MAE), density e^{−|y − xβ|/s}/(2s) with its kink
    smoothed. Parameters: ``beta`` (q,) and ``scale`` = s/2.

    The default standard errors assume Laplace residuals; ``vcov="HC0"`` assumes only that their
    median is 0. The model is ``quantile(0.5)``; see there for the smoothing.

    Args:
        bandwidth: width of the smoothed kink in units of ``scale``.
        offset: name of a data leaf (n,) added to the median.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((2, 1)), "y": np.array([1.0, 4.0])}
    >>> models.laplace().predict({"beta": np.array([2.0]), "scale": 1.0}, data).tolist()
    [2.0, 2.0]
    """
    return _check_model("laplace", 0.5, bandwidth, offset)


def _check_model(name: str, level: float, bandwidth: float, offset: str | None) -> Model:
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1; got {level!r}")
    if not bandwidth > 0:
        raise ValueError(
            "bandwidth must be positive: at 0 the likelihood has a kink at its maximum "
            f"and no information; got {bandwidth!r}"
        )
    density = functools.partial(
        _check_density, float(level), float(bandwidth), _log_mass(level, bandwidth)
    )
    return Model(
        name,
        regression(density, {"mu": linear("x", "beta", offset), "scale": "scale"}),
        functools.partial(_start_check, level=float(level), offset=offset),
        {"scale": positive},
        lambda params, data: constant(eta_of(params, data, offset), params["scale"]),
        asymmetric_laplace(float(level)),
        coding=coding.optional(offset),
    )


def _start_check(data: Tree, level: float, offset: str | None) -> Tree:
    """The median regression and its mean check loss; for another quantile it is shifted by that
    quantile of the residuals, as far as the design allows.
    """
    beta, residual, _ = _reweighted(data, offset, 1.0)
    xp = namespace(residual)
    if level != 0.5:
        move, _ = regress(
            data,
            "x",
            xp.zeros_like(residual) + xp.quantile(residual, level, axis=-1, keepdims=True),
        )
        beta = beta + move
    loss = xp.mean(xp.abs(residual), axis=-1) / 2
    return {"beta": beta, "scale": xp.maximum(loss, 1e-3 * spread(residual, column(data, "y")))}


def asymmetric_laplace(level: float) -> PredictiveLaw:
    """The asymmetric Laplace distribution, unsmoothed, whose ``level`` quantile is mu."""

    def cdf(y: Array, mu: Array, scale: Array) -> Array:
        z = (y - mu) / scale
        below = level * jnp.exp((1 - level) * jnp.minimum(z, 0.0))
        return jnp.where(z < 0, below, 1 - (1 - level) * jnp.exp(-level * jnp.maximum(z, 0.0)))

    def tails(y: Array, mu: Array, scale: Array) -> tuple[Array, Array]:
        z = (y - mu) / scale
        beyond = (1 - level) * jnp.exp(-level * jnp.maximum(z, 0.0))
        below = cdf(y, mu, scale)
        return below, jnp.where(z < 0, 1 - below, beyond)

    def inverse(p: Array, mu: Array, scale: Array) -> Array:
        left = jnp.log(jnp.minimum(p, level) / level) / (1 - level)
        return mu + scale * jnp.where(
            p < level, left, -jnp.log((1 - jnp.maximum(p, level)) / (1 - level)) / level
        )

    return PredictiveLaw(
        mean=lambda mu, scale: mu + scale * (1 - 2 * level) / (level * (1 - level)),
        variance=lambda mu, scale: (
            scale**2 * (1 - 2 * level + 2 * level**2) / (level * (1 - level)) ** 2
        ),
        cdf=cdf,
        tails=tails,
        quantile=inverse,
        sample=lambda key, mu, scale: inverse(uniform(key, mu), mu, scale),
    )
