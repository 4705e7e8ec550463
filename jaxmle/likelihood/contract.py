"""The contract: ``loglik(params, data)`` returns one term per observation, and its checks at trace
time.
"""

from __future__ import annotations

import functools
import types
from typing import Protocol, TypeGuard, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Clusters, Foreign, Function, Loglik, Tree
from jaxmle.runtime.opaque import LikelihoodTree, Opaque

TERMS_OF_ANOTHER_TYPE = {
    type(None): ". Does the function return its terms?",
    list: ". Compute with whole arrays, or convert the list: jnp.stack(terms)",
    tuple: ". Return only the terms",
    dict: ". Return only the terms",
    types.GeneratorType: ". Write return, not yield",
    types.CoroutineType: ". Write def, without async",
}


@runtime_checkable
class ReadyModel(Protocol):
    """A model that has a log-likelihood as well as a start, constraints and predictions."""

    @property
    def likelihood(self) -> Loglik:
        """The log-likelihood itself: a function or one of jaxmle's forms."""
        ...

    def __call__(self, params: Tree, data: Tree, /) -> Array: ...


@runtime_checkable
class Delegating(Protocol):
    """A built-in model that keeps its start, its bounds and its predictions when a combinator
    changes its likelihood.
    """

    def with_likelihood(self, tree: Loglik) -> Loglik: ...


@runtime_checkable
class FitsItself(Protocol):
    """Data with their own ``fit``, such as a formula's ``Frame``."""

    def given(self, weights: Tree, clusters: Clusters) -> tuple[Tree, Clusters]: ...

    def fit_with(self, loglik: Loglik, params0: Tree, options: Tree) -> Tree: ...


def fits_itself(data: Tree) -> TypeGuard[FitsItself]:
    """Whether data know how a likelihood is fitted to them. To ask for one attribute first takes a
    tenth of the time of a protocol.
    """
    return hasattr(data, "fit_with") and isinstance(data, FitsItself)


@runtime_checkable
class CountsRows(Protocol):
    """A combinator that knows how many terms its parts have."""

    def rows(self, data: Tree) -> int | None: ...


def as_tree(loglik: Loglik) -> Loglik:
    """The likelihood as a tree whose leaves are arrays: jaxmle's own forms as they are, a built-in
    model as its likelihood, any other callable as ``Opaque``.

    Any callable object with an attribute ``likelihood``, also of another package, counts as a
    built-in model.
    """
    if not callable(loglik) or isinstance(loglik, type):
        got = repr(loglik) if isinstance(loglik, str) else type(loglik).__name__
        got = f"the class {loglik.__name__}" if isinstance(loglik, type) else got
        if isinstance(loglik, str) and "~" in loglik:
            got += f". For a formula use jaxmle.from_formula({loglik!r}, table).fit(model)"
        raise TypeError(
            "loglik must be a function of (params, data), or a model such as models.poisson(); "
            f"got {got}"
        )
    if getattr(loglik, "__annotations__", {}).get("return") in ("Model", "Family"):
        name = getattr(loglik, "__name__", "")
        raise TypeError(
            f"loglik must be a function of (params, data), and {name} makes one: write {name}(…)"
        )
    if isinstance(loglik, LikelihoodTree):
        return loglik
    if hasattr(loglik, "likelihood") and isinstance(loglik, ReadyModel):
        return as_tree(loglik.likelihood)
    return Opaque(loglik)


def handed_on(loglik: Loglik, tree: Loglik) -> Loglik:
    """A tree that a combinator made from ``loglik``: as a built-in model if ``loglik`` is one,
    otherwise as it is.
    """
    if isinstance(loglik, ReadyModel) and isinstance(loglik, Delegating):
        return loglik.with_likelihood(tree)
    return tree


def carried(loglik: Loglik, name: str) -> Function | None:
    """The attribute ``name`` of a built-in model's function, with the arguments of a partial
    application of it; None for other likelihoods.

    ``row_terms(params, data)`` (n,) are terms whose gradients are the scores of the rows;
    ``second_order(params, data)`` is ℓ with its score (p,) and Hessian (p, p), or None.
    """
    return _carried_by(loglik.function, name) if isinstance(loglik, Opaque) else None


def _carried_by(function: Foreign, name: str) -> Function | None:
    if not isinstance(function, functools.partial):
        return getattr(function, name, None)
    if getattr(function.func, "wraps_first_argument", False):
        return _carried_by(function.args[0], name)
    inner = _carried_by(function.func, name)
    return None if inner is None else functools.partial(inner, **function.keywords)


def pooled_on(logliks: tuple[Loglik, ...], tree: Loglik) -> Loglik:
    """A pool of likelihoods; if all are built-in models, it is a model too."""
    pooled = getattr(logliks[0], "pooled_with", None)
    ready = all(isinstance(loglik, ReadyModel) for loglik in logliks)
    return tree if pooled is None or not ready else pooled(logliks, tree)


