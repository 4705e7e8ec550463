"""What a likelihood tree says of itself: its parts, its weights, which entries move, how many observations it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import data_length
from jaxmle.parameters.tree import Layout

Array = jax.Array
Tree = Any


def parts_of(loglik: Any) -> tuple[Any, ...]:
    """The likelihoods directly inside a combinator; none inside a function or a regression."""
    return loglik.members if isinstance(loglik, Pool) else (loglik.loglik,) if isinstance(loglik, Weight | Penalize | Fix | Tie | WithResponse) else ()


def has(loglik: Any, kind: type) -> bool:
    """Whether a combinator of this kind stands anywhere in the likelihood."""
    return isinstance(loglik, kind) or any(has(part, kind) for part in parts_of(loglik))


def has_law(loglik: Any) -> bool:
    """Whether every part of the likelihood knows the law of its response, and so has an expected information."""
    if isinstance(loglik, WithResponse) or getattr(loglik, "response", None) is not None:
        return True
    return bool(parts_of(loglik)) and all(has_law(part) for part in parts_of(loglik))


def weighting_of(loglik: Any) -> str:
    """``"none"``, ``"frequency"`` or ``"sampling"``."""
    kinds = {weighting_of(part) for part in parts_of(loglik)} | ({loglik.weights.kind} if isinstance(loglik, Weight) else {"none"})
    return "sampling" if "sampling" in kinds else "frequency" if "frequency" in kinds else "none"


def roots_of(loglik: Any, layout: Layout) -> np.ndarray:
    """For each printed entry the entry it follows under all ``fix`` and ``tie`` above the data, −1 where it is fixed."""
    roots = np.arange(layout.p)
    while not isinstance(loglik, Pool) and parts_of(loglik):
        if isinstance(loglik, Fix | Tie):
            inner = loglik.roots(layout)
            roots = np.where(inner >= 0, roots[inner], -1)
        loglik = parts_of(loglik)[0]
    return roots


def substituted(loglik: Any, layout: Layout, x: Array) -> Array:
    """x (p,) with the values of fixed and tied entries put in."""
    while not isinstance(loglik, Pool) and parts_of(loglik):
        if isinstance(loglik, Fix | Tie):
            x = loglik.substitute(layout, x)
        loglik = parts_of(loglik)[0]
    return x


def count(loglik: Any, data: Tree, terms: Callable[[], int]) -> Array:
    """n: the sum of frequency weights, the number of rows of positive sampling weight, or the number of rows."""
    if isinstance(loglik, Pool):
        return jnp.sum(jnp.asarray([count(m, d, lambda: 1) for m, d in zip(loglik.members, data, strict=True)]))
    if isinstance(loglik, Weight):
        w = jnp.asarray(loglik.weights.values)
        return jnp.sum(w) if loglik.weights.kind == "frequency" else jnp.sum(w > 0)
    if parts_of(loglik):
        return count(parts_of(loglik)[0], data, terms)
    return jnp.asarray(data_length(data) or terms())


def rows_of(loglik: Any, data: Tree) -> int | None:
    """The number of terms that the data suggest: over all members of a pool, None where there is no data."""
    if isinstance(loglik, Pool):
        loglik.check(data)
        rows = [rows_of(member, part) for member, part in zip(loglik.members, data, strict=True)]
        return None if None in rows else sum(rows)  # type: ignore[arg-type]
    return rows_of(parts_of(loglik)[0], data) if parts_of(loglik) else data_length(data)
