"""EM for Gaussian mixtures, with both steps as products of matrices over blocks of rows.

The log density of a component is linear in the features φ(x) = (1, x, x_i x_j): log w_j f_j(x) =
a_j'φ(x). With features in rows, (m, B) for a block of B observations, one product A φ (k, B) gives
every log density and one product R φ' (k, m) of the responsibilities R every sufficient statistic.
Observations are centred first: a product keeps about 16 − log10(μ'Σ⁻¹μ) digits of a log density, μ
from the centre. The Newton finish uses triangular factors, which lose none.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.mixtures.gaussian_density import LOG_2PI, VarianceFloor, stacked_matrices, whitening

# of the pooled conditional variance; centred products keep four digits of a variance at this ratio,
# and none at 1e-16
MIN_VARIANCE_SHARE = 1e-12


class Path(NamedTuple):
    """Where EM went from each of s starts."""

    params: Tree  # the last, each leaf with a leading axis s
    # (s, max_steps or more) the objective at each step's parameters, NaN after the last
    logliks: ndarray
    steps: ndarray  # (s,)
    collapsed: ndarray  # (s,) the component that collapsed at the next step; −1


class _State(NamedTuple):
    params: Tree
    logliks: Array
    last: Array  # objective before
    gain: Array  # its gain before
    steps: Array
    collapsed: Array
    done: Array


def _pairs(d: int, whole: bool) -> tuple[list[int], list[int]]:
    pairs = [(i, j) for i in range(d) for j in (range(i + 1) if whole else (i,))]
    return [i for i, _ in pairs], [j for _, j in pairs]


def _features(block: Array, whole: bool) -> Array:
    """φ, (m, B), of a block (d, B)."""
    i, j = _pairs(block.shape[0], whole)
    return jnp.concatenate(
        [
            jnp.ones_like(block[:1]),
            block,
            jnp.stack([block[a] * block[b] for a, b in zip(i, j, strict=True)]),
        ]
    )


def _matrices(params: Tree, kind: str) -> Array:
    """Σ_j, (k, d, d), of the stacked form in which EM holds it."""
    k, d = params["loc"].shape
    spread = params["spread"]
    if kind == "spherical":
        spread = jnp.broadcast_to(spread[:, None], (k, d))
    if kind in ("diagonal", "spherical"):
        return spread[:, :, None] * jnp.eye(d, dtype=spread.dtype)[None]
    return stacked_matrices(spread, k) if kind == "tied" else spread


def _coefficients(params: Tree, kind: str) -> tuple[Array, Array]:
    """A, (k, m), and the largest μ'Σ⁻¹μ, to which its rounding is in proportion."""
    loc = params["loc"]
    whole = kind in ("full", "tied")
    inverse, log_det = whitening(_matrices(params, kind))
    precision = jnp.einsum("kij,kil->kjl", inverse, inverse)
    linear = jnp.einsum("kij,kj->ki", precision, loc)
    far = jnp.sum(linear * loc, axis=-1)
    constant = jnp.log(params["weights"]) - 0.5 * (log_det + far + loc.shape[1] * LOG_2PI)
    i, j = _pairs(loc.shape[1], whole)
    quadratic = jnp.stack(
        [-precision[:, a, b] * (0.5 if a == b else 1.0) for a, b in zip(i, j, strict=True)], axis=1
    )
    return jnp.concatenate([constant[:, None], linear, quadratic], axis=1), jnp.max(far)


