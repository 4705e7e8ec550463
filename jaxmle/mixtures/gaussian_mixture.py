"""Gaussian mixtures: the log-likelihood, and EM with both steps as products of matrices over blocks
of rows.

The log density of a component is linear in the features φ(x) = (1, x, x_i x_j): log w_j f_j(x) =
a_j'φ(x). With features in rows, (m, B) for a block of B observations, one product A φ (k, B) gives
every log density and one product R φ' (k, m) of the responsibilities R every sufficient statistic.
Observations are centred first: a product keeps about 16 − log10(μ'Σ⁻¹μ) digits of a log density, μ
from the centre. The Newton finish uses triangular factors, which lose none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Tree
from jaxmle.mixtures.k_means import assignments
from jaxmle.parameters.arguments import check_choice, check_count, shown
from jaxmle.parameters.constraints import covariance as positive_definite
from jaxmle.parameters.constraints import positive, simplex

COVARIANCE_FORMS = ("full", "tied", "diagonal", "spherical")
LOG_2PI = math.log(2 * math.pi)
ROWS_A_FEATURE_BLOCK = 4096  # of a block: its features and responsibilities stay in a core's cache
# of the pooled conditional variance; centred products keep four digits of a variance at this ratio,
# and none at 1e-16
COLLAPSED = 1e-12


def gaussian_mixture(components: int, covariance: str = "full") -> GaussianMixture:
    """A mixture of multivariate normal distributions, Σ_j w_j N(μ_j, Σ_j).

    Parameters are ``weights`` (k,), ``loc`` (k, d), and by ``covariance``

    - ``"full"``: ``covariance``, a tuple of k matrices (d, d);
    - ``"tied"``: ``covariance`` (d, d), which all components share;
    - ``"diagonal"``: ``variance`` (k, d);
    - ``"spherical"``: ``variance`` (k,).

    Args:
        components: how many, k.
        covariance: the form of the covariance matrices.

    Returns:
        A model for ``em``; also a log-likelihood of (params, y) with y (n, d), or (n,) where d is
        1.

    Raises:
        ValueError: for no components, or another form of covariance.

    >>> import numpy as np
    >>> params = {
    ...     "weights": np.array([0.5, 0.5]),
    ...     "loc": np.array([[0.0], [0.0]]),
    ...     "variance": np.array([1.0, 1.0]),
    ... }
    >>> round(float(gaussian_mixture(2, "spherical")(params, np.array([0.0]))[0]), 6)
    -0.918939
    """
    components = check_count("components", components, 1)
    check_choice("covariance", covariance, COVARIANCE_FORMS)
    return GaussianMixture(components, covariance)


# ---------------------------------------------------------------- the log-likelihood


def _columns(y: Array) -> Array:
    return y[:, None] if jnp.ndim(y) == 1 else y


def log_joint(params: Tree, y: Array) -> Array:
    """log w_j f_j(y_i), (n, k), from Cholesky factors."""
    y = _columns(jnp.asarray(y))
    loc = params["loc"]
    k, d = loc.shape
    if y.shape[1] != d:
        raise ValueError(
            f"loc has shape {loc.shape} and the observations {y.shape}: the last axes must agree"
        )
    gap = y[:, None, :] - loc[None, :, :]
    if "variance" in params:
        variance = params["variance"]
        variance = jnp.broadcast_to(variance[:, None], (k, d)) if variance.ndim == 1 else variance
        distance = jnp.sum(gap**2 / variance[None], axis=-1)
        log_det = jnp.sum(jnp.log(variance), axis=-1)
    else:
        inverse, log_det = _whitening(_stacked(params["covariance"], k))
        distance = jnp.sum(jnp.einsum("kij,nkj->nki", inverse, gap) ** 2, axis=-1)
    return (jnp.log(params["weights"]) - 0.5 * (log_det + d * LOG_2PI))[None, :] - 0.5 * distance


def gaussian_loglik(params: Tree, y: Array) -> Array:
    """log Σ_j w_j f_j(y_i), (n,). The form of the covariance is that of ``params``."""
    return jax.scipy.special.logsumexp(log_joint(params, y), axis=1)


def _stacked(matrices: Tree, k: int) -> Array:
    """Covariance matrices (k, d, d) of a tuple of them, or of one that all share."""
    if isinstance(matrices, tuple | list):
        return jnp.stack([jnp.asarray(matrix) for matrix in matrices])
    return jnp.broadcast_to(matrices, (k, *matrices.shape))


def _whitening(matrices: Array) -> tuple[jax.Array, jax.Array]:
    """L⁻¹ and log det Σ of Σ = LL', (k, d, d) and (k,)."""
    factor = jnp.linalg.cholesky(matrices)
    eye = jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=matrices.dtype), matrices.shape)
    inverse = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
    return inverse, 2 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)


