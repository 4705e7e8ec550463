"""Log priors for ``penalize``: pure functions of the parameters, with hyperparameters as leaves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, ArrayLike, Tree
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.opaque import LikelihoodTree


@partial(jax.tree_util.register_dataclass, data_fields=["strength"], meta_fields=["leaf"])
@dataclass(frozen=True)
class Ridge(LikelihoodTree):
    """Minus half the strength times the squared norm of the parameters, or of the named leaf."""

    strength: float | jax.Array
    leaf: str | None = None

    def __call__(self, params: Tree) -> jax.Array:
        chosen = params if self.leaf is None else _named(params, self.leaf)
        return (
            -0.5
            * self.strength
            * sum((jnp.sum(value**2) for value in jax.tree.leaves(chosen)), jnp.zeros(()))
        )


@partial(jax.tree_util.register_dataclass, data_fields=["mean", "sd"], meta_fields=["leaf"])
@dataclass(frozen=True)
class NormalPrior(LikelihoodTree):
    """Independent normal log densities, constants included."""

    mean: float | Array
    sd: float | Array
    leaf: str | None = None

    def __call__(self, params: Tree) -> jax.Array:
        chosen = params if self.leaf is None else _named(params, self.leaf)
        for value in jax.tree.leaves(chosen):
            _check_shapes(np.shape(value), np.shape(self.mean), np.shape(self.sd))
        return sum(
            (
                jnp.sum(jax.scipy.stats.norm.logpdf(value, self.mean, self.sd))
                for value in jax.tree.leaves(chosen)
            ),
            jnp.zeros(()),
        )


def _check_shapes(value: tuple[int, ...], *hyper: tuple[int, ...]) -> None:
    """Raise unless mean and sd broadcast to the shape of the parameter."""
    for name, shape in zip(("mean", "sd"), hyper, strict=True):
        if shape not in ((), value):
            raise ValueError(
                f"the prior's {name} has shape {shape} but the parameter has {value}: "
                "give one number, or one for each entry"
            )


def _named(params: Tree, leaf: str) -> Tree:
    if isinstance(params, dict) and leaf in params:
        return params[leaf]
    if hasattr(params, leaf):
        return getattr(params, leaf)
    raise ValueError(f"the prior names {leaf!r}, but params has no such entry")


@with_keyword_hints
def ridge(strength: float | jax.Array, leaf: str | None = None) -> Ridge:
    """The ridge log prior −strength·‖θ‖²/2, for all parameters or for one leaf.

    Returns:
        A log prior of the parameters, without constants, for ``penalize``.

    Raises:
        TypeError: for a strength that is not a number, or a leaf that is not a name.
        ValueError: for a strength that is negative or not finite.

    >>> import jax.numpy as jnp
    >>> float(ridge(2.0)({"b": jnp.array([1.0, 2.0])}))
    -5.0
    """
    _check("strength", strength, positive=False)
    _check_leaf(leaf)
    return Ridge(strength, leaf)


@with_keyword_hints
def normal_prior(mean: float | Array, sd: float | Array, leaf: str | None = None) -> NormalPrior:
    """Independent normal priors on all parameters, or on one leaf; mean and sd broadcast against
    it.

    Args:
        mean: prior mean, a number or one for each entry.
        sd: prior standard deviation, positive; a number or one for each entry.
        leaf: name of the one entry of ``params`` that has this prior; None for all.

    Returns:
        A log prior of the parameters, constants included, for ``penalize``.

    Raises:
        TypeError: for hyperparameters that are not numbers, or a leaf that is not a name.
        ValueError: for numbers that are not finite, or an sd that is not positive.

    >>> import numpy as np, jaxmle as jm
    >>> normal = lambda params, y: -0.5 * (y - params["mean"]) ** 2
    >>> posterior = jm.penalize(normal, jm.normal_prior(0.0, 0.5))
    >>> score = jm.score(posterior)({"mean": 1.5}, np.array([1.0, 3.0, 2.0, 6.0]))
    >>> round(float(score["mean"]), 6)  # zero at the posterior mode Σy/(n + 1/0.5²)
    0.0
    """
    _check("mean", mean, positive=None)
    _check("sd", sd, positive=True)
    _check_leaf(leaf)
    return NormalPrior(mean, sd, leaf)


def _check(name: str, value: ArrayLike, positive: bool | None) -> None:
    """Raise unless a hyperparameter is finite, and a strength or an sd has the right sign; of a
    traced value only the type is checked.
    """
    rule = {None: "finite", False: "finite, non-negative", True: "finite, positive"}[positive]
    message = f"the prior's {name} must be {rule} numbers; got {shown(value)}"
    if is_traced(value):
        return
    array = np.ma.getdata(value) if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    if isinstance(value, np.ma.MaskedArray) or array.dtype.kind not in "fiu":
        raise TypeError(message)
    low = {None: -np.inf, False: 0.0, True: np.finfo(float).tiny}[positive]
    if not array.size or not np.all(np.isfinite(array)) or np.any(array < low):
        raise ValueError(message)


def _check_leaf(leaf: object) -> None:
    if leaf is not None and not isinstance(leaf, str):
        raise TypeError(f"leaf must be the name of one entry of params, or None; got {shown(leaf)}")
