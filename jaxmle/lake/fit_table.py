"""``fit_table``: a table of whole groups in, a row for each group out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from jaxmle._types import DTypeLike, Foreign, Loglik, Tree
from jaxmle.data.frame import Frame, from_formula
from jaxmle.data.groups import GroupFits, fit_groups
from jaxmle.fitting.options import MAX_STEPS
from jaxmle.lake.request import Request, request_of
from jaxmle.lake.tables import arrow_table, as_data, column_values, refuse_absent, table_of_fits
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.jax_state import host_only
from jaxmle.solvers.methods import Solver

if TYPE_CHECKING:
    import pyarrow as pa


class Fitted(NamedTuple):
    """The fits of one table: their ``table``, the rows ``dropped`` for missing values, and how the
    columns were ``coded``, as text that is equal when the coefficients mean the same.
    """

    table: Foreign
    dropped: int
    coding: str


@with_keyword_hints
def fit_table(
    model: Loglik,
    table: Foreign,
    *,
    by: str | Sequence[str],
    formula: str | None = None,
    params0: Tree = None,
    also: Mapping[str, str] | None = None,
    missing: str = "warn",
    constraints: Tree = None,
    solver: Solver | None = None,
    vcov: str | None = "auto",
    clusters: str | None = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = MAX_STEPS,
    block_rows: int | None = None,
) -> Fit | GroupFits:
    """Maximise one log-likelihood on every group of a table: Arrow in, Arrow out.

    The unit of work of ``fit_lake``, and for your own pipelines: a pure function of its arguments,
    independent of any engine.

    Args:
        model, params0, constraints, solver, vcov, dtype, max_steps, block_rows: as in
            ``fit_groups``.
        table: a pyarrow table of n rows, a frame of polars or pandas, or a dict of columns.
        by: the column of the groups, or a list of columns.
        formula: ``"y ~ x + C(g)"``, which makes the data of ``model`` from the columns. Without
            one, numeric columns are the leaves of the data, (n,), and columns of lists of one fixed
            size q are matrices (n, q); other columns are ignored.
        also, missing: as in ``from_formula``; only with ``formula``.
        clusters: the name of a column.
        weights: ``frequency("w")`` or ``sampling("w")``, with the name of a column.

    Returns:
        A pyarrow table with one row for each group, sorted by key: the columns of ``by``, ``n``,
        ``status``, ``reason`` ('' where converged), ``loglik``, an estimate ``est:NAME`` and a
        standard error ``se:NAME`` for each of the p parameters, and ``vcov``, the covariance (p, p)
        row by row as a list of p² numbers. A key with the same name as one of these columns gets
        the prefix ``group_``.

    Raises:
        ValueError, TypeError: as ``fit_groups``; for a missing column.
        ImportError: if pyarrow is not installed.

    >>> import jaxmle as jm
    >>> table = {"y": [1.0, 2.0, 3.0, 4.0, 6.0], "site": ["b", "a", "b", "a", "a"]}
    >>> fits = jm.fit_table(jm.models.normal(), table, by="site", formula="y ~ 1")
    >>> fits.column_names[:6]
    ['site', 'n', 'status', 'reason', 'loglik', 'est:Intercept']
    >>> fits.column("site").to_pylist(), fits.column("est:Intercept").to_pylist()
    (['a', 'b'], [4.0, 2.0])
    """
    host_only("fit_table")
    request = request_of(locals())
    return fitted(model, arrow_table(table), request).table


def fitted(model: Loglik, table: pa.Table, request: Request) -> Fitted:
    """The fits of the groups of a table, as requested."""
    refuse_absent(request.named_columns(), table.column_names, "the table")
    if not table.num_rows:
        raise ValueError("the table has no rows: there is nothing to fit")
    data: pa.Table
    by: Tree = list(request.by)
    weights = None
    clusters = None
    if request.formula is not None:
        data = _frame(table, request)
    else:
        given = [name for name in request.named_columns() if name not in request.by]
        data, by = as_data(table, request.by, given)
        weights = request.weights
        if weights is not None:
            weights = replace(weights, values=column_values(table, weights.values))
        clusters = request.clusters and column_values(table, request.clusters)
    groups = fit_groups(
        model,
        request.params0,
        data,
        by=by,
        constraints=request.constraints,
        solver=request.solver,
        vcov=request.vcov,
        clusters=clusters,
        weights=weights,
        dtype=request.dtype,
        max_steps=request.max_steps,
        block_rows=request.block_rows,
        progress=False,
    )
    dropped = data.dropped if isinstance(data, Frame) else 0
    return Fitted(table_of_fits(groups, table.schema), dropped, _coding(data, groups))


def _frame(table: pa.Table, request: Request) -> Frame:
    return from_formula(
        request.formula or "",
        table,
        weights=request.weights,
        clusters=request.clusters,
        also=request.also,
        by=list(request.by),
        missing=request.missing,
    )


def _coding(data: pa.Table, groups: GroupFits) -> str:
    """The names of the parameters, and the levels of each column coded as categories."""
    facts: dict[str, Tree] = {"parameters": groups.fits.names}
    if isinstance(data, Frame):
        levels = {
            f"{column} in {leaf}" if leaf != "x" else column: known
            for leaf, design in data.designs.items()
            for column, known in design.levels.items()
        }
        facts |= {"levels": levels | dict(data.codes), "response": data.levels}
    return json.dumps(facts, default=str)
