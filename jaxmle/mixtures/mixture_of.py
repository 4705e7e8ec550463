"""Mixtures of any likelihood: components of one family, or regressions, whose M-step is a
weighted fit of every component at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Loglik, Tree, ndarray
from jaxmle.batch.batch import fit_batch
from jaxmle.closures.recipes import reduced, with_recipe
from jaxmle.fitting.options import constraints_of
from jaxmle.likelihood.checks import Place, check_coding, host_params
from jaxmle.likelihood.combinators import sampling
from jaxmle.likelihood.contract import as_tree, data_length
from jaxmle.mixtures.gaussian_em import Path
from jaxmle.mixtures.k_means import assignments
from jaxmle.parameters.arguments import check_count, check_function
from jaxmle.parameters.constraints import simplex
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled
from jaxmle.runtime.opaque import Opaque
from jaxmle.solvers.status import Status

# steps of one weighted fit; a fit that needs more goes on in the next M-step
MAX_STEPS_OF_AN_M_STEP = 100
# weight in a start of the rows of the other components: none has too few
WEIGHT_OF_OTHER_ROWS = 0.05
USABLE_COMPONENT_STATUSES = (Status.CONVERGED, Status.IMPRECISE, Status.MAX_STEPS, Status.STALLED)


@with_recipe
@with_keyword_hints
def mixture_of(
    component: Callable[[Tree, Tree], Array],
    components: int,
    *,
    start: Tree = None,
    constraints: Tree = None,
) -> MixtureOf:
    """A mixture of ``components`` likelihoods of the same form, log Σ_j w_j exp(ℓ(θ_j, data_i)).

    Parameters are ``weights`` (k,) and ``components``, a tuple of k parameter trees of the
    component.

    Args:
        component: a family, a declared regression, or any ``loglik(params, data)`` that returns one
            term per row.
        components: how many, k.
        start: parameters of one component, around which starts are drawn; None if the component has
            a method ``start(data)``.
        constraints: of one component, as in ``fit``; None for those that the component declares.

    Returns:
        A model for ``em``; also a log-likelihood of (params, data), (n,), of the parameters
        ``weights`` (k,) and ``components``, a tuple of k trees.

    Raises:
        TypeError: if the component is not a function.
        ValueError: for no components.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.families import exponential
    >>> two = mixture_of(exponential, 2)
    >>> params = {"weights": np.array([0.5, 0.5]), "components": ({"rate": 1.0}, {"rate": 1.0})}
    >>> round(float(two(params, np.array([2.0]))[0]), 6)
    -2.0
    """
    components = check_count("components", components, 1)
    check_function("component", component, "lambda params, data: terms")
    if start is not None:
        layout_of(host_params(start, np.float64, "start"), constraints)
    # One plain function each: compiled pieces are kept on it.
    is_opaque = isinstance(as_tree(component), Opaque)
    density = _plain_function(component) if is_opaque else component

    def loglik(params: Tree, data: Tree) -> Array:
        return jax.scipy.special.logsumexp(_log_joint(density, params, data), axis=1)

    tree = as_tree(component)

    def check_data(data: Tree, place: Place) -> None:
        check_coding(tree, data, lambda _, index: place(index))

    loglik.check_data = check_data  # type: ignore[attr-defined]
    propose = (lambda data: start) if start is not None else getattr(component, "start", None)
    constraint = constraints_of(component, constraints)
    return MixtureOf(density, components, constraint, propose, loglik)


def _plain_function(component: Loglik) -> Loglik:
    def density(params: Tree, data: Tree) -> Array:
        return component(params, data)

    return density


def _log_joint(component: Loglik, params: Tree, data: Tree) -> Array:
    weights = jnp.log(jnp.asarray(params["weights"]))
    return jnp.stack(
        [weights[j] + component(part, data) for j, part in enumerate(params["components"])], axis=1
    )


@dataclass(frozen=True, eq=False)
class MixtureOf:
    """A mixture of k likelihoods of one form; see ``mixture_of``."""

    component: Loglik
    components: int
    constraint: Tree
    propose: Function | None  # start values of one component, from data; None where there are none
    loglik: Loglik

    def __reduce__(self) -> tuple[Tree, ...]:
        return reduced(self)

    def __call__(self, params: Tree, data: Tree) -> Array:
        return self.loglik(params, data)

    @property
    def constraints(self) -> Tree:
        return {"weights": simplex} | (
            {} if self.constraint is None else {"components": (self.constraint,) * self.components}
        )

    def log_joint(self, params: Tree, data: Tree) -> Array:
        """log w_j f_j(y_i), (n, k)."""
        return _log_joint(self.component, params, data)

    def starts(self, data: Tree, number: int, rng: np.random.Generator) -> list[Tree]:
        """Weighted fits to rows grouped by k-means++, where the data are one array of numbers;
        to random groups else.
        """
        if self.propose is None:
            raise ValueError(
                "start is missing: give em(model, start), or mixture_of(component, k, "
                "start=…) with the parameters of one component, around which starts are "
                "drawn"
            )
        n = data_length(data) or 0
        k = self.components
        if n < k:
            raise ValueError(f"{k} components need at least as many rows; got {n}")
        labels = self._groups(data, n, number, rng)
        r = np.where(labels[:, None, :] == np.arange(k)[None, :, None], 1.0, WEIGHT_OF_OTHER_ROWS)
        start = jax.tree.map(np.asarray, self.propose(data))
        params = jax.tree.map(
            lambda leaf: np.broadcast_to(leaf, (number * k, *np.shape(leaf))).astype(float), start
        )
        fits = self._fits(params, data, r.reshape(number * k, n))
        fine = _finite(fits.params) & np.isin(fits.status, USABLE_COMPONENT_STATUSES)
        params = jax.tree.map(
            lambda new, old: np.where(fine.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            fits.params,
            params,
        )
        return [
            {"weights": np.full(k, 1.0 / k), "components": self._split(params, s)}
            for s in range(number)
        ]

    def _groups(self, data: Tree, n: int, number: int, rng: np.random.Generator) -> ndarray:
        """Labels (s, n)."""
        leaves = jax.tree.leaves(data)
        k = self.components
        if len(leaves) == 1 and np.ndim(leaves[0]) <= 2:
            y = np.asarray(leaves[0], float).reshape(n, -1)
            drawn = assignments(y, k, number, rng)
            if all(len(labels) == n for labels, _ in drawn):
                return np.stack([labels for labels, _ in drawn])
        # k small groups, no larger than they need be: large random groups are all alike.
        size = max(n // (4 * k), 1)
        labels = np.full((number, n), -1)
        for s in range(number):
            chosen = rng.permutation(n)[: size * k]
            labels[s, chosen] = np.arange(size * k) % k
        return labels

    def _split(self, stacked: Tree, s: int) -> tuple[Tree, ...]:
        k = self.components
        return tuple(
            jax.tree.map(lambda leaf, j=j: np.asarray(leaf[s * k + j]), stacked) for j in range(k)
        )

    def _fits(self, params: Tree, data: Tree, weights: ndarray) -> Fit:
        return fit_batch(
            self.component,
            params,
            data,
            constraints=self.constraint,
            in_axes=None,
            params_axis=0,
            weights=sampling(weights),
            vcov=None,
            max_steps=MAX_STEPS_OF_AN_M_STEP,
            progress=False,
        )

    def run_em(
        self,
        starts: list[Tree],
        data: Tree,
        weights: ndarray | None,
        strength: float,
        tolerance: float,
        max_steps: int,
    ) -> Path:
        """EM from every start. A start whose M-step finds a component unbounded has collapsed;
        one that cannot go on otherwise ends there.
        """
        del strength  # refused by ``em``
        n = data_length(data) or 0
        s = len(starts)
        w = np.ones(n) if weights is None else weights
        e_step = _e_step(self)
        weight = np.stack([start["weights"] for start in starts])
        parts = jax.tree.map(
            lambda *leaves: np.stack(leaves),
            *[part for start in starts for part in start["components"]],
        )
        logliks = np.full((s, max_steps), np.nan)
        steps = np.zeros(s, int)
        collapsed = np.full(s, -1)
        go = np.ones(s, bool)
        last = np.full(s, -np.inf)
        before = np.full(s, np.inf)
        for step in range(max_steps):
            value, size, r = (np.array(piece) for piece in e_step(weight, parts, data, w))
            go &= np.isfinite(value)
            logliks[go, step], steps[go] = value[go], step + 1
            gain = value - last
            left = np.where(
                (gain < before) & np.isfinite(before), gain**2 / (before - gain), np.inf
            )
            if tolerance:
                go &= ~((np.abs(left) <= tolerance) | (gain <= 4 * np.finfo(float).eps * size))
            last = np.where(go, value, last)
            before = np.where(go, gain, before)
            if not go.any() or step + 1 == max_steps:
                break
            shares = r * w[None, None, :]
            parts, go, lost = self._m_step(parts, data, shares, go)
            collapsed = np.where(lost.any(axis=1), lost.argmax(axis=1), collapsed)
            mass = shares.sum(axis=2)
            weight = np.where(go[:, None], mass / mass.sum(axis=1, keepdims=True), weight)
        params = [{"weights": weight[i], "components": self._split(parts, i)} for i in range(s)]
        return Path(params, logliks, steps, collapsed)

    def _m_step(
        self, parts: Tree, data: Tree, shares: ndarray, go: ndarray
    ) -> tuple[Tree, ndarray, ndarray]:
        """The components fitted with their shares of the rows (s, k, n), for the starts in ``go``
        (s,); which of these starts may go on (s,); and which components are unbounded (s, k).
        """
        s, k, n = shares.shape
        member = np.repeat(go, k)
        fits = self._fits(
            jax.tree.map(lambda leaf: leaf[member], parts), data, shares[go].reshape(-1, n)
        )
        fine = np.zeros(s * k, bool)
        fine[member] = np.isin(fits.status, USABLE_COMPONENT_STATUSES) & _finite(fits.params)
        unbounded = np.zeros(s * k, bool)
        unbounded[member] = fits.status == Status.UNBOUNDED
        go = go & fine.reshape(s, k).all(axis=1)
        moves = np.repeat(go, k) & member
        parts = jax.tree.map(
            lambda old, new: _replaced(old, new, member, moves), parts, fits.params
        )
        return parts, go, unbounded.reshape(s, k)

    def ordered(self, params: Tree) -> Tree:
        """The mixture with its components in the order of their weights, the largest first."""
        order = np.argsort(-np.asarray(params["weights"]), kind="stable")
        return {
            "weights": params["weights"][order],
            "components": tuple(params["components"][j] for j in order),
        }

    def vanishing(self, names: tuple[str, ...], component: int) -> list[int]:
        """The printed entries of a component."""
        return [i for i, name in enumerate(names) if name.startswith(f"components[{component}]")]


def _finite(params: Tree) -> ndarray:
    """Whether every parameter of a member is finite, (b,)."""
    return np.all(
        [np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in jax.tree.leaves(params)],
        axis=0,
    )


def _replaced(old: ndarray, fitted: ndarray, member: ndarray, moves: ndarray) -> ndarray:
    """The values of all components, with those of the fits of ``member`` where it moves."""
    new = np.array(old)
    new[moves] = fitted[moves[member]]
    return new


def _e_step(model: MixtureOf) -> Tree:
    """ℓ and Σ|terms| (s,), and responsibilities (s, k, n), for stacked weights (s, k) and
    components (s·k, …).
    """

    def make(component: Loglik) -> Tree:
        def e_step(weight: Array, parts: Tree, data: Tree, w: Array) -> tuple[Array, Array, Array]:
            terms = jax.vmap(lambda part: component(part, data))(parts).reshape(*weight.shape, -1)
            joint = jnp.log(weight)[:, :, None] + terms
            total = jax.scipy.special.logsumexp(joint, axis=1)
            seen = jnp.where(w[None, :] > 0, w[None, :] * total, 0.0)
            return (
                jnp.sum(seen, axis=1),
                jnp.sum(jnp.abs(seen), axis=1),
                jnp.exp(joint - total[:, None, :]),
            )

        return e_step

    return compiled(as_tree(model.component), "e_step", make)
