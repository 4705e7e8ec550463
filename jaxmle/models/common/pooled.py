"""A pool of built-in models: one parameter tree, several data sets, each with its own model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import jax

from jaxmle._types import Array, Loglik, Tree
from jaxmle.likelihood.contract import as_tree
from jaxmle.runtime.compile import tracing


class Member(Protocol):
    """A ready model, as far as a pool asks it."""

    # fmt: off
    @property
    def constraints(self) -> Tree: ...
    def start(self, data: Tree, /) -> Tree: ...
    def predict(self, params: Tree, data: Tree, /) -> Array: ...
    def sample(self, key: Array, params: Tree, data: Tree, /) -> Tree: ...
    def residuals(
        self, params: Tree, data: Tree, kind: str = "response", *, key: Array | None = None
    ) -> Array: ...
    # fmt: on


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Pooled:
    """What ``jm.pool`` makes of built-in models. ``data`` is a tuple, one part for each; so is what
    ``predict``, ``sample`` and ``residuals`` return.

    >>> import numpy as np, jaxmle as jm
    >>> one = {"x": np.ones((3, 1)), "y": np.array([0.0, 1.0, 2.0])}
    >>> two = {"x": np.ones((2, 1)), "y": np.array([4.0, 3.0])}
    >>> both = jm.pool(jm.models.poisson(), jm.models.poisson())
    >>> fit = jm.fit(both, data=(one, two))
    >>> [mean.tolist()[0] for mean in both.predict(fit.params, (one, two))]
    [2.0, 2.0]
    """

    members: tuple[Member, ...]
    likelihood: Loglik

    @property
    def constraints(self) -> Tree:
        """The bounds of all members together."""
        bounds: dict[str, Tree] = {}
        for member in self.members:
            bounds |= member.constraints or {}
        return bounds or None

    def __call__(self, params: Tree, data: Tree) -> Array:
        """The terms of all members, one after the other."""
        return as_tree(self.likelihood)(params, data)

    def __repr__(self) -> str:
        return f"pool({', '.join(map(repr, self.members))})"

    def with_likelihood(self, tree: Loglik) -> Pooled:
        """The pool with a likelihood that a combinator made of its own."""
        return replace(self, likelihood=tree)

    def start(self, data: Tree) -> Tree:
        """Start values: those of each member at its own data, of a shared entry the first's."""
        starts: dict[str, Tree] = {}
        for member, part in zip(self.members, self._parts(data), strict=True):
            starts = member.start(part) | starts
        return starts

    def predict(self, params: Tree, data: Tree) -> tuple[Array, ...]:
        """The mean of each response, a tuple."""
        parts = zip(self.members, self._parts(data), strict=True)
        return tuple(member.predict(params, part) for member, part in parts)

    def sample(self, key: Array, params: Tree, data: Tree) -> tuple[Tree, ...]:
        """``data`` with new responses, a tuple."""
        keys = jax.random.split(key, len(self.members))
        parts = zip(keys, self.members, self._parts(data), strict=True)
        return tuple(member.sample(k, params, part) for k, member, part in parts)

    def residuals(
        self, params: Tree, data: Tree, kind: str = "response", *, key: Array | None = None
    ) -> tuple[Array, ...]:
        """The residuals of each data set, a tuple."""
        count = len(self.members)
        keys = [None] * count if key is None else list(jax.random.split(key, count))
        parts = zip(keys, self.members, self._parts(data), strict=True)
        return tuple(member.residuals(params, part, kind, key=k) for k, member, part in parts)

    def _parts(self, data: Tree) -> Tree:
        tree: Tree = as_tree(self.likelihood)
        while not hasattr(tree, "members"):
            tree = tree.loglik
        if not tracing() or isinstance(data, tuple | list):
            tree.check(data)
        return data
