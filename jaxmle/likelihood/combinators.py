"""Combinators: functions from likelihoods to likelihoods, as frozen registered dataclasses, so that
their structure can be read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, ArrayLike, Foreign, Loglik, Tree, ndarray
from jaxmle.closures.copies import viewed
from jaxmle.likelihood.contract import as_tree, handed_on, need_terms, pooled_on, rows_of, terms_of
from jaxmle.likelihood.response import Exact, Law
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.runtime.opaque import LikelihoodTree

Prior = Callable[[Tree], Array]  # of the parameters; it may ask for the likelihood too


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["kind"])
@dataclass(frozen=True)
class Weights(LikelihoodTree):
    """Observation weights (n,) with their meaning, ``frequency`` or ``sampling``."""

    values: Tree
    kind: str


def frequency(w: ArrayLike) -> Weights:
    """Frequency weights: a row of weight 3 counts as three rows.

    This applies to the estimates, the standard errors, n and BIC.

    Args:
        w: weights (n,), non-negative; for a frame, also the name of a column.

    Returns:
        ``Weights``, for ``weight`` and the ``weights=`` of a fit.

    Raises:
        TypeError: for None, a dictionary or a set, and for a masked array.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> thrice = jm.weight(exponential, jm.frequency([1, 3]))
    >>> opg = jm.information(thrice, "opg")({"rate": 0.5}, np.array([1.0, 4.0]))
    >>> opg.tolist()  # Σ w s², s = 1/rate − y: as for y = 1, 4, 4, 4
    [[13.0]]
    """
    return Weights(_weight_values(w), "frequency")


def sampling(w: ArrayLike) -> Weights:
    """Sampling (probability) weights: n is the number of rows, and the covariance is the sandwich.

    Args:
        w: weights (n,), non-negative; for a frame, also the name of a column.

    Returns:
        ``Weights``, for ``weight`` and the ``weights=`` of a fit.

    Raises:
        TypeError: for None, a dictionary or a set, and for a masked array.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> survey = jm.weight(exponential, jm.sampling([1, 3]))
    >>> opg = jm.information(survey, "opg")({"rate": 0.5}, np.array([1.0, 4.0]))
    >>> opg.tolist()  # Σ (ws)², s = 1/rate − y: one row, of score 3s
    [[37.0]]
    """
    return Weights(_weight_values(w), "sampling")


def _weight_values(w: ArrayLike) -> Tree:
    """Weights as given, a column as an array; a column name is kept for ``from_formula``. Masked
    arrays are refused, because their mask would be lost.
    """
    if isinstance(w, str):
        return w
    if isinstance(w, np.ma.MaskedArray):
        raise TypeError(
            "weights are a masked array, whose mask would be lost; drop the masked rows "
            "from every leaf, or give them weight 0"
        )
    is_array = hasattr(w, "__array__") or isinstance(w, list | tuple | int | float | jax.Array)
    if not is_array or isinstance(w, Weights):
        raise TypeError(f"weights must be numbers, one for each row; got {shown(w)}")
    is_list = isinstance(w, list | tuple) and not any(np.ndim(value) for value in w)
    is_column = hasattr(w, "__array__") and not isinstance(w, np.ndarray | np.generic | jax.Array)
    values = np.asarray(w) if is_list or is_column else w
    dtype = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", "f")
    if kind not in "fiubV":  # V: the small floats of machine learning
        raise TypeError(f"weights must be numbers, one for each row; got dtype {dtype}")
    return viewed(values)


@partial(jax.tree_util.register_dataclass, data_fields=["loglik", "weights"], meta_fields=[])
@dataclass(frozen=True)
class Weight(LikelihoodTree):
    """A likelihood whose terms are multiplied by weights."""

    loglik: Loglik
    weights: Weights

    def __call__(self, params: Tree, data: Tree) -> Array:
        return self.weights.values * need_terms(
            terms_of(self.loglik, params, data), "a weighted likelihood"
        )

    def rows(self, data: Tree) -> int | None:
        return rows_of(self.loglik, data)


@partial(jax.tree_util.register_dataclass, data_fields=["loglik", "prior"], meta_fields=[])
@dataclass(frozen=True)
class Penalize(LikelihoodTree):
    """A likelihood plus a log prior. A call returns one scalar; a fit treats terms and prior
    separately.
    """

    loglik: Loglik
    prior: Prior

    def __call__(self, params: Tree, data: Tree) -> Array:
        value = jnp.sum(terms_of(self.loglik, params, data))
        if not hasattr(self.prior, "of_likelihood"):
            return value + _prior_value(self.prior, params)
        layout = layout_of(params)
        return value + self.log_prior(
            layout, jnp.asarray(layout.ravel(params)), jax.tree.map(jnp.asarray, data)
        )

    def log_prior(
        self, layout: Layout, x: Array, data: Tree, weights: Array | None = None
    ) -> Array:
        """The log prior at x; that of ``jeffreys`` also depends on the likelihood and its data."""
        prior: Foreign = self.prior
        if hasattr(prior, "of_likelihood"):
            return prior.of_likelihood(self.loglik, layout, x, data, weights)
        return _prior_value(self.prior, layout.unravel(x))

    def rows(self, data: Tree) -> int | None:
        return rows_of(self.loglik, data)


def _prior_value(prior: Prior, params: Tree) -> Tree:
    """The log prior, which is one floating-point number."""
    value = prior(params)
    is_number = isinstance(value, float) or (
        isinstance(value, jax.Array | np.ndarray | np.generic)
        and jnp.issubdtype(value.dtype, jnp.floating)
    )
    if not is_number or np.shape(value) != ():
        raise ValueError(
            "a log prior must return one floating-point number, the sum over the "
            f"parameters; got {shown(value)}"
        )
    return value


@partial(jax.tree_util.register_dataclass, data_fields=["members"], meta_fields=[])
@dataclass(frozen=True)
class Pool(LikelihoodTree):
    """Several likelihoods of the same parameters, each with its own data (``data`` is a tuple). It
    returns the terms of all (n,), or their sum () if a member returns one number.
    """

    members: tuple[Loglik, ...]

    def __call__(self, params: Tree, data: Tree) -> Array:
        self.check(data)
        pairs = zip(self.members, data, strict=True)
        terms = [terms_of(member, params, part) for member, part in pairs]
        if all(part.ndim for part in terms):
            return jnp.concatenate(terms)
        return jnp.sum(jnp.stack([jnp.sum(part) for part in terms]))

    def rows(self, data: Tree) -> int | None:
        self.check(data)
        counts = [rows_of(member, part) for member, part in zip(self.members, data, strict=True)]
        return None if None in counts else sum(counts)  # type: ignore[arg-type]

    def check(self, data: Tree) -> None:
        if not isinstance(data, tuple | list) or len(data) != len(self.members):
            got = f"{len(data)} parts" if isinstance(data, tuple | list) else type(data).__name__
            raise ValueError(
                f"a pool of {len(self.members)} likelihoods needs a tuple of "
                f"{len(self.members)} data sets; got {got}"
            )


@partial(jax.tree_util.register_dataclass, data_fields=["loglik", "values"], meta_fields=["names"])
@dataclass(frozen=True)
class Fix(LikelihoodTree):
    """A likelihood with some entries of the parameters held at given values; the parameter tree
    keeps its shape.
    """

    loglik: Loglik
    names: tuple[str, ...]
    values: tuple[Tree, ...]

    def __call__(self, params: Tree, data: Tree) -> Array:
        layout = layout_of(params)
        return self.loglik(layout.unravel(self.substitute(layout, layout.ravel(params))), data)

    def rows(self, data: Tree) -> int | None:
        return rows_of(self.loglik, data)

    def substitute(self, layout: Layout, x: Array) -> Array:
        """x (p,) with the fixed entries substituted."""
        for name, value in zip(self.names, self.values, strict=True):
            where = np.array(layout.find(name))
            new = jnp.ravel(jnp.asarray(value, dtype=jax.dtypes.canonicalize_dtype(x.dtype)))
            if new.size not in (1, len(where)):
                raise ValueError(
                    f"fix gives {name!r} {new.size} values; it has {len(where)} entries"
                )
            new = jnp.broadcast_to(new, where.shape)
            x = jnp.asarray(x).at[where].set(new)
        return x

    def roots(self, layout: Layout) -> ndarray:
        """For each entry, the entry it follows: itself, or −1 where it is fixed."""
        roots = np.arange(layout.p)
        for name in self.names:
            where = layout.find(name)
            if np.any(roots[where] < 0):
                raise ValueError(f"{name!r} is fixed twice in the same dictionary: fix it once")
            roots[where] = -1
        return roots


@partial(jax.tree_util.register_dataclass, data_fields=["loglik"], meta_fields=["groups"])
@dataclass(frozen=True)
class Tie(LikelihoodTree):
    """A likelihood in which the entries of each group all equal the first of the group."""

    loglik: Loglik
    groups: tuple[tuple[str, ...], ...]

    def __call__(self, params: Tree, data: Tree) -> Array:
        layout = layout_of(params)
        return self.loglik(layout.unravel(self.substitute(layout, layout.ravel(params))), data)

    def rows(self, data: Tree) -> int | None:
        return rows_of(self.loglik, data)

    def substitute(self, layout: Layout, x: Array) -> Array:
        """x (p,) with every tied entry equal to the one it follows."""
        return x[self.roots(layout)]

    def roots(self, layout: Layout) -> ndarray:
        """For each entry, the entry it follows."""
        roots = np.arange(layout.p)
        for first, *others in self.groups:
            lead = layout.find(first)
            for other in others:
                follow = layout.find(other)
                if len(follow) != len(lead):
                    raise ValueError(
                        f"tie: {first!r} has {len(lead)} entries and {other!r} has {len(follow)}"
                    )
                roots[follow] = lead
        return roots


@partial(jax.tree_util.register_dataclass, data_fields=["loglik", "law"], meta_fields=[])
@dataclass(frozen=True)
class WithResponse(LikelihoodTree):
    """A likelihood with the distribution of its response, and so an expected information."""

    loglik: Loglik
    law: Law

    def __call__(self, params: Tree, data: Tree) -> Array:
        return self.loglik(params, data)

    def rows(self, data: Tree) -> int | None:
        return rows_of(self.loglik, data)


def weight(loglik: Loglik, weights: Weights) -> Loglik:
    """The likelihood with terms weighted by ``frequency(w)`` or ``sampling(w)``, w of shape (n,). A
    prior inside is not weighted.

    Returns:
        A log-likelihood of (params, data) with terms w_i ℓ_i, (n,).

    Raises:
        TypeError: for a bare array, whose meaning is unknown.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> thrice = jm.weight(exponential, jm.frequency([1, 3]))
    >>> round(float(jm.nll(thrice)({"rate": 1.0}, np.array([1.0, 4.0]))), 6)  # Σ w y at rate 1
    13.0
    """
    check_weights_given(weights)
    return handed_on(loglik, _weigh(as_tree(loglik), weights))


def check_weights_given(weights: object) -> None:
    """Refuse weights without a meaning, or weights that name a column of a table."""
    if not isinstance(weights, Weights):
        raise TypeError(
            "say what the weights mean: jaxmle.frequency(w) for repeated rows, "
            f"jaxmle.sampling(w) for survey weights; got {type(weights).__name__}"
        )
    if isinstance(weights.values, str):
        raise TypeError(
            "weights must be numbers, one for each row; got the string "
            f"{weights.values!r}. Column names work only with a formula and its table "
            "(from_formula, fit_groups): give the values of the column, "
            f"jaxmle.{weights.kind}(w)"
        )


def _weigh(loglik: Tree, weights: Weights) -> Loglik:
    """Apply weights to the terms, that is, inside any prior and everything outside it."""
    inside = getattr(loglik, "loglik", None)
    while (
        inside is not None and not isinstance(loglik, Penalize) and not isinstance(inside, Penalize)
    ):
        inside = getattr(inside, "loglik", None)
    return (
        dataclasses.replace(loglik, loglik=_weigh(loglik.loglik, weights))
        if inside is not None
        else Weight(loglik, weights)
    )


def penalize(loglik: Loglik, log_prior: Callable[[Tree], Array]) -> Loglik:
    """The likelihood plus a log prior of the parameters; its maximum is the posterior mode and is
    labelled MAP.

    Args:
        loglik: any log-likelihood.
        log_prior: a function of the parameters that returns one number, such as ``ridge(0.1)``.

    Returns:
        A log-likelihood of (params, data), one number.

    Raises:
        TypeError: if the prior is not a function.

    >>> import numpy as np, jaxmle as jm
    >>> normal = lambda params, y: -0.5 * (y - params["mean"]) ** 2
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> result = jm.fit(jm.penalize(normal, jm.ridge(2.0)), {"mean": 0.0}, y)
    >>> round(float(result.params["mean"]), 6), result.mode  # Σy/(n + 2)
    (2.0, 'MAP')
    """
    if not callable(log_prior) or isinstance(log_prior, type):
        raise TypeError(
            "penalize takes a function of the parameters, such as jaxmle.ridge(0.1); got "
            f"{shown(log_prior)}"
        )
    is_leaf = jax.tree_util.treedef_is_leaf(jax.tree.structure(log_prior))
    prior = jax.tree_util.Partial(log_prior) if is_leaf else log_prior
    return handed_on(loglik, Penalize(as_tree(loglik), prior))


def pool(*logliks: Loglik) -> Loglik:
    """Several likelihoods that share one parameter tree; data is a tuple with one element for each.

    Returns:
        A log-likelihood of (params, data) with the terms of all parts, one after the other.

    Raises:
        ValueError: if there is no likelihood.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> waits = lambda params, t: jnp.log(params["rate"]) - params["rate"] * t
    >>> counts = lambda params, k: k * jnp.log(params["rate"]) - params["rate"]
    >>> data = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    >>> score = jm.score(jm.pool(waits, counts))
    >>> round(float(score({"rate": 1.0}, data)["rate"]), 6)  # zero at (n + Σk)/(Σt + m) = 6/6
    0.0
    """
    if not logliks:
        raise ValueError("pool needs at least one likelihood")
    return pooled_on(logliks, Pool(tuple(map(as_tree, logliks))))


def fix(loglik: Loglik, values: Mapping[str, Tree]) -> Loglik:
    """The likelihood with named entries held: ``fix(loglik, {"sigma": 1.0, "beta[2]": 0.0})``.

    The parameter tree keeps its shape, so a fit prints the held value, which does not count in df
    and has no standard error. A value may lie on a bound if the likelihood is finite there:
    ``fix(models.negative_binomial(), {"alpha": 0.0})`` is the Poisson limit. If everything is held,
    ``fit`` evaluates the likelihood at that point, with df 0.

    Returns:
        A log-likelihood of (params, data) that ignores the held entries of ``params``; for a
        built-in model, a model with its start, bounds and predictions.

    Raises:
        TypeError: for anything but a dictionary from names to numbers or arrays of them.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> normal = lambda p, y: -0.5 * ((y - p["mean"]) / p["sigma"]) ** 2 - jnp.log(p["sigma"])
    >>> known = jm.fix(normal, {"sigma": 2.0})
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> jm.vcov(known)({"mean": 3.0, "sigma": 2.0}, y).round(6).tolist()  # σ²/n for the mean
    [[1.0, nan], [nan, nan]]
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise TypeError(
            "fix takes a dictionary from parameter names to values, such as {'sigma': 1.0, "
            f"'beta[2]': 0.0}}; got {shown(values)}"
        )
    for name, value in values.items():
        _check_held(name, value)
    return handed_on(loglik, Fix(as_tree(loglik), tuple(values), tuple(values.values())))


