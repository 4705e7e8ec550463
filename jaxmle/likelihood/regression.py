"""Declared regressions: a density of a few predictors. Derivatives are scalar; score and Hessian
are X'r and X'WX.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Tree, ndarray
from jaxmle.closures.recipes import reduced
from jaxmle.likelihood.contract import data_length, leaf_of
from jaxmle.likelihood.derivatives import derivatives_by_rows
from jaxmle.likelihood.designs import Column
from jaxmle.likelihood.response import Enumeration, Exact, Law, Simulation
from jaxmle.parameters.arguments import check_flag, check_function, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import marked
from jaxmle.runtime.cse import without_repeats
from jaxmle.runtime.opaque import LikelihoodTree
from jaxmle.runtime.user_code import explained


@dataclass(frozen=True)
class Linear(LikelihoodTree):
    """The predictor ``data[x] @ params[param]``, plus ``data[offset]``. A matrix of
    coefficients (q, K) gives K predictors.
    """

    x: str
    param: str
    offset: str | None = None


@with_keyword_hints
def linear(x: str, param: str, offset: str | None = None) -> Linear:
    """A linear predictor for ``regression``: the leaf ``x`` (n, q) of the data times the parameter
    leaf (q,) or (q, K).

    Args:
        x: name of the design leaf, (n, q), or (n,) for a single column.
        param: name of the coefficient leaf.
        offset: name of a data leaf (n,) added with coefficient one.

    Returns:
        A predictor, one of the values of ``regression(…, eta={…})``.

    Raises:
        TypeError: for anything but names.

    >>> import numpy as np, jaxmle as jm
    >>> normal = lambda eta, row: -0.5 * (row["y"] - eta["mean"]) ** 2
    >>> line = jm.regression(normal, {"mean": jm.linear("x", "beta")})
    >>> data = {"x": np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), "y": np.array([1.0, 2.0, 6.0])}
    >>> jm.information(line)({"beta": np.zeros(2)}, data).tolist()  # X'X
    [[3.0, 3.0], [3.0, 5.0]]
    """
    for name, value in (("x", x), ("param", param), ("offset", offset)):
        if not isinstance(value, str) and not (name == "offset" and value is None):
            raise TypeError(f"{name} must be the name of a leaf; got {shown(value)}")
    return Linear(x, param, offset)


Predictor = Linear | str | Callable[[Tree, Tree], Array]


class Predictors(NamedTuple):
    """All predictors at one point: values (m, n), their Jacobians, and whether any is nonlinear in
    the parameters.
    """

    values: Array
    columns: tuple[Column, ...]
    curved: bool


class Histogram(NamedTuple):
    """The distinct counts among the rows, and the weight of each."""

    values: Tree  # (m,)
    weights: Tree  # (m,)


class OfRows(ABC):
    """A density of many independent rows at once."""

    @abstractmethod
    def __call__(self, eta: Mapping[str, Array], rows: Tree) -> Array:
        """The terms (n,), for predictors (n,) or (n, K), () or (K,) if they are constant."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["response", "histograms"],
    meta_fields=["density", "names", "forms", "counts", "shared", "concave"],
)
@dataclass(frozen=True)
class Regression(LikelihoodTree):
    """A log-likelihood declared as ``density(eta, row)``, the log density of one row, through named
    predictors.

    The terms ``counts``, which depend on one leaf and the constant predictors, are added to the
    density.
    """

    density: Callable[[Mapping[str, Array], Tree], Array]  # of one row; of many for ``OfRows``
    names: tuple[str, ...]
    forms: tuple[Predictor, ...]
    response: Law | None = None
    counts: tuple[tuple[str, Callable[[Mapping[str, Array], Array], Array]], ...] = ()
    # one for each of ``counts``; only for sums over exactly these rows
    histograms: tuple[Histogram, ...] | None = None
    shared: tuple[
        str, ...
    ] = ()  # designs shared by a batch: products of their columns are computed once
    concave: bool = False  # as declared by the user or the built-in model

    def __reduce__(self) -> tuple[Tree, ...]:
        return reduced(self)

    def __call__(self, params: Tree, data: Tree) -> Array:
        data_length(data)
        data = marked(getattr(self.density, "check_data", None), data)
        shapes, values = self._values(params, data)
        return self._terms(self._parted(shapes, values), data)

    def _terms(self, etas: tuple[Array, ...], data: Tree) -> Array:
        """The terms (n,) for the predictors returned by ``_parted``."""
        if isinstance(self.density, OfRows):
            return self.density(dict(zip(self.names, etas, strict=True)), data)
        return jax.vmap(self._row, in_axes=(self._axes, 0))(etas, data)

    def _predictor(self, form: Predictor, params: Tree, data: Tree) -> Array:
        """The values of one predictor, (n,) or (n, K)."""
        if isinstance(form, Linear):
            x = leaf_of(data, form.x)
            beta = leaf_of(params, form.param, "params")
            if jnp.ndim(x) == 2 and (jnp.ndim(beta) == 0 or jnp.shape(beta)[0] != jnp.shape(x)[1]):
                raise ValueError(
                    f"data[{form.x!r}] has {jnp.shape(x)[1]} columns but params[{form.param!r}] "
                    f"has shape {jnp.shape(beta)}"
                )
            if jnp.ndim(x) == 1 and jnp.shape(beta) not in ((), (1,)):
                raise ValueError(
                    f"data[{form.x!r}] is one column of shape {jnp.shape(x)}, whose "
                    f"coefficient is a scalar, but params[{form.param!r}] has shape "
                    f"{jnp.shape(beta)}; write a design of one column as "
                    f"data[{form.x!r}][:, None]"
                )
            eta = x * beta if jnp.ndim(x) == 1 else x @ beta
            return (
                eta
                if form.offset is None
                else eta + leaf_of(data, form.offset).reshape((-1,) + (1,) * (eta.ndim - 1))
            )
        if isinstance(form, str):
            value = jnp.asarray(leaf_of(params, form, "params"))
            return jnp.broadcast_to(value, (data_length(data), *value.shape))
        return jax.vmap(form, in_axes=(None, 0))(params, data)

    def _values(self, params: Tree, data: Tree) -> tuple[tuple[tuple[int, ...], ...], Array]:
        """The shape of each predictor in one row, and all scalar predictors stacked, (m, n)."""
        etas = [self._predictor(form, params, data) for form in self.forms]
        shapes = tuple(eta.shape[1:] for eta in etas)
        if any(len(shape) > 1 for shape in shapes):
            raise ValueError(
                "a predictor of one row must be a scalar or a vector; got shapes "
                f"{dict(zip(self.names, shapes, strict=True))}"
            )
        return shapes, jnp.concatenate([eta.reshape(eta.shape[0], -1).T for eta in etas])

    def _row(self, etas: tuple[Array, ...], row: Tree) -> Array:
        """The log density of one row as a function of its predictors, each () or (K,)."""
        eta = dict(zip(self.names, etas, strict=True))
        with explained(eta, row):
            value = jnp.asarray(self.density(eta, row))
        for leaf, term in self.counts:
            value = value + term({name: eta[name] for name in self._constants}, leaf_of(row, leaf))
        if value.shape not in ((), (1,)):
            raise ValueError(
                "density(eta, row) is the log density of one row and must return a scalar; got "
                f"shape {value.shape}"
            )
        return value.reshape(())

    @property
    def _constants(self) -> dict[str, str]:
        """The constant predictors, and the parameter of each."""
        return {
            name: form
            for name, form in zip(self.names, self.forms, strict=True)
            if isinstance(form, str)
        }

    def apart(self) -> tuple[Regression, list[tuple[Regression, Histogram]]]:
        """The regression without the terms in histograms, and a regression for each histogram."""
        if self.histograms is None:
            return self, []
        of_counts = [
            Regression(
                partial(_of_count, term), tuple(self._constants), tuple(self._constants.values())
            )
            for _, term in self.counts
        ]
        return dataclasses.replace(self, counts=(), histograms=None), list(
            zip(of_counts, self.histograms, strict=True)
        )

    @property
    def _axes(self) -> tuple[int | None, ...]:
        """The axis of the rows in each predictor of ``_parted``; anything that depends only on
        constant predictors is computed once instead of for each row.
        """
        return tuple(None if isinstance(form, str) else 0 for form in self.forms)

    def _parted(self, shapes: tuple[tuple[int, ...], ...], values: Array) -> tuple[Array, ...]:
        """The single predictors from the stacked values (m, n): (n,) or (n, K), and () or (K,) if
        constant.
        """
        cuts = np.cumsum([0, *(shape[0] if shape else 1 for shape in shapes)])
        parts = [
            values[start : cuts[i + 1]].T.reshape(-1, *shapes[i])
            for i, start in enumerate(cuts[:-1])
        ]
        return tuple(
            part if axis == 0 else part[0] for part, axis in zip(parts, self._axes, strict=True)
        )

    def predictors(self, layout: Layout, x: Array, data: Tree) -> Predictors:
        """Predictor values and Jacobians at x (p,)."""
        params = layout.unravel(x)
        columns = []
        curved = False
        _, values = self._values(params, data)
        for form in self.forms:
            if isinstance(form, str | Linear):
                columns += self._flat_columns(form, layout, data)
            else:
                curved = True
                jacobian = jax.jacfwd(
                    lambda x, form=form: self._predictor(form, layout.unravel(x), data)
                )(x)
                columns += [
                    Column(j, np.arange(layout.p))
                    for j in jnp.moveaxis(jacobian.reshape(jacobian.shape[0], -1, layout.p), 1, 0)
                ]
        return Predictors(values, tuple(columns), curved)

    def _flat_columns(self, form: Linear | str, layout: Layout, data: Tree) -> list[Column]:
        """The Jacobian of a predictor that is linear in one parameter leaf."""
        name = form if isinstance(form, str) else form.param
        where, shape = _entries(layout, name)
        if isinstance(form, str):
            return [Column(None, where[k : k + 1]) for k in range(len(where))]
        x = leaf_of(data, form.x)
        x = x[:, None] if x.ndim == 1 else x
        outputs = shape[1] if len(shape) == 2 else 1
        if len(where) != x.shape[1] * outputs:
            raise ValueError(
                f"data[{form.x!r}] has {x.shape[1]} columns but params[{name!r}] has shape {shape}"
            )
        return [
            Column(x, where.reshape(-1, outputs)[:, k], form.x in self.shared)
            for k in range(outputs)
        ]

    def derivatives(
        self, params: Tree, values: Array, data: Tree
    ) -> tuple[Array, list[Array], list[list[Array]]]:
        """Terms (n,), and the density's gradient, m of (n,), and Hessian, m by m of (n,), in the
        predictors.

        They are not stacked: each entry enters its own sum, and XLA would compute a stack one row
        at a time.
        """

        def row(
            etas: tuple[Array, ...], data: Tree
        ) -> tuple[Array, tuple[Array, ...], list[tuple[Array, ...]]]:
            def slope(a: Tree, eta: Tree) -> Tree:
                return jax.grad(self._row)((*etas[:a], eta, *etas[a + 1 :]), data)

            return *jax.value_and_grad(self._row)(etas, data), [
                _along(partial(slope, a), eta) for a, eta in enumerate(etas)
            ]

        etas = self._parted(self._values(params, data)[0], values)
        if isinstance(self.density, OfRows):
            return without_repeats(
                lambda etas, data: derivatives_by_rows(
                    lambda etas: self._terms(etas, data), etas, self._axes
                )
            )(etas, data)
        terms, slope, curvature = without_repeats(
            jax.vmap(row, in_axes=(self._axes, 0), out_axes=-1)
        )(etas, data)
        hessian = []
        for part, column in zip(slope, curvature, strict=True):
            hessian += (
                [_entries_of(column)]
                if part.ndim == 1
                else [_entries_of([block[..., k, :] for block in column]) for k in range(len(part))]
            )
        return terms, _entries_of(slope), hessian

    def expected_curvature(self, params: Tree, values: Array, data: Tree) -> Array:
        """E[−∂²log f/∂η∂η'] per row, (m, m, n), by the closed form or by enumeration of the
        response.
        """
        shapes = self._values(params, data)[0]
        m = values.shape[0]
        law = self.response
        if isinstance(law, Exact):

            def exact(stacked: Array, row_data: Tree) -> Array:
                return jnp.asarray(
                    law.information(_named_eta(self.names, shapes, stacked), row_data),
                    dtype=values.dtype,
                ).reshape(m, m)

            return jax.vmap(exact, in_axes=(1, 0), out_axes=2)(values, data)
        if isinstance(law, Enumeration):

            def row(stacked: Tree, data: Tree) -> Array:
                return self._row(tuple(_named_eta(self.names, shapes, stacked).values()), data)

            def curvature_of_value(value: Array) -> tuple[Array, Array]:
                imagined = law.with_response(data, value)
                probability = jnp.exp(jax.vmap(row, in_axes=(1, 0))(values, imagined))
                return -probability[None, None, :] * jax.vmap(
                    jax.hessian(row), in_axes=(1, 0), out_axes=2
                )(values, imagined), probability

            return law.whole(*law.expectation(curvature_of_value))
        raise ValueError(
            "expected information needs the distribution of the response: regression(…, "
            "response=exact(fn)), enumeration(leaf, values) or simulation(sampler, "
            "key=…)"
        )

    def cross_moments(self, params: Tree, values: Array, data: Tree) -> Array:
        """E(∂²log f/∂η_a∂η_b · ∂log f/∂η_c) per row by the closed form, (m, m, m, n)."""
        shapes = self._values(params, data)[0]
        m = values.shape[0]
        law = self.response
        if not isinstance(law, Exact) or law.cross is None:
            raise ValueError(
                "the cross moments of a row need regression(…, response=exact(information, "
                "cross=…))"
            )
        closed = law.cross

        def moments(stacked: Array, row_data: Tree) -> Array:
            return jnp.asarray(
                closed(_named_eta(self.names, shapes, stacked), row_data), dtype=values.dtype
            ).reshape(m, m, m)

        return jax.vmap(moments, in_axes=(1, 0), out_axes=3)(values, data)