@partial(jax.tree_util.register_dataclass, data_fields=["strength", "pooled"], meta_fields=[])
@dataclass(frozen=True)
class VarianceFloor:
    """The log prior −a Σ_j {log det Σ_j + tr(S Σ_j⁻¹)}, with S the covariance of all rows: no
    component can collapse under it.

    Source: Chen & Tan (2009), Journal of Multivariate Analysis 100, 1367–1383, with their aₙ of 1/n
    or 1/√n as ``strength``.

    >>> import numpy as np, jaxmle as jm
    >>> floor = jm.VarianceFloor(strength=1.0, pooled=np.eye(1))
    >>> at = lambda variance: {"loc": np.zeros((1, 1)), "variance": np.array([variance])}
    >>> round(float(floor(at(1.0))), 3), round(float(floor(at(0.01))), 3)  # −log σ² − 1/σ²
    (-1.0, -95.395)
    """

    strength: Any
    pooled: Any  # (d, d)

    def __call__(self, params: Tree) -> Array:
        k, d = params["loc"].shape
        if "variance" in params:
            variance = params["variance"]
            variance = (
                jnp.broadcast_to(variance[:, None], (k, d)) if variance.ndim == 1 else variance
            )
            return -self.strength * jnp.sum(
                jnp.log(variance) + jnp.diagonal(self.pooled)[None, :] / variance
            )
        shared = not isinstance(params["covariance"], tuple | list)
        inverse, log_det = _whitening(
            params["covariance"][None] if shared else _stacked(params["covariance"], k)
        )
        return -self.strength * (
            jnp.sum(log_det) + jnp.einsum("kij,kil,lj->", inverse, inverse, self.pooled.T)
        )


# ---------------------------------------------------------------- EM


class Path(NamedTuple):
    """Where EM went from each of s starts."""

    params: Tree  # the last, each leaf with a leading axis s
    logliks: (
        # (s, max_steps or more) the objective at each step's parameters, NaN after the last
        np.ndarray
    )
    steps: np.ndarray  # (s,)
    collapsed: np.ndarray  # (s,) the component that collapsed at the next step; −1


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
    return _stacked(spread, k) if kind == "tied" else spread


def _coefficients(params: Tree, kind: str) -> tuple[Array, Array]:
    """A, (k, m), and the largest μ'Σ⁻¹μ, to which its rounding is in proportion."""
    loc = params["loc"]
    whole = kind in ("full", "tied")
    inverse, log_det = _whitening(_matrices(params, kind))
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


def _maximised(statistics: Array, kind: str, d: int, strength: Array, pooled: Array) -> Tree:
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