def _pass(a: Array, blocks: Array, weights: Array, whole: bool) -> tuple[Array, Array, Array]:
    """ℓ, Σ|terms| and the sufficient statistics Σ_i w_i r_ij φ(x_i), (k, m): one pass over
    blocks (nb, d, B).
    """

    def add(
        total: tuple[jax.Array, jax.Array, jax.Array], block: tuple[Array, Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        rows, w = block
        features = _features(rows, whole)
        logits = a @ features
        top = jnp.max(logits, axis=0)
        odds = jnp.exp(logits - top[None, :])
        whole_odds = jnp.sum(odds, axis=0)
        terms = top + jnp.log(whole_odds)
        statistics = (odds * (w / whole_odds)[None, :]) @ features.T
        return (
            total[0] + jnp.sum(w * terms),
            total[1] + jnp.sum(w * jnp.abs(terms)),
            total[2] + statistics,
        ), None

    zero = jnp.zeros((), a.dtype)
    return jax.lax.scan(add, (zero, zero, jnp.zeros_like(a)), (blocks, weights))[0]


def _maximised(
    statistics: Array, kind: str, d: int, strength: float | Array, pooled: Array
) -> Tree:
    """The M-step in closed form; with a floor, Σ_j = (scatter_j + 2aS)/(N_j + 2a)."""
    whole = kind in ("full", "tied")
    mass = statistics[:, 0]
    sums = statistics[:, 1 : d + 1]
    squares = statistics[:, d + 1 :]
    loc = sums / mass[:, None]
    i, j = (np.array(index) for index in _pairs(d, whole))
    scatter = squares - mass[:, None] * loc[:, i] * loc[:, j]
    floor = 2 * strength * pooled[i, j][None, :]
    more = 2 * strength
    spread: Array
    if kind == "tied":
        spread = (jnp.sum(scatter, axis=0) + floor[0]) / (jnp.sum(mass) + more)
    elif kind == "spherical":
        spread = jnp.sum(scatter + floor, axis=1) / (d * (mass + more))
    else:
        spread = (scatter + floor) / (mass + more)[:, None]
    if whole:
        place = np.zeros((d, d), int)
        place[i, j] = place[j, i] = np.arange(len(i))
        spread = spread[..., place]
    return {"weights": mass / jnp.sum(mass), "loc": loc, "spread": spread}


def _pivots(matrices: Array) -> Array:
    """The squared diagonal of the Cholesky factor: each coordinate's variance given those
    before it.
    """
    return jnp.diagonal(jnp.linalg.cholesky(matrices), axis1=-2, axis2=-1) ** 2


def _step(
    params: Tree, blocks: Array, weights: Array, floor: VarianceFloor, kind: str
) -> tuple[Array, Array, Tree, Array]:
    """One step of EM: objective and its rounding at ``params``, the parameters of the M-step, and
    the component that collapses there; −1.
    """
    d = blocks.shape[1]
    a, far = _coefficients(params, kind)
    loglik, size, statistics = _pass(a, blocks, weights, kind in ("full", "tied"))
    user_params = {"loc": params["loc"], **named_spread(params["spread"], kind, tuple)}
    prior = jnp.where(floor.strength > 0, floor(user_params), 0.0)
    rounding = 4 * jnp.finfo(a.dtype).eps * (size + jnp.sum(weights) * far)
    new = _maximised(statistics, kind, d, floor.strength, floor.pooled)
    width = _pivots(floor.pooled)
    ratio = jnp.min(_pivots(_matrices(new, kind)) / width[None, :], axis=1)
    lost = ~(ratio > MIN_VARIANCE_SHARE)
    component = jnp.where(jnp.any(lost), jnp.argmax(lost), -1)
    return loglik + prior, rounding, new, component


def _gain_to_come(gain: Array, last_gain: Array) -> Array:
    """What ℓ still gains after two gains (s,); inf unless they fall.

    The gains of EM fall geometrically, by the ratio c at the end: c·gain/(1 − c) is left (Böhning
    et al. 1994, Ann. Inst. Statist. Math. 46, 373–388).
    """
    falls = (gain < last_gain) & jnp.isfinite(last_gain)
    return jnp.where(falls, gain**2 / jnp.where(falls, last_gain - gain, 1.0), jnp.inf)


@partial(jax.jit, static_argnames=("kind", "capacity"))
def run_em(
    params: Tree,
    blocks: Array,
    weights: Array,
    pooled: Array,
    strength: Array,
    tolerance: Array,
    max_steps: Array,
    *,
    kind: str,
    capacity: int,
) -> Path:
    """EM from s starts, in one program.

    Args:
        params: of all starts, each leaf with a leading axis s.
        blocks: centred observations (nb, d, B).
        weights: (nb, B), zero for padding.
        pooled: the covariance of all rows (d, d).
        strength: of the variance floor; 0 for none.
        capacity: the longest path that is kept.
    """
    floor = VarianceFloor(strength, pooled)

    def advance(state: _State) -> _State:
        loglik, rounding, new, component = jax.vmap(
            lambda params: _step(params, blocks, weights, floor, kind)
        )(state.params)
        gain = loglik - state.last
        left = _gain_to_come(gain, state.gain)
        bad = ~jnp.isfinite(loglik)
        enough = (tolerance > 0) & ((jnp.abs(left) <= tolerance) | (gain <= rounding))
        running = ~state.done
        counts = running & ~bad
        stop = state.done | bad | enough | (component >= 0)
        params = jax.tree.map(
            lambda new, old: jnp.where((~stop).reshape(-1, *[1] * (new.ndim - 1)), new, old),
            new,
            state.params,
        )
        is_latest = jnp.arange(capacity)[None, :] == state.steps[:, None]
        return _State(
            params,
            jnp.where(is_latest & counts[:, None], loglik[:, None], state.logliks),
            jnp.where(running, loglik, state.last),
            jnp.where(running, gain, state.gain),
            state.steps + counts,
            jnp.where(running & ~enough, component, state.collapsed),
            stop | (state.steps + 1 >= max_steps),
        )

    s = params["weights"].shape[0]
    none = jnp.full(s, -jnp.inf, blocks.dtype)
    start = _State(
        params,
        jnp.full((s, capacity), jnp.nan, blocks.dtype),
        none,
        -none,
        jnp.zeros(s, int),
        jnp.full(s, -1),
        jnp.zeros(s, bool),
    )
    end = jax.lax.while_loop(lambda state: jnp.any(~state.done), advance, start)
    # arrays of jax, which the caller copies to the host
    return Path(end.params, end.logliks, end.steps, end.collapsed)  # type: ignore[arg-type]


def named_spread(spread: Array, kind: str, pack: type) -> Tree:
    """``spread`` under the name it has in parameters; full matrices packed as a tuple."""
    if kind in ("diagonal", "spherical"):
        return {"variance": spread}
    return {
        "covariance": pack(spread[j] for j in range(spread.shape[0])) if kind == "full" else spread
    }