def _check_held(name: str, value: Tree) -> None:
    """Raise unless a value held by ``fix`` is a number or an array of numbers."""
    if is_traced(value):
        return
    masked = isinstance(value, np.ma.MaskedArray)
    if masked or np.asarray(value).dtype.kind not in "fiu" or not np.size(value):
        raise TypeError(
            f"fix holds {name!r} at a number or an array of numbers; got {shown(value)}"
        )


def tie(loglik: Loglik, *groups: tuple[str, ...]) -> Loglik:
    """The likelihood in which all entries named in a group are equal: ``tie(loglik, ("a", "b"))``.

    Args:
        groups: each a tuple of two or more names, of single entries or of leaves of equal size.

    Returns:
        A log-likelihood of (params, data) that uses the first entry of a group for all of them.

    Raises:
        TypeError: for a group that is not a tuple of at least two names.
        ValueError: if there is no group; on use, for leaves of different sizes.

    >>> import numpy as np, jaxmle as jm
    >>> two = lambda p, d: -0.5 * (d["x"] - p["a"]) ** 2 - 0.5 * (d["y"] - p["b"]) ** 2
    >>> data = {"x": np.array([1.0, 3.0]), "y": np.array([2.0, 6.0])}
    >>> v = jm.vcov(jm.tie(two, ("a", "b")))({"a": 3.0, "b": 3.0}, data)
    >>> v.round(6).tolist()  # 1/4: one mean of four observations
    [[0.25, 0.25], [0.25, 0.25]]
    """
    if not groups:
        raise ValueError("tie needs at least one group of names, such as tie(loglik, ('a', 'b'))")
    for group in groups:
        listed = isinstance(group, tuple | list) and len(group) >= 2
        if not listed or not all(isinstance(name, str) for name in group):
            raise TypeError(
                f"each group of tie is a tuple of at least two parameter names; got {shown(group)}"
            )
    return handed_on(loglik, Tie(as_tree(loglik), tuple(tuple(group) for group in groups)))


