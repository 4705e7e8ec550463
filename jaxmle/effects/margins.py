"""``margins``: average effects and adjusted predictions, with standard errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, DataFrame, Foreign, Function, FunctionTo, Loglik, Tree, ndarray
from jaxmle.data.frame import Frame
from jaxmle.data.prediction import (
    Quantity,
    Rays,
    class_names,
    limits,
    quantity_of,
    rays_of,
    ready_model,
)
from jaxmle.effects.changes import EFFECTS, Change, changes, plainly
from jaxmle.effects.record import Margins
from jaxmle.effects.replicates import at_replicates, replicates_of, spread
from jaxmle.effects.rows import Groups, Rows, groups_of, rows_at
from jaxmle.effects.source import Source, source_of
from jaxmle.inference.again import check_fit
from jaxmle.parameters.arguments import check_choice, check_function
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point, propagated
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.jax_state import host_only
from jaxmle.runtime.opaque import Opaque
from jaxmle.solvers.status import Status

TITLES = {
    "dydx": "Effects on the {what}",
    "eyex": "Elasticities of the {what}",
    "dyex": "Changes in the {what} for proportional changes",
    "eydx": "Proportional changes in the {what}",
    "prediction": "Adjusted predictions of the {what}",
}


@with_keyword_hints
def margins(
    fit: Fit,
    data: DataFrame | Frame,
    variables: Tree = None,
    *,
    effect: str = "dydx",
    kind: str | Callable[[Tree, Tree], Array] = "mean",
    at: str = "observed",
    values: Tree = None,
    by: Tree = None,
    level: float | None = None,
    value: float | None = None,
    model: Loglik | None = None,
    bootstrap: Tree = None,
) -> Margins:
    """Marginal effects or adjusted predictions, averaged over rows; with standard errors by the
    delta method from the covariance of the fit, or by a bootstrap.

    The effect of a number x is the slope ∂m/∂x of the prediction m of each row, averaged. It
    includes all terms of the formula that use x (logs, powers, interactions, splines). The effect
    of a factor or a boolean is the difference m(level) − m(base). These are the definitions of R's
    marginaleffects (Arel-Bundock, Greifer & Heiss 2024, Journal of Statistical Software 111(9)).

    Args:
        fit: one fit of ``frame.fit(model)``.
        data: the ``Frame`` of the fit; or, with a function for ``kind``, a dictionary of arrays
            (n,) or (n, q), whose columns are called ``x`` or ``x[1]``.
        variables: a name, a list of names, or a dictionary from names to a pair (low, high) to
            compare or ``"pairwise"``; None for all columns of the formula.
        effect: ``"dydx"``; ``"eyex"`` (∂m/∂x)·x/m; ``"dyex"`` (∂m/∂x)·x; ``"eydx"`` (∂m/∂x)/m;
            ``"prediction"``, m itself.
        kind: what is predicted, as in ``Frame.predict``; or a function of (params, data) that
            returns one value for each row, (n,) or (n, K).
        at: ``"observed"`` averages over the rows of the table, with the weights of the fit;
            ``"mean"`` and ``"median"`` evaluate at one row with the means or medians of numbers and
            the most frequent levels.
        values: columns set to these values in every row, ``{"age": [20, 30]}``, with one result for
            each combination.
        by: a column, or a list of columns: averages within each group.
        level, value: as ``Frame.predict``.
        model: the built-in model, if the fit does not know it.
        bootstrap: the ``jaxmle.bootstrap`` of the fit: each effect is computed for every replicate,
            and standard errors and percentile intervals come from the replicates. The averages are
            still over the rows of the table.

    Returns:
        A ``Margins``: ``names``, ``estimate``, ``stderr``, ``vcov``, a table, ``to_frame``.

    Raises:
        ValueError, TypeError: for an unknown column or level, a slope of a factor, a fit without a
            built-in model, or a batch.

    >>> import jaxmle as jm
    >>> table = {
    ...     "y": [2, 1, 4, 3, 6, 9, 3, 8],
    ...     "dose": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 4.5],
    ...     "site": ["a", "a", "b", "a", "b", "b", "b", "a"],
    ... }
    >>> frame = jm.from_formula("y ~ dose + site", table)
    >>> fit = frame.fit(jm.models.poisson())
    >>> jm.margins(fit, frame)
    Effects on the mean
    vcov = observed
    <BLANKLINE>
                 estimate  std. error     z      p  lower 95%  upper 95%
    dose           1.5519      0.5821  2.67  0.008     0.4110     2.6927
    site: b - a    0.732       1.537   0.48  0.634    -2.281      3.745
    >>> jm.margins(fit, frame, effect="prediction", values={"site": ["a", "b"]}).names
    ('site=a', 'site=b')
    """
    host_only("margins", "; inside a trace, use delta with a function of the parameters")
    check_fit("margins", fit, alone=True)
    check_choice("effect", effect, EFFECTS)
    source = source_of(data)
    quantity = _quantity(fit, kind, source, level, value, model)
    groups = groups_of(source, by, at)
    replicates = None if bootstrap is None else replicates_of(bootstrap, fit)
    recedes = _recession(fit, source, kind, model)
    pieces = [
        _evaluated(fit, quantity, rows, change, groups.weights, effect, replicates, recedes)
        for rows in rows_at(source, at, values)
        for change in changes(source, rows, variables, effect)
    ]
    what = kind if isinstance(kind, str) else getattr(kind, "__name__", "function")
    what = "relative hazard" if quantity.scale == "log" and fit.model.startswith("cox(") else what
    title = TITLES[effect].format(what="function" if what == "<lambda>" else what)
    about = "" if bootstrap is None else f"{bootstrap.kind} bootstrap"
    return _record(fit, source, groups, pieces, title, about, tests=effect != "prediction")


class _Piece(NamedTuple):
    """One effect: averages (groups, K) and their Jacobian (groups, K, p)."""

    rows: Rows
    change: Change
    value: ndarray
    jacobian: ndarray
    several: bool  # whether the prediction has classes
    draws: ndarray | None  # (R, groups, K) at the replicates of a bootstrap


def _quantity(
    fit: Fit,
    kind: Tree,
    source: Source,
    level: float | None,
    value: float | None,
    model: Loglik | None,
) -> Quantity:
    if isinstance(kind, str):
        if not isinstance(source.frame, Frame) and model is None and not fit.model:
            raise ValueError(
                "this is not a fit of a built-in model: give kind as a function, lambda "
                "params, data: …, that returns one value for each row"
            )
        return quantity_of(ready_model(fit, model, "margins", source.frame), kind, level, value)
    check_function("kind", kind, "lambda params, data: jnp.exp(data['x'] @ params['beta'])")
    return Quantity(kind, "function", "identity", Opaque(kind))


def _recession(
    fit: Fit, source: Source, kind: str | Function, model: Foreign
) -> Callable[[Tree], Rays]:
    """From the rows of an effect to the directions along which a separated fit recedes, as far as
    they are known: those of a ready model and its frame.
    """
    if not (isinstance(kind, str) and isinstance(source.frame, Frame)):
        return lambda leaves: lambda asked: None
    frame = source.frame
    ready = ready_model(fit, model, "margins")
    return lambda leaves: rays_of(fit, ready, frame, leaves)


# ---------------------------------------------------------------- one effect


def _evaluated(
    fit: Fit,
    quantity: Quantity,
    rows: Rows,
    change: Change,
    weights: ndarray,
    effect: str,
    replicates: ndarray | None,
    recedes: Callable[[Tree], Rays],
) -> _Piece:
    """The averages (groups, K) of one effect, and their Jacobian in the printed entries."""
    moved = sorted(change.direction or {})
    fixed = {name: leaf for name, leaf in change.data.items() if name not in moved}
    start = {name: change.data[name] for name in moved}
    kind = "slope" if change.direction is not None else "other" if change.other else "plain"
    key = ("margin", quantity.key, kind, effect, fit.layout, tuple(moved), weights.shape)
    layout = fit.layout

    def averages(loglik: Tree) -> FunctionTo[Array]:
        of = loglik.function if quantity.key == "function" else quantity.function
        return _averages(of, layout, kind, effect)

    def make(loglik: Tree) -> Function:
        return _with_jacobian(averages(loglik))

    column = np.zeros(0) if change.column is None else change.column
    given = (fixed, start, change.direction or {}, change.other or {}, column, weights)
    draws = None
    with precision(fit.dtype), np.errstate(all="ignore"):
        run = compiled(quantity.loglik, key, make)
        arguments = jax.tree.map(jnp.asarray, given)
        x = finite_point(fit)
        value, jacobian = map(np.asarray, run(x, *arguments))
        if fit.verdict == Status.SEPARATED:  # what leaves the estimable space is at its limit
            saturated = ~np.any(jacobian, axis=-1)  # far out, to the last digit
            outside = propagated(fit, jacobian.reshape(-1, len(x))).leaks.reshape(value.shape)
            outside = outside | saturated
            limit = limits(
                lambda x: np.asarray(run(x, *arguments)[0]),
                fit,
                _rays_of_groups(recedes, change, weights),
                outside,
            )
            value = np.where(outside, limit, value)
        if replicates is not None:
            many = compiled(
                quantity.loglik, ("replicates", *key), lambda ll: at_replicates(averages(ll))
            )
            draws = np.asarray(many(jnp.asarray(replicates, fit.dtype), *arguments))
            draws = draws.reshape(len(draws), len(weights), -1)
    several = value.ndim == 2
    jacobian = jacobian.reshape(len(weights), -1, len(x))
    return _Piece(rows, change, value.reshape(len(weights), -1), jacobian, several, draws)


def _rays_of_groups(recedes: Callable[[Tree], Rays], change: Change, weights: ndarray) -> Rays:
    """The directions of recession, for the rows of some groups: as they are, and changed."""
    there = change.other
    if change.direction is not None:
        moved = {name: change.data[name] + leaf for name, leaf in change.direction.items()}
        there = change.data | moved
    both = change.data
    if there is not None:
        both = {name: np.concatenate([leaf, there[name]]) for name, leaf in change.data.items()}
    rays = recedes(both)
    copies = 1 if there is None else 2

    def of_groups(asked: ndarray) -> ndarray | None:
        return rays(np.tile(np.any(weights[asked] > 0, axis=0), copies))

    return of_groups


def _averages(
    of: Callable[[Tree, Tree], Array], layout: Layout, kind: str, effect: str
) -> FunctionTo[Array]:
    """Averages of the effect over rows, at given parameters."""

    def averages(
        x: Array,
        fixed: Tree,
        start: Tree,
        direction: Tree,
        other: Tree,
        column: Array,
        weights: Array,
    ) -> Array:
        params = layout.unravel(x)

        def prediction(part: Tree) -> Array:
            return _one_per_row(of(params, {**fixed, **part}), weights.shape[1])

        if kind == "plain":
            return weights @ prediction(start)
        if kind == "other":
            return weights @ (_one_per_row(of(params, other), weights.shape[1]) - prediction(start))
        value, slope = jax.jvp(prediction, (start,), (direction,))
        ratio = slope / value if effect in ("eyex", "eydx") else slope
        times = column.reshape(-1, *[1] * (ratio.ndim - 1)) if effect in ("eyex", "dyex") else 1.0
        return weights @ (ratio * times)

    return averages


def _with_jacobian(averages: FunctionTo[Array]) -> Function:
    """Averages with their derivative with respect to the parameters."""

    def run(x: Array, *rest: Tree) -> tuple[Array, Array]:
        return averages(x, *rest), jax.jacfwd(averages)(x, *rest)

    return run


def _one_per_row(value: Array, rows: int) -> Array:
    if value.ndim not in (1, 2) or value.shape[0] != rows:
        raise ValueError(
            f"kind must return one value for each row, shape ({rows},), or ({rows}, K) "
            f"for classes; got {value.shape}"
        )
    return value


# ---------------------------------------------------------------- the record


def _record(
    fit: Fit,
    source: Source,
    groups: Groups,
    pieces: list[_Piece],
    title: str,
    about: str,
    tests: bool,
) -> Margins:
    rows = [row for piece in pieces for row in _labelled(piece, groups, source)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    p = len(fit.names)
    estimate = np.concatenate([piece.value.reshape(-1) for piece in pieces])
    jacobian = np.concatenate([piece.jacobian.reshape(-1, p) for piece in pieces])
    moved = propagated(fit, jacobian)
    without = fit.vcov_kind == "none"
    vcov = moved.vcov
    stderr = np.where(without, np.nan, moved.stderr)
    draws = None
    if pieces[0].draws is not None:
        parts = [np.asarray(piece.draws) for piece in pieces]
        draws = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
        vcov, stderr = spread(draws)
    stderr = np.where(stderr > 0, stderr, np.nan)
    return Margins(
        names=tuple(_name(row) for row in rows),
        labels={name: tuple(row.get(name) for row in rows) for name in columns},
        estimate=estimate,
        stderr=stderr,
        vcov=vcov,
        title=title,
        tests=tests,
        leaks=np.asarray(moved.leaks),
        vcov_kind=about or fit.vcov_kind or "none",
        backend=source.backend,
        draws=draws,
        separated=fit.verdict == Status.SEPARATED,
    )


def _labelled(piece: _Piece, groups: Groups, source: Source) -> list[dict[str, Tree]]:
    """The labels of the results of one effect: one row for each group and class."""
    change = piece.change
    named = {"variable": change.variable, "contrast": change.contrast} if change.variable else {}
    classes = class_names(piece.value.shape[1], source.classes) if piece.several else [None]
    rows = []
    for g in range(len(piece.value)):
        group = {name: labels[g] for name, labels in groups.labels.items()}
        for name in classes:
            level = {} if name is None else {"level": name}
            rows.append({**named, **piece.rows.setting, **group, **level})
    return rows


def _name(row: dict[str, Tree]) -> str:
    """The printed name of one result."""
    rest = [
        f"{name}={plainly(value)}"
        for name, value in row.items()
        if name not in ("variable", "contrast")
    ]
    if "variable" not in row:
        return ", ".join(rest) or "prediction"
    plain = row["contrast"] in EFFECTS
    head = row["variable"] if plain else f"{row['variable']}: {row['contrast']}"
    return f"{head} ({', '.join(rest)})" if rest else head