def _along(function: Callable[[Array], Tree], eta: Array) -> Tree:
    """The derivative of a function of one predictor, () or (K,)."""
    return (
        jax.jacfwd(function)(eta)
        if eta.ndim
        else jax.jvp(function, (eta,), (jnp.ones_like(eta),))[1]
    )


def _entries_of(parts: Tree) -> list[Array]:
    """Parts (n,) or (K, n), one entry after the other."""
    return [entry for part in parts for entry in ([part] if part.ndim == 1 else part)]


def _of_count(
    term: Callable[[Mapping[str, Array], Array], Array], eta: Mapping[str, Array], row: Array
) -> Array:
    return term(eta, row)


def _named_eta(
    names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...], stacked: Array
) -> dict[str, Array]:
    eta = {}
    start = 0
    for name, shape in zip(names, shapes, strict=True):
        size = shape[0] if shape else 1
        eta[name] = stacked[start : start + size].reshape(shape)
        start += size
    return eta


def _entries(layout: Layout, name: str) -> tuple[ndarray, tuple[int, ...]]:
    """The position of the parameter leaf ``name`` in x, and its shape."""
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if leaf.path == name:
            if leaf.size != int(np.prod(leaf.shape)):
                raise ValueError(
                    f"a matrix with structural entries cannot be a linear predictor: {name!r}"
                )
            return np.arange(span.start, span.stop), leaf.shape
    raise ValueError(
        f"the regression names a parameter {name!r}; params has "
        f"{[leaf.path for leaf in layout.leaves]}"
    )


