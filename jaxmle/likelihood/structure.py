"""The structure of a likelihood tree: its parts, its weights, its free entries, its number of
observations, its designs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxmle._types import Array, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import data_length, leaf_of, rows_of, terms_of
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.runtime.compile import remembered, tracing


def parts_of(loglik: Loglik) -> tuple[Loglik, ...]:
    """The likelihoods directly inside a combinator; none inside a function or a regression."""
    return (
        loglik.members
        if isinstance(loglik, Pool)
        else (loglik.loglik,)
        if isinstance(loglik, Weight | Penalize | Fix | Tie | WithResponse)
        else ()
    )


def has(loglik: Loglik, kind: type) -> bool:
    """Whether the likelihood contains a combinator of this kind."""
    return isinstance(loglik, kind) or any(has(part, kind) for part in parts_of(loglik))


def has_law(loglik: Loglik) -> bool:
    """Whether every part of the likelihood knows the distribution of its response, and so has an
    expected information.
    """
    if isinstance(loglik, WithResponse) or getattr(loglik, "response", None) is not None:
        return True
    return bool(parts_of(loglik)) and all(has_law(part) for part in parts_of(loglik))


def weighting_of(loglik: Loglik) -> str:
    """``"none"``, ``"frequency"`` or ``"sampling"``."""
    kinds = {weighting_of(part) for part in parts_of(loglik)} | (
        {loglik.weights.kind} if isinstance(loglik, Weight) else {"none"}
    )
    return "sampling" if "sampling" in kinds else "frequency" if "frequency" in kinds else "none"


def weights_of(loglik: Loglik) -> list[Array]:
    """The values of all weights inside the likelihood, outermost first."""
    outer = [loglik.weights.values] if isinstance(loglik, Weight) else []
    return outer + [values for part in parts_of(loglik) for values in weights_of(part)]


def jeffreys_of(loglik: Loglik) -> Tree:
    """Jeffreys's prior, a prior computed from the likelihood itself, if the likelihood has one;
    otherwise None.
    """
    if isinstance(loglik, Penalize) and hasattr(loglik.prior, "of_likelihood"):
        return loglik.prior
    priors = [jeffreys_of(part) for part in parts_of(loglik)]
    if sum(prior is not None for prior in priors) and len(priors) > 1:
        raise ValueError(
            "jeffreys inside a pool penalises only one member, with the information of "
            "that member: write jeffreys(pool(…))"
        )
    return next((prior for prior in priors if prior is not None), None)


def roots_of(loglik: Loglik, layout: Layout) -> ndarray:
    """For each printed entry the entry it follows under ``fix`` and ``tie``; −1 if it is fixed."""
    roots = np.arange(layout.p)
    if isinstance(loglik, Pool) or not parts_of(loglik):
        return roots
    while not isinstance(loglik, Pool) and parts_of(loglik):
        if isinstance(loglik, Fix | Tie):
            inner = loglik.roots(layout)
            again = np.flatnonzero((inner < 0) & (roots < 0))
            if again.size:
                raise ValueError(
                    f"{layout.names[again[0]]!r} is fixed twice, by two nested calls: fix it once"
                )
            roots = np.where(inner >= 0, roots[inner], -1)
        loglik = parts_of(loglik)[0]
    led = roots[roots >= 0]
    if np.any(roots[led] != led):
        held = layout.names[led[roots[led] != led][0]]
        raise ValueError(
            f"an entry is tied to {held!r}, which is fixed inside the tie; fix outside "
            "the tie instead: fix(tie(loglik, …), …)"
        )
    return roots


def chart_of(loglik: Loglik, layout: Layout, may_be_empty: bool = False) -> Chart:
    """The chart of the entries that ``fix`` and ``tie`` leave to the solver.

    Raises:
        ValueError: if they leave none, unless ``may_be_empty``.
    """
    held = roots_of(loglik, layout) != np.arange(layout.p)
    chart = layout.chart(tuple(held.tolist()))
    if not chart.k and not may_be_empty:
        raise ValueError("every parameter is fixed: there is nothing to estimate")
    return chart


def core_of(loglik: Loglik) -> Loglik:
    """The likelihood inside all combinators of a single likelihood; a pool as it is."""
    while parts_of(loglik) and not isinstance(loglik, Pool):
        loglik = parts_of(loglik)[0]
    return loglik


def substituted(loglik: Loglik, layout: Layout, x: Array) -> Array:
    """x (p,) with the values of fixed and tied entries substituted."""
    while not isinstance(loglik, Pool) and parts_of(loglik):
        if isinstance(loglik, Fix | Tie):
            x = loglik.substitute(layout, x)
        loglik = parts_of(loglik)[0]
    return x


def count(loglik: Loglik, data: Tree, terms: Callable[[], float]) -> Array:
    """n: the sum of frequency weights over the rows of positive weight, or their number."""
    if isinstance(loglik, Pool):
        return jnp.sum(
            jnp.asarray([count(m, d, lambda: 1) for m, d in zip(loglik.members, data, strict=True)])
        )
    times: Array | float = 1.0
    while parts_of(loglik):
        if isinstance(loglik, Weight):
            w = jnp.asarray(loglik.weights.values)
            times = times * (w if loglik.weights.kind == "frequency" else (w > 0))
        loglik = parts_of(loglik)[0]
        if isinstance(loglik, Pool):
            return jnp.sum(
                times
                * jnp.concatenate(
                    [
                        jnp.broadcast_to(count(m, d, lambda: 1) / _rows(m, d), (_rows(m, d),))
                        for m, d in zip(loglik.members, data, strict=True)
                    ]
                )
            )
    if isinstance(times, float):
        return (jnp if tracing() else np).asarray(data_length(data) or terms())
    return jnp.sum(times)


def counts_of(loglik: Loglik, data: Tree) -> ndarray | None:
    """``count`` of members whose weights are NumPy's, their rows last, (...); None where it takes
    more than these.
    """
    times = np.ones(())
    part = loglik
    while parts_of(part):
        if isinstance(part, Pool):
            return None
        if isinstance(part, Weight):
            w = np.asarray(part.weights.values)
            times = times * (w if part.weights.kind == "frequency" else (w > 0))
        part = parts_of(part)[0]
    if times.ndim:
        return np.sum(times, axis=-1)
    rows = data_length(data)
    return np.asarray(float(rows)) if rows else None


def _rows(loglik: Loglik, data: Tree) -> int:
    return rows_of(loglik, data) or 1


def program_of_terms(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> ClosedJaxpr:
    """The program of the terms as a function of x (p,) and the data, traced once for each shape of
    the data.
    """

    def trace(loglik: Loglik) -> ClosedJaxpr:
        return jax.make_jaxpr(lambda x, rows: terms_of(loglik, layout.unravel(x), rows))(base, data)

    if tracing():
        return trace(loglik)
    return remembered(loglik, ("terms", layout, *shapes_of(data)), trace)


def term_shape(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> tuple[int, ...]:
    """The shape of the terms at ``base`` (p,); () if it is one number for dependent data."""
    return program_of_terms(loglik, layout, base, data).out_avals[0].shape


def shapes_of(data: Tree) -> tuple[Tree, ...]:
    """Everything a program depends on in its data: tree, shapes and types, as a hashable value."""
    leaves, structure = jax.tree.flatten(data)
    return structure, tuple((np.shape(leaf), leaf.dtype) for leaf in leaves)


def linear_designs(loglik: Loglik, data: Tree) -> Tree:
    """Which leaves of the data are designs (n, q) of a regression's linear predictors: booleans, a
    tree like ``data``.

    If they are stored as (q, n) and transposed when the likelihood is evaluated, X'WX costs down to
    half as much: XLA folds the transpose into the product.
    """
    if isinstance(loglik, Regression):
        wanted = {id(leaf_of(data, form.x)) for form in loglik.forms if isinstance(form, Linear)}
        return jax.tree.map(lambda leaf: id(leaf) in wanted and len(leaf.shape) == 2, data)
    if isinstance(loglik, Pool):
        return type(data)(
            linear_designs(member, part) for member, part in zip(loglik.members, data, strict=True)
        )
    inner: Loglik | None = getattr(loglik, "loglik", None)
    if inner is not None:
        return linear_designs(inner, data)
    return jax.tree.map(lambda leaf: False, data)


def sharing(loglik: Tree, data: Tree, same: Tree) -> Tree:
    """The likelihood with the names of the designs that all members of a batch share: ``same`` is a
    tree of booleans like ``data``.
    """
    if isinstance(loglik, Regression):
        names = {
            form.x
            for form in loglik.forms
            if isinstance(form, Linear)
            and jnp.ndim(leaf_of(data, form.x)) == 2
            and leaf_of(same, form.x)
        }
        return dataclasses.replace(loglik, shared=tuple(sorted(names)))
    if hasattr(loglik, "members"):
        return dataclasses.replace(
            loglik,
            members=tuple(
                sharing(m, d, s) for m, d, s in zip(loglik.members, data, same, strict=True)
            ),
        )
    return (
        dataclasses.replace(loglik, loglik=sharing(loglik.loglik, data, same))
        if hasattr(loglik, "loglik")
        else loglik
    )