@partial(jax.jit, static_argnames=("kind", "capacity"))
def _climb(
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
    d = blocks.shape[1]
    whole = kind in ("full", "tied")
    width = _pivots(pooled)
    floor = VarianceFloor(strength, pooled)

    def step(params: Tree) -> tuple[Array, Array, Tree, Array]:
        a, far = _coefficients(params, kind)
        loglik, size, statistics = _pass(a, blocks, weights, whole)
        shown = {"loc": params["loc"], **_named(params["spread"], kind, tuple)}
        prior = jnp.where(strength > 0, floor(shown), 0.0)
        noise = 4 * jnp.finfo(a.dtype).eps * (size + jnp.sum(weights) * far)
        found = _maximised(statistics, kind, d, strength, pooled)
        ratio = jnp.min(_pivots(_matrices(found, kind)) / width[None, :], axis=1)
        lost = ~(ratio > COLLAPSED)
        which = jnp.where(jnp.any(lost), jnp.argmax(lost), -1)
        return loglik + prior, noise, found, which

    def advance(state: _State) -> _State:
        loglik, noise, found, which = jax.vmap(step)(state.params)
        gain = loglik - state.last
        # The gains of EM fall geometrically, by the ratio c at the end: c·gain/(1 − c) is left
        # (Böhning et al. 1994, Ann. Inst. Statist. Math. 46, 373–388).
        falls = (gain < state.gain) & jnp.isfinite(state.gain)
        left = jnp.where(falls, gain**2 / jnp.where(falls, state.gain - gain, 1.0), jnp.inf)
        bad = ~jnp.isfinite(loglik)
        enough = (tolerance > 0) & ((jnp.abs(left) <= tolerance) | (gain <= noise))
        go = ~state.done
        now = ~state.done & ~bad
        stop = state.done | bad | enough | (which >= 0)
        params = jax.tree.map(
            lambda new, old: jnp.where((~stop).reshape(-1, *[1] * (new.ndim - 1)), new, old),
            found,
            state.params,
        )
        at = jnp.arange(capacity)[None, :] == state.steps[:, None]
        return _State(
            params,
            jnp.where(at & now[:, None], loglik[:, None], state.logliks),
            jnp.where(go, loglik, state.last),
            jnp.where(go, gain, state.gain),
            state.steps + now,
            jnp.where(go & ~enough, which, state.collapsed),
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


def _named(spread: Array, kind: str, pack: Any) -> Tree:
    """``spread`` under the name it has in parameters; full matrices packed as a tuple."""
    if kind in ("diagonal", "spherical"):
        return {"variance": spread}
    return {
        "covariance": pack(spread[j] for j in range(spread.shape[0])) if kind == "full" else spread
    }


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of multivariate normals with k ``components`` and a form of ``covariance``; see
    ``gaussian_mixture``.
    """

    components: int
    covariance: str

    def __call__(self, params: Tree, y: Array) -> Array:
        return gaussian_loglik(jax.tree.map(jnp.asarray, params), y)

    @property
    def loglik(self) -> Any:
        return gaussian_loglik

    @property
    def constraints(self) -> Tree:
        return {"weights": simplex} | (
            {"variance": positive}
            if self.covariance in ("diagonal", "spherical")
            else {"covariance": positive_definite}
        )

    def checked(self, data: Tree) -> np.ndarray:
        """The observations, (n, d)."""
        y = np.asarray(data) if isinstance(data, np.ndarray | jax.Array) else np.zeros(0)
        if y.ndim not in (1, 2) or not y.size:
            raise ValueError(
                "a Gaussian mixture takes one array of observations, (n, d), or (n,) where d is "
                f"1; got {shown(data)}"
            )
        y = y.astype(float)
        odd = np.argwhere(~np.isfinite(y))
        if len(odd):
            raise ValueError(
                f"data are {y[tuple(odd[0])]} in row {odd[0][0]}: a Gaussian mixture takes "
                "finite observations"
            )
        y = y[:, None] if y.ndim == 1 else y
        if self.components > len(y):
            raise ValueError(
                f"{self.components} components need at least as many rows; got {len(y)}"
            )
        return y

    def m_step(self, responsibilities: Array, data: Array) -> Tree:
        """The parameters that maximise the complete-data likelihood given responsibilities (n, k):
        an M-step, and a start from labels.

        A component of fewer than d + 1 rows has a singular covariance matrix here, unless the
        components share one.
        """
        y = self.checked(data)
        r = np.asarray(responsibilities, float)
        if r.shape != (len(y), self.components):
            raise ValueError(
                f"responsibilities must have shape ({len(y)}, {self.components}); got {r.shape}"
            )
        mass = r.sum(axis=0)
        loc = (r.T @ y) / mass[:, None]
        gap = y[:, None, :] - loc[None]
        scatter = np.einsum("nk,nki,nkj->kij", r, gap, gap)
        return self._packed(mass / mass.sum(), loc, self._formed(scatter, mass))

    def _formed(self, scatter: np.ndarray, mass: np.ndarray) -> np.ndarray:
        d = scatter.shape[-1]
        if self.covariance == "tied":
            return scatter.sum(axis=0) / mass.sum()
        diagonal = np.einsum("kii->ki", scatter) / mass[:, None]
        return {
            "full": scatter / mass[:, None, None],
            "diagonal": diagonal,
            "spherical": diagonal.sum(axis=1) / d,
        }[self.covariance]

    def _packed(self, weights: np.ndarray, loc: np.ndarray, spread: np.ndarray) -> Tree:
        return {"weights": weights, "loc": loc, **_named(spread, self.covariance, tuple)}

    def starts(self, data: Array, number: int, rng: np.random.Generator) -> list[Tree]:
        """Start values from k-means++ and a few steps of Lloyd's, each component's covariance
        drawn towards that of all rows by d + 1 rows' worth.
        """
        y = self.checked(data)
        pooled = self.pooled(y)
        found = []
        # A start is valid where a column is constant too: that the likelihood is unbounded there is
        # for EM to find.
        spare = np.where(np.diagonal(pooled) > 0, 1e-6 * np.diagonal(pooled), 1.0)
        for labels, rows in assignments(y, self.components, number, rng):
            r = np.eye(self.components)[labels]
            loc = r.T @ rows / r.sum(axis=0)[:, None]
            mass = r.sum(axis=0)
            d = y.shape[1]
            gap = rows - loc[labels]
            scatter = (
                np.einsum("nk,ni,nj->kij", r, gap, gap) + (d + 1) * (pooled + np.diag(spare))[None]
            )
            found.append(self._packed(mass / mass.sum(), loc, self._formed(scatter, mass + d + 1)))
        return found

    def climb(
        self,
        starts: list[Tree],
        data: Array,
        weights: np.ndarray | None,
        strength: float,
        tolerance: float,
        max_steps: int,
    ) -> Path:
        """EM from every start; in float64, NumPy in and out."""
        y = self.checked(data)
        n, d = y.shape
        w = np.ones(n) if weights is None else weights
        centre = w @ y / w.sum()
        size = min(ROWS_A_FEATURE_BLOCK, n)
        padding = -n % size
        rows = (
            np.concatenate([y - centre, np.zeros((padding, d))]).reshape(-1, size, d).swapaxes(1, 2)
        )
        held = [
            {
                "weights": p["weights"],
                "loc": p["loc"] - centre,
                "spread": np.array(p["covariance" if "covariance" in p else "variance"]),
            }
            for p in starts
        ]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *held)
        w_blocks = np.concatenate([w, np.zeros(padding)]).reshape(-1, size)
        limits = np.float64(strength), np.float64(tolerance), np.int64(max_steps)
        capacity = 4096 * 8 ** max(
            math.ceil(math.log(max_steps / 4096, 8)), 0
        )  # few lengths of the path, so few programs
        found = _climb(
            stacked,
            np.ascontiguousarray(rows),
            w_blocks,
            self.pooled(y, w),
            *limits,
            kind=self.covariance,
            capacity=capacity,
        )
        end = jax.tree.map(np.asarray, found)
        params = [
            self._packed(
                end.params["weights"][s], end.params["loc"][s] + centre, end.params["spread"][s]
            )
            for s in range(len(starts))
        ]
        return end._replace(params=params)

    def pooled(self, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """The covariance of all rows, (d, d)."""
        w = np.ones(len(y)) if weights is None else weights
        gap = y - w @ y / w.sum()
        return (gap * w[:, None]).T @ gap / w.sum()

    def floor(self, data: Array, strength: float, weights: np.ndarray | None) -> VarianceFloor:
        """The penalty of ``em(variance_floor=…)``."""
        return VarianceFloor(np.float64(strength), self.pooled(self.checked(data), weights))

    def log_joint(self, params: Tree, data: Array) -> Array:
        """log w_j f_j(y_i), (n, k)."""
        return log_joint(params, data)

    def ordered(self, params: Tree) -> Tree:
        """The same mixture with components in the order of the first coordinate of ``loc``,
        then of the second, and so on.
        """
        order = np.lexsort(np.asarray(params["loc"]).T[::-1])
        return self.permuted(params, order)

    def permuted(self, params: Tree, order: np.ndarray) -> Tree:
        tied = self.covariance == "tied"
        spread = {
            name: params[name]
            if tied
            else tuple(params[name][j] for j in order)
            if isinstance(params[name], tuple)
            else params[name][order]
            for name in ("covariance", "variance")
            if name in params
        }
        return {"weights": params["weights"][order], "loc": params["loc"][order], **spread}

    def vanishing(self, names: tuple[str, ...], component: int) -> list[int]:
        """The printed entries that go to zero as a component collapses."""
        stems = {
            "full": f"covariance[{component}][",
            "tied": "covariance",
            "diagonal": f"variance[{component},",
            "spherical": f"variance[{component}]",
        }
        stem = stems[self.covariance]
        return [i for i, name in enumerate(names) if name.startswith(stem)]