@with_keyword_hints
def regression(
    density: Callable[[Tree, Tree], Array],
    eta: Mapping[str, Predictor],
    *,
    response: Law | None = None,
    counts: Mapping[str, Callable[[Tree, Tree], Array]] | None = None,
    concave: bool = False,
) -> Regression:
    """A likelihood declared by the log density of one row, as a function of named predictors.

    Args:
        density: ``density(eta, row)``, the log density of one row; ``eta`` maps each name to a
            scalar (or a vector if the coefficients are a matrix), ``row`` is one row of the data
            tree. Written with jax.numpy functions.
        eta: for each name a ``linear(x, param)`` predictor, the name of a parameter (a constant
            predictor), or any function ``f(params, row)``.
        response: the distribution of the response, needed only for expected information.
        counts: for speed, terms to be added to ``density`` that depend only on one leaf of counts
            and on constant predictors: ``counts={"y": term}``, ``term(eta, y)`` with the constant
            predictors in ``eta``. If many rows share few counts, such a term (log Γ(y + size) of a
            negative binomial) is evaluated once for each distinct count. A term may be given for
            any leaf, but only counts become faster.
        concave: whether ``density`` is known to be concave in all predictors together. With linear
            and constant predictors the likelihood then has at most one maximum, and a fit says "the
            maximum" instead of "a maximum". Nothing is computed from this.

    Returns:
        A log-likelihood ``(params, data) -> (n,)`` whose derivatives are computed as X'r and X'WX.

    Raises:
        TypeError: if the density is not a function, or the predictors are not a dictionary of
            predictors.
        ValueError: if there is no predictor.

    >>> import numpy as np, jax.numpy as jnp
    >>> poisson = regression(
    ...     lambda eta, row: row["y"] * eta["mu"] - jnp.exp(eta["mu"]),
    ...     eta={"mu": linear("x", "beta")},
    ... )
    >>> data = {"x": np.ones((2, 1), np.float32), "y": np.array([0.0, 2.0], np.float32)}
    >>> poisson({"beta": np.zeros(1, np.float32)}, data).tolist()
    [-1.0, -1.0]
    """
    check_function("density", density, "lambda eta, row: …")
    if not isinstance(eta, Mapping) or not all(isinstance(name, str) for name in eta):
        raise TypeError(f"eta must be a dictionary of predictors by name; got {shown(eta)}")
    if not eta:
        raise ValueError("regression needs at least one predictor")
    if response is not None and not isinstance(response, Exact | Enumeration | Simulation):
        raise TypeError(
            "response must be exact(…), enumeration(leaf, values) or simulation(sampler, "
            f"key=…); got {shown(response)}"
        )
    if counts is not None and not isinstance(counts, Mapping):
        raise TypeError(f"counts must be a dictionary from leaves to terms; got {shown(counts)}")
    for name, form in eta.items():
        if not isinstance(form, Linear | str) and not callable(form):
            raise TypeError(
                f"predictor {name!r} must be linear(x, param), a parameter name, or a function "
                f"of (params, row); got {type(form).__name__}"
            )
    if counts and not any(isinstance(form, str) for form in eta.values()):
        raise ValueError(
            "counts is for terms of constant predictors, but every predictor varies with "
            "the row: put them in density"
        )
    return Regression(
        density,
        tuple(eta),
        tuple(eta.values()),
        response,
        tuple((counts or {}).items()),
        concave=bool(check_flag("concave", concave)),
    )
