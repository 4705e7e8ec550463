"""The long-run variance of scores in time order: HAC covariances (Newey & West 1987; Andrews 1991).

With u_t the score of row t, the meat is Σ_j k(j/b) Γ_j over all lags, Γ_j = Σ_t u_t u_{t+j}', b the
bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array
from jaxmle.likelihood.terms import Rows
from jaxmle.parameters.arguments import check_choice, check_count, check_number, shown
from jaxmle.parameters.keywords import with_keyword_hints

KERNELS = ("bartlett", "parzen", "quadratic-spectral")
# Newey & West (1994), Review of Economic Studies 61, p. 637 and table II: bandwidth =
# constant·(ŝ_q/ŝ_0)^(2/(2q+1))·n^(1/(2q+1)), with autocovariances up to the lag 4(n/100)^rate.
ORDER = {"bartlett": 1, "parzen": 2, "quadratic-spectral": 2}
CONSTANT = {"bartlett": 1.1447, "parzen": 2.6614, "quadratic-spectral": 1.3221}
RATE = {"bartlett": 2 / 9, "parzen": 4 / 25, "quadratic-spectral": 2 / 25}


@dataclass(frozen=True)
class HAC:
    """How a HAC covariance weighs autocovariances; made by ``hac``. ``bandwidth`` None means Newey
    and West's choice.
    """

    kernel: str
    bandwidth: float | None
    weights: tuple[float, ...] | None

    def __str__(self) -> str:
        width = (
            "Newey-West bandwidth" if self.bandwidth is None else f"bandwidth {self.bandwidth:g}"
        )
        return f"HAC ({self.kernel}, {width})"


@with_keyword_hints
def hac(
    kernel: str = "bartlett",
    *,
    lags: int | None = None,
    bandwidth: float | str = "newey-west",
    weights: object = None,
) -> HAC:
    """A covariance robust to autocorrelation, for ``vcov=``; rows must be in time order and equally
    spaced.

    The weight of the autocovariance at lag j is k(j/b): 1 − |z| for ``"bartlett"`` (z ≤ 1), 1 − 6z²
    + 6|z|³ and 2(1 − |z|)³ on either side of ½ for ``"parzen"``, 3/x²·(sin x/x − cos x) with x =
    6πz/5 for ``"quadratic-spectral"``, which uses every lag. There is no factor for the number of
    parameters and no prewhitening. A row with weight 0 is left out, and its neighbours become
    adjacent.

    Args:
        kernel: ``"bartlett"`` (Newey & West 1987), ``"parzen"`` or ``"quadratic-spectral"``
            (Andrews 1991).
        lags: the last lag L that is used; the bandwidth is then L + 1. Not for the
            quadratic-spectral kernel, which uses all lags.
        bandwidth: a positive number b in rows, or ``"newey-west"``: the choice of Newey & West
            (1994) from the scores, rounded down to whole lags for the Bartlett kernel.
        weights: for that choice, the weights with which the scores are combined into one series,
            (p,) in the order of the parameter names; usually 1, and 0 for the intercept. None
            instead uses the trace of each autocovariance times the inverse information, which does
            not depend on the scale of the columns.

    Returns:
        A record for ``fit(…, vcov=hac(…))`` and ``vcov(loglik, hac(…))``; ``vcov="hac"`` is short
        for ``hac()``.

    Raises:
        ValueError: for an unknown kernel, a bandwidth that is not positive, or both ``lags`` and
            ``bandwidth``.

    >>> str(hac(lags=4)), str(hac("quadratic-spectral"))
    ('HAC (bartlett, bandwidth 5)', 'HAC (quadratic-spectral, Newey-West bandwidth)')
    """
    check_choice("kernel", kernel, KERNELS)
    if lags is not None:
        if not isinstance(bandwidth, str) or bandwidth != "newey-west":
            raise ValueError("give lags or bandwidth, not both: lags=L is bandwidth=L + 1")
        if kernel == "quadratic-spectral":
            raise ValueError("the quadratic-spectral kernel has no last lag: give bandwidth=b")
        bandwidth = check_count("lags", lags) + 1.0
    if isinstance(bandwidth, str) and bandwidth != "newey-west":
        raise ValueError(f"bandwidth must be a positive number or 'newey-west'; got {bandwidth!r}")
    number = None if isinstance(bandwidth, str) else check_number("bandwidth", bandwidth, low=0.0)
    if weights is not None and number is not None:
        raise ValueError(
            "weights are used only to choose a bandwidth: leave them out if you give "
            "lags or bandwidth"
        )
    return HAC(kernel, number, None if weights is None else _checked_weights(weights))


def _checked_weights(weights: object) -> tuple[float, ...]:
    values = np.asarray(weights)
    if values.ndim != 1 or values.dtype.kind not in "fiu" or not np.all(np.isfinite(values)):
        raise ValueError(
            f"weights must be finite numbers, one for each parameter; got {shown(weights)}"
        )
    return tuple(float(w) for w in values)


def check_bandwidth(kind: object, rows: int | None) -> None:
    """Raise if a lag is as long as the data: the weights of all lags would be near one, and because
    the scores sum to zero at the maximum, the variance would vanish.
    """
    if not isinstance(kind, HAC) or kind.bandwidth is None or rows is None:
        return
    if kind.bandwidth > rows:
        lags = f" (lags={kind.bandwidth - 1:g})" if kind.bandwidth == int(kind.bandwidth) else ""
        raise ValueError(
            f"hac has the bandwidth {kind.bandwidth:g}{lags} and the data {rows} rows: "
            "the last lag must be less than the number of rows, and should be of the "
            "order of its cube root"
        )


def long_run(kind: HAC, rows: Rows, scaled: Array) -> Array:
    """Σ_j k(j/b) Γ_j of the scaled scores (n, k), (k, k).

    Args:
        rows: the scores on the user's scale, with their weights.
        scaled: the same scores in coordinates in which the information is the identity, (n, k).
    """
    # Rows with weight 0 are moved to the end, where they do not separate other rows.
    order = jnp.argsort(rows.weight <= 0, stable=True)
    w = rows.weight[order, None]
    u = w * scaled[order]
    n = jnp.sum(rows.weight > 0)
    b = (
        jnp.asarray(kind.bandwidth, u.dtype)
        if kind.bandwidth is not None
        else _newey_west(kind, u, w * rows.scores[order], n)
    )
    lags = jnp.arange(u.shape[0])
    meat = u.T @ _filtered(_kernel(kind.kernel, lags / b), u)
    # A member of a batch may be too short: it then has no covariance.
    if kind.bandwidth is not None:
        meat = jnp.where(b > n, jnp.nan, meat)
    return 0.5 * (meat + meat.T)


def _kernel(name: str, z: Array) -> Array:
    """k(z) for z ≥ 0."""
    if name == "bartlett":
        return jnp.maximum(1 - z, 0.0)
    if name == "parzen":
        return jnp.where(z <= 0.5, 1 - 6 * z**2 + 6 * z**3, 2 * jnp.maximum(1 - z, 0.0) ** 3)
    x = 1.2 * jnp.pi * z
    small = x < 0.1  # sin x/x − cos x = x²/3 − x⁴/30 + x⁶/840 − x⁸/45360 cancels there
    safe = jnp.where(small, 1.0, x)
    series = 1 - x**2 / 10 + x**4 / 280 - x**6 / 15120
    return jnp.where(small, series, 3 / safe**2 * (jnp.sin(safe) / safe - jnp.cos(safe)))


def _filtered(weights: Array, u: Array) -> Array:
    """Σ_s weights_|t−s| u_s for each t, (n, k), through the Fourier transform: all lags in O(n
    log n).
    """
    n = u.shape[0]
    size = 1 << (2 * n - 1).bit_length()
    around = jnp.zeros(size, u.dtype).at[:n].set(weights).at[size - n + 1 :].set(weights[1:][::-1])
    spectrum = jnp.fft.rfft(around)[:, None] * jnp.fft.rfft(u, size, axis=0)
    return jnp.fft.irfft(spectrum, size, axis=0)[:n].astype(u.dtype)


def _newey_west(kind: HAC, u: Array, scores: Array, n: Array) -> Array:
    """The bandwidth of Newey & West (1994); for the Bartlett kernel one more than its whole
    lags.
    """
    q = ORDER[kind.kernel]
    if kind.weights is not None:
        if len(kind.weights) != scores.shape[1]:
            raise ValueError(
                f"hac has {len(kind.weights)} weights for {scores.shape[1]} parameters"
            )
        u = scores @ jnp.asarray(kind.weights, u.dtype)[:, None]
    size = u.shape[0]
    longest = 4 * (size / 100) ** RATE[kind.kernel]
    lags = jnp.arange(size)
    used = (lags <= jnp.floor(4 * (n / 100) ** RATE[kind.kernel])) & (lags < size)
    gamma = jnp.stack([jnp.sum(u[: size - j] * u[j:]) for j in range(min(size, int(longest) + 2))])
    used = used[: gamma.shape[0]]
    lags = lags[: gamma.shape[0]]
    both = jnp.where(used, jnp.where(lags == 0, 1.0, 2.0), 0.0) * gamma
    ratio = jnp.sum(lags**q * both) / jnp.sum(both)
    chosen = CONSTANT[kind.kernel] * (ratio**2) ** (1 / (2 * q + 1)) * n ** (1 / (2 * q + 1))
    return jnp.maximum(
        jnp.floor(chosen) + 1.0 if kind.kernel == "bartlett" else chosen, jnp.finfo(u.dtype).tiny
    )