def data_length(data: Tree) -> int | None:
    """The shared length n of the leading axis of every leaf of ``data``; None where there is no
    data.
    """
    leaves = jax.tree_util.tree_leaves_with_path(data)
    lengths: dict[int, str] = {}
    for path, leaf in leaves:
        name = "data" + jax.tree_util.keystr(path)
        if jnp.ndim(leaf) == 0:
            raise ValueError(
                f"{name} is a scalar; every leaf of data needs the leading observation axis. "
                "Close over constants instead of passing them as data."
            )
        lengths.setdefault(jnp.shape(leaf)[0], name)
    if len(lengths) > 1:
        lengths_in_words = " and ".join(
            f"{name} has {n} rows" for n, name in list(lengths.items())[:2]
        )
        raise ValueError(
            f"all leaves of data must share the leading observation axis: {lengths_in_words}"
        )
    if 0 in lengths:
        raise ValueError(
            f"{lengths[0]} has no rows: without observations a likelihood has no maximum"
        )
    return next(iter(lengths), None)


def rows_of(loglik: Loglik, data: Tree) -> int | None:
    """How many terms the data suggest: the length of their leading axis, summed over the members of
    a pool; None where there is no data.
    """
    if hasattr(loglik, "rows") and isinstance(loglik, CountsRows):
        return loglik.rows(data)
    return data_length(data)


def terms_of(loglik: Loglik, params: Tree, data: Tree) -> Array:
    """The terms of ``loglik``, checked: shape (n,), or () for dependent data."""
    # Lengths come first: this error names the leaves that do not match, one from inside does not.
    n = rows_of(loglik, data)
    try:
        terms = loglik(params, data)
    except (TypeError, AttributeError) as error:
        missing = _without_value(params)
        if missing is None:
            raise
        raise TypeError(
            f"{missing} is None, and the log-likelihood cannot be evaluated with it: give "
            "it a start value"
        ) from error
    if not isinstance(terms, jax.Array | np.ndarray | np.generic | float):
        raise TypeError(
            f"loglik must return an array of log-likelihood terms; got {type(terms).__name__}"
            + TERMS_OF_ANOTHER_TYPE.get(type(terms), "")
        )
    terms = jnp.asarray(terms)
    if not jnp.issubdtype(terms.dtype, jnp.floating):
        raise TypeError(f"loglik must return floating-point terms; got dtype {terms.dtype}")
    if terms.ndim == 0 or (terms.ndim == 1 and n in (None, terms.shape[0])):
        return terms
    raise ValueError(
        f"loglik must return one term per observation, shape ({'n' if n is None else n},), or "
        f"one scalar for dependent data; got {terms.shape}."
        + (
            " A column y of shape (n, 1) against a mean of shape (n,) broadcasts to (n, n); so "
            "does x @ beta with beta of shape (k, 1)."
            if terms.ndim == 2
            else ""
        )
    )


def _without_value(params: Tree) -> str | None:
    """The path of the first None in a tree of parameters; None if there is none."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda leaf: leaf is None)
    for path, leaf in leaves:
        if leaf is None:
            return "params" + jax.tree_util.keystr(path)
    return None


def need_terms(terms: Array, what: str) -> Array:
    """``terms``; raises if the likelihood is one scalar and so has none."""
    if terms.ndim == 0:
        raise ValueError(
            f"{what} needs one log-likelihood term per independent observation, but "
            "loglik returns one scalar. Return terms of shape (n,), with dependent rows "
            "grouped in one unit of the leading axis, or use vcov='observed'."
        )
    return terms


def leaf_of(data: Tree, name: str, what: str = "data") -> Array:
    """The leaf of a tree called ``name``: a dictionary key, a field of a named tuple or
    dataclass, or the position in a tuple such as ``"0"``.
    """
    if isinstance(data, dict) and name in data:
        if data[name] is None:
            raise TypeError(f"{what}[{name!r}] is None; give an array whose first axis is the rows")
        return data[name]
    if isinstance(data, tuple | list) and name.isdigit() and int(name) < len(data):
        return data[int(name)]
    if not isinstance(data, dict) and hasattr(data, name):
        return getattr(data, name)
    stem, dot, rest = name.partition(".")
    if dot and rest:
        return leaf_of(leaf_of(data, stem, what), rest, f"{what}.{stem}")
    if isinstance(data, np.ndarray | jax.Array):
        raise ValueError(
            f"{what} is one array, of shape {np.shape(data)}, and its leaf {name!r} is "
            f"expected: give a dictionary, {{{name!r}: …}}"
        )
    known = (
        sorted(map(str, data)) if isinstance(data, dict) else sorted(getattr(data, "_fields", ()))
    )
    raise ValueError(f"{what} has no leaf {name!r}; it has {known}")


def check_read(loglik: Foreign, data: Tree) -> None:
    """Raise for a leaf that has the name of an option of a built-in model, which was made without
    that option and would ignore it.
    """
    unread = getattr(loglik, "unread", ())
    for name in unread if isinstance(data, dict) else ():
        if name in data:
            raise ValueError(
                f"{loglik!r} does not read data[{name!r}]: write {name}={name!r} where the model "
                "is made, or leave it out of the data"
            )
