"""Regression of counts: Poisson and negative binomial, plain, zero-inflated or with a hurdle at
zero.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle._namespace import HOST, namespace
from jaxmle._types import Array, Function, Tree
from jaxmle.likelihood.regression import Predictor, linear, regression
from jaxmle.likelihood.response import exact
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import constant, eta_of
from jaxmle.models.common.response_laws import PredictiveLaw
from jaxmle.models.common.start_values import (
    clip,
    column,
    design,
    fitted,
    least_squares,
    regress,
)
from jaxmle.parameters.arguments import check_choice
from jaxmle.parameters.constraints import lower
from jaxmle.special.counts import negative_binomial_dispersion_part, negative_binomial_kernel
from jaxmle.special.exponential import log1mexp, log_cloglog
from jaxmle.special.gamma import gammaln
from jaxmle.special.logistic import sigmoid, softplus


def _log_mean(eta: Array, row: Tree, exposure: str | None) -> Array:
    return eta if exposure is None else eta + jnp.log(row[exposure])


def plain_poisson(y: Array, log_mu: Array) -> Array:
    """The Poisson term y log μ − μ − log y!: the cancellation at large counts, 1e-9 of a term at y
    = 10⁶, affects no derivative.

    ``special.poisson_logpmf`` would avoid it, but is slower: a fit of 200 000 rows by 5 columns
    takes 45 ms this way and 80 ms with it.
    """
    return y * log_mu - jnp.exp(log_mu) - gammaln(y + 1)


def _poisson_density(exposure: str | None, eta: Tree, row: Tree) -> Array:
    return plain_poisson(row["y"], _log_mean(eta["log_mu"], row, exposure))


def _poisson_information(exposure: str | None, eta: Tree, row: Tree) -> Array:
    return jnp.exp(_log_mean(eta["log_mu"], row, exposure))


def _poisson_cross(eta: Tree, row: Tree) -> Array:
    """The cross moment of a Poisson response: zero, since the second derivative −μ does not contain
    the response.
    """
    return jnp.zeros_like(eta["log_mu"])


def _negative_binomial_density(exposure: str | None, eta: Tree, row: Tree) -> Array:
    return negative_binomial_kernel(row["y"], _log_mean(eta["log_mu"], row, exposure), eta["alpha"])


def _dispersion_part(eta: Tree, y: Array) -> Array:
    return negative_binomial_dispersion_part(y, eta["alpha"])


def mean_of(params: Tree, data: Tree, offset: str | None, exposure: str | None) -> Array:
    """The mean μ = exposure · exp(xβ + offset), (n,)."""
    mu = jnp.exp(eta_of(params, data, offset))
    return mu if exposure is None else mu * jnp.asarray(data[exposure])


@made_once
def poisson(*, offset: str | None = None, exposure: str | None = None) -> Model:
    """Poisson regression with a log link: mean = exposure · exp(xβ + offset). Parameters: ``beta``
    (q,).

    The response need not be an integer: with ``vcov="HC0"`` the fit is the Poisson pseudo-maximum
    likelihood of any response ≥ 0 (Gourieroux, Monfort & Trognon 1984, Econometrica 52, p. 701).

    Args:
        offset: name of a data leaf (n,) added to log μ.
        exposure: name of a data leaf (n,) that multiplies μ.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.ones((3, 1)),
    ...     "y": np.array([1.0, 4.0, 4.0]),
    ...     "years": np.array([1.0, 1.0, 2.0]),
    ... }
    >>> jm.fit(models.poisson(exposure="years"), data=data).params["beta"].round(4).tolist()
    [0.8109]
    """
    return Model(
        "poisson",
        regression(
            functools.partial(_poisson_density, exposure),
            {"log_mu": linear("x", "beta", offset)},
            response=exact(functools.partial(_poisson_information, exposure), _poisson_cross),
        ),
        functools.partial(_start_poisson, offset=offset, exposure=exposure),
        None,
        lambda params, data: (mean_of(params, data, offset, exposure),),
        response_laws.poisson,
        coding=(coding.counts(whole=False), *coding.optional(offset, exposure)),
    )


@made_once
def negative_binomial(*, offset: str | None = None, exposure: str | None = None) -> Model:
    """Negative binomial regression (NB2) with a log link: variance μ + alpha·μ². Parameters:
    ``beta`` (q,) and ``alpha`` > 0.

    Counts that are not overdispersed have their maximum at alpha = 0, the Poisson limit: the fit is
    then BOUNDARY.

    Args:
        offset: name of a data leaf (n,) added to log μ.
        exposure: name of a data leaf (n,) that multiplies μ.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "y": np.array([3.0])}
    >>> params = {"beta": np.zeros(1), "alpha": 1.0}
    >>> float(models.negative_binomial()(params, data)[0])  # a geometric distribution: log 2⁻⁴
    -2.7726
    """
    return Model(
        "negative_binomial",
        regression(
            functools.partial(_negative_binomial_density, exposure),
            {"log_mu": linear("x", "beta", offset), "alpha": "alpha"},
            counts={"y": _dispersion_part},
        ),
        functools.partial(_start_negative_binomial, offset=offset, exposure=exposure),
        {"alpha": lower(0.0)},
        lambda params, data: constant(mean_of(params, data, offset, exposure), params["alpha"]),
        response_laws.negative_binomial,
        coding=(coding.counts(), *coding.optional(offset, exposure)),
    )


def _poisson_step(
    data: Tree, offset: str | None, exposure: str | None
) -> tuple[Array, Array, Array]:
    """The response, coefficients and means after one weighted step from μ = y + 0.1 (McCullagh
    & Nelder 1989, p. 117).
    """
    y = column(data, "y")
    xp = namespace(y)
    y = xp.maximum(y, 0.0)
    mu = y + 0.1
    shift = _shift(data, y, offset, exposure)
    beta, eta = regress(data, "x", xp.log(mu) + (y - mu) / mu - shift, mu)
    return y, beta, xp.exp(xp.minimum(eta + shift, _ceiling(y)))


def _shift(data: Tree, y: Array, offset: str | None, exposure: str | None) -> Array:
    """The offset and the log exposure added to xβ, (…, n)."""
    xp = namespace(y)
    shift = xp.zeros_like(y) if offset is None else column(data, offset)
    return shift if exposure is None else shift + xp.log(xp.maximum(column(data, exposure), 1e-30))


def _ceiling(y: Array) -> Array:
    """An upper bound on fitted log means, which are never far above the largest count."""
    xp = namespace(y)
    return xp.log(xp.max(y, axis=-1, keepdims=True) + 1.0) + 1.0


def _start_poisson(data: Tree, offset: str | None, exposure: str | None) -> Tree:
    return {"beta": _poisson_step(data, offset, exposure)[1]}


def _start_negative_binomial(data: Tree, offset: str | None, exposure: str | None) -> Tree:
    """The Poisson fit after four steps, and the α from one scoring step from 0; or the best of
    several α if that step does not tell whether the maximum lies at 0.
    """
    y, beta, mu = _poisson_step(data, offset, exposure)
    for _ in range(3):
        beta, mu = _next_poisson_step(data, y, mu, offset, exposure)
    matrix, single = design(data, "x", y)
    coefficients = beta[..., None] if single else beta
    shift = _shift(data, y, offset, exposure)
    coefficients, alpha = _with_dispersion(y, matrix, shift, coefficients, mu)
    return {"beta": coefficients[..., 0] if single else coefficients, "alpha": alpha}


def _next_poisson_step(
    data: Tree, y: Array, mu: Array, offset: str | None, exposure: str | None
) -> tuple[Array, Array]:
    xp = namespace(y)
    shift = _shift(data, y, offset, exposure)
    mu = xp.maximum(mu, 1e-3)
    beta, eta = regress(data, "x", xp.log(mu) + (y - mu) / mu - shift, mu)
    return beta, xp.exp(xp.minimum(eta + shift, _ceiling(y)))


def dispersion(y: Array, mu: Array) -> Array:
    """The dispersion α from E (y − μ)² = μ + αμ², one step of scoring from the Poisson limit; at
    least a tenth of its standard error √(2/Σμ²) there.

    A larger start would be unsafe: an ascent that begins beyond the inflection of ℓ in log α may
    jump over the maximum onto the plateau towards α = 0.
    """
    xp = namespace(y)
    square = xp.sum(mu**2, axis=-1)
    least = 0.1 * xp.sqrt(2 / xp.maximum(square, 1e-3))
    return clip(
        xp.maximum(xp.sum((y - mu) ** 2 - mu, axis=-1) / xp.maximum(square, 1e-3), least), 1e-6, 5.0
    )


# Within this many standard errors of 0, the score in α cannot tell a maximum at 0 from one inside.
_DOUBTFUL_DISPERSION = 4.0
_ODDS_TRIED = (0.5, 2.0, 8.0)  # α times the mean: variances of 1.5, 3 and 9 means
_STEPS_AT_A_DISPERSION = 3


def _with_dispersion(
    y: Array, x: Array, shift: Array, beta: Array, mu: Array
) -> tuple[Array, Array]:
    """Coefficients and α to start from, given the Poisson fit.

    In a small sample with many columns the fitted means follow the counts, so ℓ decreases in α at 0
    although its maximum is inside. There the α from scoring is compared with others by the value of
    ℓ, each with its own coefficients. On the host this is done only for the members of a batch that
    need it; under tracing, for all.
    """
    xp = namespace(y)
    alpha = dispersion(y, mu)
    error = xp.sqrt(2 * xp.maximum(xp.sum(mu**2, axis=-1), 1e-3))
    doubtful = xp.abs(xp.sum((y - mu) ** 2 - mu, axis=-1)) < _DOUBTFUL_DISPERSION * error
    if xp is not HOST:
        better, inside = _best_dispersion(y, x, shift, beta, alpha)
        return xp.where(doubtful[..., None], better, beta), xp.where(doubtful, inside, alpha)
    if doubtful.any():
        shared = x.ndim == 2
        shift = np.broadcast_to(shift, y.shape)
        beta, alpha = np.array(beta), np.array(alpha)
        beta[doubtful], alpha[doubtful] = _best_dispersion(
            y[doubtful],
            x if shared else x[doubtful],
            shift[doubtful],
            beta[doubtful],
            alpha[doubtful],
        )
    return beta, alpha


def _best_dispersion(
    y: Array, x: Array, shift: Array, beta: Array, alpha: Array
) -> tuple[Array, Array]:
    """The best of α and the values tried, with its coefficients after a few scoring steps."""
    xp = namespace(y)
    mean = xp.maximum(xp.mean(y, axis=-1), 1e-3)
    tried = xp.stack([alpha, *(clip(odds / mean, 1e-6, 1e3) for odds in _ODDS_TRIED)])
    refine = functools.partial(_at_dispersion, y, x, shift, beta)
    betas, values = (
        map(np.stack, zip(*map(refine, tried), strict=True))
        if xp is HOST
        else jax.vmap(refine)(tried)
    )
    best = xp.argmax(xp.where(xp.isfinite(values), values, -xp.inf), axis=0)[None]
    beta = xp.take_along_axis(betas, best[..., None], axis=0)[0]
    return beta, xp.take_along_axis(tried, best, axis=0)[0]


def _at_dispersion(
    y: Array, x: Array, shift: Array, beta: Array, alpha: Array
) -> tuple[Array, Array]:
    """Coefficients after a few scoring steps at a given α, and ℓ there without Σ log y!."""
    xp = namespace(y)
    alpha = alpha[..., None]
    for _ in range(_STEPS_AT_A_DISPERSION):
        mu = xp.maximum(xp.exp(xp.minimum(fitted(x, beta) + shift, _ceiling(y))), 1e-3)
        beta = least_squares(x, xp.log(mu) + (y - mu) / mu - shift, mu / (1 + alpha * mu))
    eta = xp.minimum(fitted(x, beta) + shift, _ceiling(y))
    return beta, xp.sum(_negative_binomial_terms(y, eta, alpha), axis=-1)


def _negative_binomial_terms(y: Array, eta: Array, alpha: Array) -> Array:
    """ℓ without log y!, by the plain formula: accurate to 1e-9 at the smallest α tried, 1e-6."""
    gamma_function = scipy.special.gammaln if namespace(y) is HOST else gammaln
    size = 1 / alpha
    odds = alpha * namespace(y).exp(eta)
    dispersion_part = gamma_function(y + size) - gamma_function(size) + y * namespace(y).log(alpha)
    return dispersion_part + y * eta - (y + size) * namespace(y).log1p(odds)


# ---------------------------------------------------------------- two kinds of zeros


def _zero_inflated_poisson(eta: Tree, row: Tree) -> Array:
    zero = eta["zero"]
    log_mu = eta["log_mu"]
    at_zero = jnp.logaddexp(zero, -jnp.exp(log_mu))
    return jnp.where(row["y"] == 0, at_zero, plain_poisson(row["y"], log_mu)) - softplus(zero)


def _zero_inflated_negative_binomial(eta: Tree, row: Tree) -> Array:
    """The zero-inflated term without its dispersion part, which is 0 for a count of 0 and so can be
    added both to the other counts and to the mixture at 0.
    """
    zero = eta["zero"]
    count = negative_binomial_kernel(row["y"], eta["log_mu"], eta["alpha"])
    return jnp.where(row["y"] == 0, jnp.logaddexp(zero, count), count) - softplus(zero)


def _hurdle_poisson(eta: Tree, row: Tree) -> Array:
    crossed = row["y"] != 0  # a missing count is neither zero nor positive
    log_mu = eta["log_mu"]
    positive = plain_poisson(row["y"], log_mu) - log_cloglog(log_mu)
    return jnp.where(crossed, positive + eta["cross"], 0.0) - softplus(eta["cross"])


def _hurdle_negative_binomial(eta: Tree, row: Tree) -> Array:
    """The hurdle term without its dispersion part, which is 0 for a count of 0."""
    crossed = row["y"] != 0
    log_mu = eta["log_mu"]
    alpha = eta["alpha"]
    log_empty = negative_binomial_kernel(jnp.zeros_like(log_mu), log_mu, alpha)  # log P(0)
    positive = negative_binomial_kernel(row["y"], log_mu, alpha) - log1mexp(log_empty)
    return jnp.where(crossed, positive + eta["cross"], 0.0) - softplus(eta["cross"])


COUNT_MODELS = ("poisson", "negative_binomial")


def _check_count(count: str) -> None:
    check_choice("count", count, COUNT_MODELS)


@made_once
def zero_inflated(count: str = "poisson", *, zero: str = "z", offset: str | None = None) -> Model:
    """Zero-inflated counts: 0 with probability π = sigmoid(zγ), otherwise a count with mean
    exp(xβ). Parameters: ``beta``, ``gamma`` and, if negative binomial, ``alpha``.

    Lambert (1992), Technometrics 34, p. 1.

    Args:
        count: ``"poisson"`` or ``"negative_binomial"``.
        zero: name of the design (n, r) of the excess zeros; ``"x"`` for the design of the counts.
        offset: name of a data leaf (n,) added to log μ.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "z": np.ones((1, 1)), "y": np.zeros(1)}
    >>> params = {"beta": np.zeros(1), "gamma": np.zeros(1)}
    >>> float(models.zero_inflated()(params, data)[0])  # log(½ + ½ e⁻¹)
    -0.3799
    """
    _check_count(count)
    if count == "poisson":
        return _two_parts(
            "zero_inflated",
            _zero_inflated_poisson,
            response_laws.zero_inflated_poisson,
            "zero",
            zero,
            offset,
            plain=True,
        )
    return _two_parts(
        "zero_inflated",
        _zero_inflated_negative_binomial,
        response_laws.zero_inflated_negative_binomial,
        "zero",
        zero,
        offset,
        plain=False,
    )


@made_once
def hurdle(count: str = "poisson", *, cross: str = "z", offset: str | None = None) -> Model:
    """Hurdle counts: positive with probability sigmoid(zγ), and then a count with parameter
    exp(xβ), given that it is positive.

    Parameters: ``beta``, ``gamma`` and, if negative binomial, ``alpha``. Mullahy (1986), Journal of
    Econometrics 33, p. 341.

    Args:
        count: ``"poisson"`` or ``"negative_binomial"``.
        cross: name of the design (n, r) of the positive probability; ``"x"`` for the design of the
            counts.
        offset: name of a data leaf (n,) added to log μ.

    >>> import numpy as np
    >>> from jaxmle import models
    >>> data = {"x": np.ones((1, 1)), "z": np.ones((1, 1)), "y": np.zeros(1)}
    >>> params = {"beta": np.zeros(1), "gamma": np.zeros(1)}
    >>> float(models.hurdle()(params, data)[0])  # log ½, whatever beta is
    -0.6931
    """
    _check_count(count)
    if count == "poisson":
        return _two_parts(
            "hurdle",
            _hurdle_poisson,
            response_laws.hurdle_poisson,
            "cross",
            cross,
            offset,
            plain=True,
        )
    return _two_parts(
        "hurdle",
        _hurdle_negative_binomial,
        response_laws.hurdle_negative_binomial,
        "cross",
        cross,
        offset,
        plain=False,
    )


def _two_parts(
    name: str,
    density: Function,
    law: PredictiveLaw,
    part: str,
    design: str,
    offset: str | None,
    *,
    plain: bool,
) -> Model:
    """The model of a density in two predictors: log μ, and ``part`` with a design of its own.
    ``plain`` is the version without α.
    """
    eta: dict[str, Predictor] = {
        "log_mu": linear("x", "beta", offset),
        part: linear(design, "gamma"),
    }
    return Model(
        name,
        regression(density, eta)
        if plain
        else regression(density, {**eta, "alpha": "alpha"}, counts={"y": _dispersion_part}),
        functools.partial(
            _start_two_parts, part=design, offset=offset, plain=plain, hurdle=name == "hurdle"
        ),
        None if plain else {"alpha": lower(0.0)},
        functools.partial(_two_part_natural, part=design, offset=offset, plain=plain),
        law,
        coding=(coding.counts(), *coding.optional(offset)),
    )


def _two_part_natural(
    params: Tree, data: Tree, part: str, offset: str | None, plain: bool
) -> tuple[Array, ...]:
    mu = jnp.exp(eta_of(params, data, offset))
    probability = sigmoid(eta_of(params, data, None, part, "gamma"))
    return (probability, mu) if plain else (probability, *constant(mu, params["alpha"]))


def _start_two_parts(data: Tree, part: str, offset: str | None, plain: bool, hurdle: bool) -> Tree:
    """Positive counts by least squares of their logs; the zeros by a linear approximation to their
    logit.
    """
    y = column(data, "y")
    xp = namespace(y)
    is_positive = (y > 0).astype(y.dtype)
    shift = xp.zeros_like(y) if offset is None else column(data, offset)
    beta, eta = regress(data, "x", xp.log(xp.maximum(y, 0.5)) - shift, is_positive * y + 1e-3)
    mu = xp.exp(xp.minimum(eta + shift, xp.log(xp.max(y, axis=-1, keepdims=True) + 1.0)))
    expected = xp.exp(-mu)  # zeros explained by the counts
    target = is_positive if hurdle else (1 - is_positive) * clip(1 - expected, 0.1, 0.9)
    gamma, _ = regress(data, part, 4 * (target - 0.5))
    starts = {"beta": beta, "gamma": gamma}
    # Both from trials with α between 0.15 and 0.6: the ascent must not jump over a small α onto the
    # plateau towards 0 (``dispersion``).
    return (
        starts
        if plain
        else {**starts, "alpha": xp.full_like(xp.max(y, axis=-1), 0.05 if hurdle else 0.5)}
    )