def with_response(loglik: Loglik, law: Law) -> Loglik:
    """The likelihood with the distribution of its response, over which expectations are taken.

    Args:
        loglik: any log-likelihood; for an enumeration it must include the constants of its density.
        law: ``enumeration(leaf, values)`` or ``simulation(sampler, key=…)``.

    Returns:
        A log-likelihood of (params, data) that has an expected information.

    Raises:
        TypeError: for another law; ``exact`` works only in ``regression(…, response=exact(…))``.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> bernoulli = lambda p, d: jnp.log(jnp.where(d["y"] == 1, p["p"], 1 - p["p"]))
    >>> model = jm.with_response(bernoulli, jm.enumeration("y", [0, 1]))
    >>> data = {"y": np.array([1.0, 0.0, 0.0, 1.0])}
    >>> information = jm.information(model, "expected")({"p": 0.2}, data)
    >>> round(float(information[0, 0]), 6)  # n/p(1 − p), whatever the responses
    25.0
    """
    if isinstance(law, Exact):
        raise TypeError(
            "a closed-form expected information needs a declared regression: "
            "regression(…, response=exact(…))"
        )
    if not hasattr(law, "with_response") and not hasattr(law, "sampler"):
        raise TypeError(
            f"law must be enumeration(leaf, values) or simulation(sampler, key=…); got {shown(law)}"
        )
    return handed_on(loglik, WithResponse(as_tree(loglik), law))
