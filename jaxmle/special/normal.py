"""The normal distribution function on the log scale and its inverse, with derivatives that lose
nothing in the far tail.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxmle.special.gamma import real
from jaxmle.special.stirling import horner

_MAP_SCALE = 4.0
# (t + 4)(φ(t)/(1 − Φ(t)) − t) in y = (t − 4)/(t + 4), 0 ≤ t ≤ ∞: Chebyshev interpolation with 40
# digits, cut where the coefficients are below 2e-17.
_MILLS = (
    1.8048571559157687,
    -1.1822045015192792,
    0.40195670380622867,
    0.06751792792276659,
    -0.13822449147872357,
    0.03370366765351547,
    0.0316565274787675,
    -0.02080045431159896,
    -0.004488589743543901,
    0.007961411150203152,
    -0.00037358714601773955,
    -0.00248579224219354,
    0.0005948620881901877,
    0.0006654957847153117,
    -0.0002893132406301709,
    -0.0001503312905080569,
    0.00010494007142868227,
    2.5598410718239395e-05,
    -3.179922158521809e-05,
    -1.4565187827615587e-06,
    8.223879713112212e-06,
    -1.1267471643798478e-06,
    -1.7817484123445418e-06,
    5.605918542801535e-07,
    3.0524847781110937e-07,
    -1.3529413081994808e-07,
    -3.6569395544138774e-08,
    1.4804154022563544e-08,
    2.2654646733362437e-09,
)


def log_ndtr(x: ArrayLike) -> jax.Array:
    """log Φ(x), elementwise, for every x of any shape.

    The first derivative is the inverse Mills ratio m = φ/Φ, the second −m(m + x). For x < 0 the sum
    m + x is evaluated as one function, not as a difference, so the second derivative keeps all its
    digits as x → −∞.

    Args:
        x: real.

    Returns:
        log Φ(x): value, first and second derivative to 1e-14 relative to max(|f|, |x f′|), at every
        x; the third to 1e-14·x².

    Example:
        >>> import jax
        >>> with jax.enable_x64(True):
        ...     print(jax.hessian(log_ndtr)(-1e4))
        -0.99999999
    """
    return _log_ndtr(real(x))


def ndtri(p: ArrayLike) -> jax.Array:
    """The quantile Φ⁻¹(p) of the normal distribution, elementwise; derivatives 1/φ and x/φ².

    Args:
        p: probability; 0 and 1 give −inf and +inf, anything outside NaN.

    Returns:
        x with Φ(x) = p, to 1e-14 relative to max(|x|, |p x′|). Above ½ the accuracy is limited by
        that of 1 − p.

    Example:
        >>> print(round(float(ndtri(0.975)), 4))
        1.96
    """
    return _ndtri(real(p))


def _upper(t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """φ(t)/(1 − Φ(t)) and the same less t, for t ≥ 0."""
    remainder = horner(1 - 2 * _MAP_SCALE / (t + _MAP_SCALE), _MILLS) / (t + _MAP_SCALE)
    return t + remainder, remainder


def upper_hazard(t: jax.Array) -> jax.Array:
    """φ(t)/(1 − Φ(t)), elementwise, for t ≥ 0."""
    return _upper(t)[0]


@jax.custom_jvp
def log_mills(t: jax.Array) -> jax.Array:
    """log Φ(−t) + t²/2, elementwise, for t ≥ 0: the log of Mills' ratio over √2π, which does
    not underflow.
    """
    return -jnp.log(math.sqrt(2 * math.pi) * _upper(t)[0])


@log_mills.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return log_mills(*primals), -_upper(*primals)[1] * tangents[0]


def _density(x: jax.Array) -> jax.Array:
    return jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


@jax.custom_jvp
def _log_ndtr(x: jax.Array) -> jax.Array:
    mills, _ = _upper(jnp.abs(x))
    lower = -0.5 * x * x - jnp.log(math.sqrt(2 * math.pi) * mills)
    above = _density(x) / mills
    # XLA's log1p has errors of 3e-14 for arguments in (−0.5, −0.41)
    return jnp.where(
        x < 0,
        lower,
        jnp.where(above > 0.3, jnp.log(1 - jnp.minimum(above, 0.5)), jnp.log1p(-above)),
    )


@jax.custom_jvp
def _slope(x: jax.Array) -> jax.Array:
    """m = φ/Φ."""
    mills, _ = _upper(jnp.abs(x))
    density = _density(x)
    return jnp.where(x < 0, mills, density / (1 - density / mills))


@jax.custom_jvp
def _remainder(x: jax.Array) -> jax.Array:
    """m + x."""
    return jnp.where(x < 0, _upper(jnp.abs(x))[1], _slope(x) + x)


def lower_hazard(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """φ(x)/Φ(x), and the same plus x, which it keeps the digits of, elementwise."""
    return _slope(x), _remainder(x)


@_log_ndtr.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _log_ndtr(*primals), _slope(*primals) * tangents[0]


@_slope.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,) = primals
    slope = _slope(x)
    # m(m + x) at ±∞ is 0 · ∞; its limits are 1 and 0
    falling = jnp.where(jnp.isinf(x), jnp.where(x < 0, 1.0, 0.0), slope * _remainder(x))
    return slope, -falling * tangents[0]


@_remainder.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    remainder = _remainder(*primals)
    return remainder, (1 - _slope(*primals) * remainder) * tangents[0]


@jax.custom_jvp
def _ndtri(p: jax.Array) -> jax.Array:
    tail = jnp.minimum(p, 1 - p)
    inside = tail > 0
    safe = jnp.where(inside, tail, 0.25)
    start = jax.scipy.special.ndtri(safe)
    # Polished by one Newton step on the log scale.
    x = start - (_log_ndtr(start) - jnp.log(safe)) / _slope(start)
    end = jnp.where(tail == 0, -jnp.inf, jnp.nan)
    return jnp.where(p < 0.5, 1.0, -1.0) * jnp.where(inside, x, end)


@_ndtri.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    x = _ndtri(*primals)
    return x, _quantile_slope(x) * tangents[0]


@jax.custom_jvp
def _quantile_slope(x: jax.Array) -> jax.Array:
    """1/φ(x); its own slope x/φ(x) is infinite where φ is 0, and not 0/0."""
    return 1 / _density(x)


@_quantile_slope.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,) = primals
    slope = _quantile_slope(x)
    return slope, jnp.where(x == 0, 0.0, x * slope) * tangents[0]
