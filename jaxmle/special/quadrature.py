"""∫₀^∞ e^{−φ(v)} dv for a convex φ with φ(0) = 0, and the same integral weighted by powers: one
fixed rule for the tails of the gamma and the beta distribution.

The integrand is a log-concave density that starts at 1. The end L with φ(L) = 38 is found by a few
Newton steps in log v; on (0, L) Gauss–Legendre with 36 nodes, moved towards 0 by v = L(2t + 3t²)/5,
reaches 1e-14 from a pure exponential to a half normal to an extreme-value decay. Derivatives in the
parameters are further weights under the same integral, so they are as exact as the value.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import DTypeLike, ndarray

LOG_DEPTH = 38.0  # e⁻³⁸ = 3e-17
_NEWTON_STEPS = 4
# Gauss–Legendre on (0, 1), 36 nodes, the lower half: Newton on Legendre's recurrence with 30
# digits.
_NODES = (
    0.001084768757957082,
    0.005706760548893881,
    0.013986154475151025,
    0.025863507800246228,
    0.04125111274217047,
    0.060035099554801435,
    0.08207641650376235,
    0.10721188493389675,
    0.1352554142032217,
    0.16599938170723946,
    0.19921617093200975,
    0.23465985703687742,
    0.27206802778328987,
    0.3111637264401554,
    0.35165750232798587,
    0.39324955384156723,
    0.4356319480953076,
    0.4784909007631457,
)
_WEIGHTS = (
    0.0027828598321225227,
    0.006457973642032787,
    0.010090757648867736,
    0.01364931074928439,
    0.017106905385153616,
    0.020437875461822446,
    0.02361754174513299,
    0.02662235698887996,
    0.02943007212266241,
    0.03201989867750774,
    0.034372661917868225,
    0.03647094250282653,
    0.038299205322935334,
    0.0398439144560358,
    0.04109363335216985,
    0.042039109489830966,
    0.04267334286966931,
    0.042991637835197376,
)


def rule(dtype: DTypeLike) -> tuple[ndarray, ndarray]:
    """Nodes v/L and weights. New arrays at each call: jax keys constants by identity, whatever
    the precision it runs in.
    """
    t = np.array([*_NODES, *(1 - v for v in reversed(_NODES))])
    weights = np.array([*_WEIGHTS, *reversed(_WEIGHTS)])
    return (t * (0.4 + 0.6 * t)).astype(dtype), (weights * (0.4 + 1.2 * t)).astype(dtype)


def end(phi: Callable[[jax.Array], tuple[jax.Array, jax.Array]], start: jax.Array) -> jax.Array:
    """L with φ(L) ≈ 38, from a start to its right; ``phi`` gives φ and φ′.

    Newton for log φ in log v: exact at once for a power, fast for an exponential. A few per cent
    are enough, and nothing depends on L: give ``phi`` and ``start`` of parameters behind
    ``stop_gradient``.
    """

    def newton(_: int, v: jax.Array) -> jax.Array:
        value, slope = phi(v)
        value = jnp.maximum(value, 1e-3)
        return v * jnp.exp(-jnp.log(value / LOG_DEPTH) * value / jnp.maximum(v * slope, value))

    return jax.lax.fori_loop(0, _NEWTON_STEPS, newton, start)


def moments(
    terms: Callable[[jax.Array], tuple[jax.Array, ...]], length: jax.Array
) -> tuple[jax.Array, ...]:
    """Σ wᵢ e^{−φ(vᵢ)} gⱼ(vᵢ) for each of what ``terms(v)`` gives: (e^{−φ}, e^{−φ}g₁, …), one
    node after the other over the whole array.
    """
    nodes, weights = rule(length.dtype)

    def add(
        total: tuple[jax.Array, ...], node: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, ...], None]:
        t, weight = node
        return tuple(s + weight * g for s, g in zip(total, terms(length * t), strict=True)), None

    start = tuple(jnp.zeros_like(length) for _ in jax.eval_shape(terms, length))
    total, _ = jax.lax.scan(add, start, (jnp.asarray(nodes), jnp.asarray(weights)))
    return tuple(length * s for s in total)
