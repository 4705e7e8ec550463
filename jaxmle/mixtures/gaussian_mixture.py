"""The model of a Gaussian mixture: its log-likelihood, its starts and its EM."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.mixtures.gaussian_density import VarianceFloor, gaussian_loglik, log_joint
from jaxmle.mixtures.gaussian_em import Path, named_spread, run_em
from jaxmle.mixtures.k_means import assignments
from jaxmle.parameters.arguments import check_choice, check_count, shown
from jaxmle.parameters.constraints import covariance as positive_definite
from jaxmle.parameters.constraints import positive, simplex
from jaxmle.parameters.keywords import with_keyword_hints

COVARIANCE_FORMS = ("full", "tied", "diagonal", "spherical")
ROWS_A_FEATURE_BLOCK = 4096  # of a block: its features and responsibilities stay in a core's cache


@with_keyword_hints
def gaussian_mixture(components: int, covariance: str = "full") -> GaussianMixture:
    """A mixture of multivariate normal distributions, Σ_j w_j N(μ_j, Σ_j).

    Parameters are ``weights`` (k,), ``loc`` (k, d), and, depending on ``covariance``:

    - ``"full"``: ``covariance``, a tuple of k matrices (d, d);
    - ``"tied"``: ``covariance`` (d, d), shared by all components;
    - ``"diagonal"``: ``variance`` (k, d);
    - ``"spherical"``: ``variance`` (k,).

    Args:
        components: number of components, k.
        covariance: the form of the covariance matrices.

    Returns:
        A model for ``em``; also a log-likelihood of (params, y) with y (n, d), or (n,) if d is 1.

    Raises:
        ValueError: for zero components, or an unknown form of covariance.

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
    def loglik(self) -> Tree:
        return gaussian_loglik

    @property
    def constraints(self) -> Tree:
        return {"weights": simplex} | (
            {"variance": positive}
            if self.covariance in ("diagonal", "spherical")
            else {"covariance": positive_definite}
        )

    def checked(self, data: Tree) -> ndarray:
        """The observations, (n, d)."""
        y = np.asarray(data) if isinstance(data, np.ndarray | jax.Array) else np.zeros(0)
        if y.ndim not in (1, 2) or not y.size:
            raise ValueError(
                "a Gaussian mixture needs one array of observations, (n, d), or (n,) if "
                f"d is 1; got {shown(data)}"
            )
        y = y.astype(float)
        odd = np.argwhere(~np.isfinite(y))
        if len(odd):
            raise ValueError(
                f"data are {y[tuple(odd[0])]} in row {odd[0][0]}: observations must be finite"
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

    def _formed(self, scatter: ndarray, mass: ndarray) -> ndarray:
        d = scatter.shape[-1]
        if self.covariance == "tied":
            return scatter.sum(axis=0) / mass.sum()
        diagonal = np.einsum("kii->ki", scatter) / mass[:, None]
        return {
            "full": scatter / mass[:, None, None],
            "diagonal": diagonal,
            "spherical": diagonal.sum(axis=1) / d,
        }[self.covariance]

    def _packed(self, weights: ndarray, loc: ndarray, spread: ndarray) -> Tree:
        return {"weights": weights, "loc": loc, **named_spread(spread, self.covariance, tuple)}

    def starts(self, data: Array, number: int, rng: np.random.Generator) -> list[Tree]:
        """Start values from k-means++ and a few steps of Lloyd's, each component's covariance
        drawn towards that of all rows by d + 1 rows' worth.
        """
        y = self.checked(data)
        pooled = self.pooled(y)
        starts = []
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
            spread = self._formed(scatter, mass + d + 1)
            starts.append(self._packed(mass / mass.sum(), loc, spread))
        return starts

    def run_em(
        self,
        starts: list[Tree],
        data: Array,
        weights: ndarray | None,
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
        centred = [
            {
                "weights": p["weights"],
                "loc": p["loc"] - centre,
                "spread": np.array(p["covariance" if "covariance" in p else "variance"]),
            }
            for p in starts
        ]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *centred)
        w_blocks = np.concatenate([w, np.zeros(padding)]).reshape(-1, size)
        limits = np.float64(strength), np.float64(tolerance), np.int64(max_steps)
        # few lengths of the path, so few programs
        capacity = 4096 * 8 ** max(math.ceil(math.log(max_steps / 4096, 8)), 0)
        path = run_em(
            stacked,
            np.ascontiguousarray(rows),
            w_blocks,
            self.pooled(y, w),
            *limits,
            kind=self.covariance,
            capacity=capacity,
        )
        end = jax.tree.map(np.asarray, path)
        params = [
            self._packed(
                end.params["weights"][s], end.params["loc"][s] + centre, end.params["spread"][s]
            )
            for s in range(len(starts))
        ]
        return end._replace(params=params)

    def pooled(self, y: ndarray, weights: ndarray | None = None) -> ndarray:
        """The covariance of all rows, (d, d)."""
        w = np.ones(len(y)) if weights is None else weights
        gap = y - w @ y / w.sum()
        return (gap * w[:, None]).T @ gap / w.sum()

    def floor(self, data: Array, strength: float, weights: ndarray | None) -> VarianceFloor:
        """The penalty of ``em(variance_floor=…)``."""
        return VarianceFloor(np.float64(strength), self.pooled(self.checked(data), weights))

    def log_joint(self, params: Tree, data: Array) -> Array:
        """log w_j f_j(y_i), (n, k)."""
        return log_joint(params, data)

    def ordered(self, params: Tree) -> Tree:
        """The mixture with its components in the order of the first coordinate of ``loc``,
        then of the second, and so on.
        """
        order = np.lexsort(np.asarray(params["loc"]).T[::-1])
        return self.permuted(params, order)

    def permuted(self, params: Tree, order: ndarray) -> Tree:
        """The mixture with its components in another order."""
        name = "covariance" if "covariance" in params else "variance"
        spread = params[name]
        if isinstance(spread, tuple):
            spread = tuple(spread[j] for j in order)
        elif self.covariance != "tied":
            spread = spread[order]
        return {"weights": params["weights"][order], "loc": params["loc"][order], name: spread}

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
