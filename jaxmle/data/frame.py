"""``from_formula``: from a frame and a formula to arrays with names, and an account of the dropped
rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from jaxmle._types import (
    Clusters,
    DataFrame,
    DTypeLike,
    Foreign,
    Label,
    Loglik,
    Tree,
    ndarray,
)
from jaxmle.data.design import Design, designed, refuse_unseen
from jaxmle.data.formula import columns_in, parse
from jaxmle.data.leaves import (
    blank_column,
    check_model,
    check_outcome,
    check_parameters,
    codes_of,
    finite_column,
    listed,
    offset_of,
    whole_codes,
)
from jaxmle.data.lost import lost_groups, plain
from jaxmle.data.naming import designs_of, placed, renamed
from jaxmle.data.plan import Plan, plan_of
from jaxmle.data.prediction import predicted, quantity_of, rays_of, ready_model, with_rows
from jaxmle.data.response import leaves_of
from jaxmle.data.rows import (
    MISSING_POLICIES,
    arrays_of,
    complete_rows,
    given_of,
    one_or_all,
    settle,
    weights_of,
)
from jaxmle.data.table import NAMES_LISTED, Column, backend_of, columns_of
from jaxmle.fitting.fit import fit_with
from jaxmle.fitting.options import MAX_STEPS, Options
from jaxmle.likelihood.combinators import Weights
from jaxmle.parameters.arguments import check_choice, check_flag, shown
from jaxmle.parameters.frames import check_row_labels
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import layout_of
from jaxmle.record.fit import Fit
from jaxmle.record.witness import renumbered
from jaxmle.solvers.methods import Solver
from jaxmle.tables.frame import native


@dataclass(frozen=True, eq=False, repr=False)
class Frame:
    """A table coded by a formula: the data that a model takes, with the names of its columns.

    ``data``: a dict of arrays that share the leading axis n: the design ``x`` (n, q), the response
    (``y``; ``time``, ``event``; ``trials``), ``offset``, and the leaves named in ``also``.
    ``names``: the columns of ``x``; ``levels``: those of a categorical response, coded 0, 1, …;
    ``rows``: the position of each row in the table; ``total``: the number of rows of the table;
    ``missing``: from a column to its number of missing values; ``weights`` and ``clusters`` of the
    kept rows; ``labels``: from a name in ``by`` to its column; ``codes``: from a text column in
    ``also`` to its levels. ``designs`` holds the coding of each design; ``lost``, like ``labels``,
    the groups without any kept row. ``columns`` are the columns of the table that were used, at the
    kept rows; ``backend`` is the kind of the table, "pandas", "polars", "pyarrow" or "dict", and of
    the frames made from this one.

    >>> import jaxmle as jm
    >>> table = {"y": [1.0, 2.0, 4.0, 8.0], "x": [0.0, 1.0, 2.0, None], "g": ["a", "b", "b", "a"]}
    >>> frame = jm.from_formula("y ~ x + C(g)", table, missing="drop")
    >>> frame.names, frame.n, frame.rows.tolist()
    (('Intercept', 'x', 'C(g)[T.b]'), 3, [0, 1, 2])
    >>> frame.account
    '1 of 4 rows dropped for missing values (x 1)'
    """

    formula: str
    data: dict[str, ndarray]
    levels: tuple[Label, ...] | None
    rows: ndarray
    total: int
    missing: dict[str, int]
    weights: Weights | None
    clusters: Clusters
    labels: dict[str, ndarray]
    designs: dict[str, Design]
    offsets: tuple[str, ...]
    also: dict[str, str]
    codes: dict[str, tuple[Label, ...]]
    lost: dict[str, ndarray] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    backend: str = "dict"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns of ``data["x"]``, (q,)."""
        return self.designs["x"].names

    @property
    def n(self) -> int:
        """The number of rows kept."""
        return len(self.rows)

    @property
    def dropped(self) -> int:
        """The number of rows dropped because of a missing value."""
        return self.total - self.n

    @property
    def terms(self) -> dict[str, list[str]]:
        """A dictionary from each term of the formula to its coefficients, for ``joint_tests(fit,
        frame.terms)``.
        """
        return {
            term: [f"beta[{j}]" for j in where] for term, where in self.designs["x"].terms.items()
        }

    @property
    def account(self) -> str:
        """A sentence that says what was dropped; '' if nothing was."""
        if not self.dropped:
            return ""
        by_column = ", ".join(
            f"{name} {count}" for name, count in list(self.missing.items())[:NAMES_LISTED]
        )
        return (
            f"{self.dropped:,} of {self.total:,} rows dropped for missing values "
            f"({by_column}{', …' if len(self.missing) > NAMES_LISTED else ''})"
        )

    def __repr__(self) -> str:
        shapes = [
            f"  {name:<8} {leaf.shape}  {self._leaf_label(name)}".rstrip()
            for name, leaf in self.data.items()
        ]
        extra = [f"  weights  {self.weights.kind}"] if self.weights is not None else []
        extra += (
            [f"  clusters {' × '.join(str(len(set(c.tolist()))) for c in listed(self.clusters))}"]
            if self.clusters is not None
            else []
        )
        rows = f"{self.n:,} rows" if not self.dropped else self.account
        return "\n".join([f"{self.formula}: {rows}", *shapes, *extra])

    def _leaf_label(self, leaf: str) -> str:
        if leaf in self.designs:
            names = self.designs[leaf].names
            return ", ".join(names[:NAMES_LISTED]) + (", …" if len(names) > NAMES_LISTED else "")
        if leaf == "y" and self.levels is not None:
            return ", ".join(
                f"{code} = {level}" for code, level in list(enumerate(self.levels))[:NAMES_LISTED]
            )
        return " + ".join(self.offsets) if leaf == "offset" else ""

    # ------------------------------------------------------------ fitting

    @with_keyword_hints
    def fit(
        self,
        model: Loglik,
        params0: Tree = None,
        *,
        constraints: Tree = None,
        solver: Solver | None = None,
        vcov: str | None = "auto",
        dtype: DTypeLike = None,
        max_steps: int = MAX_STEPS,
        block_rows: int | None = None,
    ) -> Fit:
        """Fit a model, or a log-likelihood with start values, to these rows; see ``jaxmle.fit``.

        Returns:
            A ``Fit`` with readable names. Row numbers in messages are those of the table; weights
            and clusters are those of the frame.

        Raises:
            ValueError: if the model does not use a leaf that the formula makes, such as an offset;
                and as ``jaxmle.fit``.
        """
        options = Options(
            constraints=constraints,
            solver=solver,
            vcov=vcov,
            clusters=self.clusters,
            weights=self.weights,
            dtype=dtype,
            max_steps=max_steps,
            block_rows=block_rows,
        )
        return self.fit_with(model, params0, options)

    def given(self, weights: Weights | None, clusters: Clusters) -> tuple[Weights | None, Tree]:
        """The weights and clusters of these rows; raises if others are passed."""
        if weights is not None or clusters is not None:
            raise ValueError(
                "a Frame already has its weights and clusters: give them when you make "
                "it, jaxmle.from_formula(…, weights=…, clusters=…)"
            )
        return self.weights, self.clusters

    def fit_with(self, model: Loglik, params0: Tree, options: Options) -> Fit:
        """``fit`` with its options as one record: what ``jaxmle.fit(model, data=frame)`` calls."""
        propose: Foreign = getattr(model, "start", None)
        if params0 is None and propose is not None:
            check_outcome(model, self)
            params0 = propose(self.data)
        check_parameters(model, params0, self)
        if params0 is not None:  # names in fix and tie, before there is a fit that knows them
            columns = {leaf: design.names for leaf, design in self.designs.items()}
            model = placed(model, layout_of(params0), columns, self.levels)
        self.check(model, params0)
        fitted = fit_with(model, params0, self.data, options)
        return self.named(self._in_table(fitted), model)

    def named(self, fitted: Fit, model: Loglik) -> Fit:
        """A fit of ``model`` to this frame's ``data``, or a batch of them, with readable names:
        ``age`` for ``beta[1]``.

        The fit knows every spelling: a function that takes the name of a parameter accepts
        ``age``, ``beta[age]``, ``beta[1]`` and ``beta``.
        """
        return renamed(
            fitted,
            designs_of(model, tuple(self.designs)),
            {leaf: design.names for leaf, design in self.designs.items()},
            self.levels,
        )

    def check(self, model: Loglik, params0: Tree) -> None:
        """Raise if the model would ignore part of the formula, or cannot have its constant."""
        check_model(model, params0, self)

    def _in_table(self, fitted: Fit) -> Fit:
        """The fit with the row numbers of its witness counted in the whole table."""
        last = self.n - 1
        witness = renumbered(fitted.witness, lambda row: self.rows[np.minimum(row, last)])
        return replace(fitted, witness=witness)

    # ------------------------------------------------------------ new rows

    def recode(self, new: DataFrame) -> dict[str, ndarray]:
        """The leaves that a prediction needs for new rows, in the same coding; NaN where a value is
        missing.

        Args:
            new: a frame or a dict of arrays with the columns of the terms and offsets. A response
                is not needed; binomial predictions are for one trial per row.

        Raises:
            ValueError: if a column is missing, or a level did not occur in the fit.
        """
        return self.leaves(*columns_of(new, self.predictors))

    @property
    def predictors(self) -> list[str]:
        """The columns of the table that terms, offsets and ``also`` read."""
        names = [name for design in self.designs.values() for name in design.columns]
        names += [name for text in self.offsets for name in columns_in(parse(text))]
        return list(dict.fromkeys([*names, *self.also.values()]))

    def leaves(self, columns: Mapping[str, Column], rows: int) -> dict[str, ndarray]:
        """``recode`` for columns that have already been read; ``rows`` is their length."""
        refuse_unseen(self.codes, columns)
        leaves = {
            leaf: design.apply(
                {name: columns[name] for name in design.columns} or {"": blank_column(rows)}
            )
            for leaf, design in self.designs.items()
        }
        if self.offsets:
            leaves["offset"] = offset_of(self.offsets, columns, np.arange(rows))
        if "trials" in self.data:
            leaves["trials"] = np.ones(rows)
        for leaf, name in self.also.items():
            leaves[leaf] = (
                whole_codes(codes_of(columns[name], self.codes[name]))
                if name in self.codes
                else np.where(columns[name].missing, np.nan, columns[name].values)
            )
        return leaves

    @with_keyword_hints
    def predict(
        self,
        fitted: Fit,
        new: DataFrame = None,
        *,
        kind: str = "mean",
        level: float | None = None,
        value: float | None = None,
        interval: float | None = 0.95,
        model: Loglik | None = None,
    ) -> Tree:
        """Predictions with standard errors and intervals, one row for each row of ``new``.

        Standard errors are by the delta method. An interval is symmetric on the link scale, so that
        a mean stays positive and a probability between 0 and 1. It is an interval for the predicted
        quantity, not for a future response; for that use two predicted quantiles.

        Args:
            fitted: one fit of ``frame.fit(model)``.
            new: a frame, or a dict of arrays, with the columns of the terms and offsets; None for
                the rows of the fit. Binomial predictions are for one trial per row.
            kind: ``"mean"`` of the response (class probabilities for a categorical response, the
                relative hazard e^{xβ} for a Cox model); ``"link"``, the linear predictor with its
                offset; ``"quantile"``, with ``level``; ``"probability"`` of each class or of a 1,
                or, with ``value``, that the response is at most that value.
            level: the level of the quantile, between 0 and 1.
            value: the value for ``kind="probability"``.
            interval: coverage of the interval; None for no interval.
            model: the built-in model, if the fit does not know it (``fitted.model`` is "").

        Returns:
            A frame of the same kind as ``new`` (or as the table), or a dict of arrays for a dict:
            row, level for a categorical response, estimate, std_error, conf_low, conf_high. A row
            with a missing value is NaN. If the data are separated, a prediction that depends on
            infinite estimates is its limit, such as a probability of 1, without an interval, or NaN
            if there is no limit; the last column, reason, marks these rows.

        Raises:
            ValueError, TypeError: as ``recode``; for a fit without a built-in model, a batch, or a
                quantity that the model does not have.

        >>> import jaxmle as jm
        >>> table = {"sick": [3, 5, 2, 9], "site": ["a", "a", "b", "b"]}
        >>> frame = jm.from_formula("sick ~ site", table)
        >>> fit = frame.fit(jm.models.poisson())
        >>> found = frame.predict(fit, {"site": ["b"]})
        >>> [found[name].round(3).tolist() for name in ("estimate", "conf_low", "conf_high")]
        [[5.5], [3.046], [9.931]]
        """
        ready = ready_model(fitted, model, "predict", self)
        quantity = quantity_of(ready, kind, level, value)
        leaves = self.data if new is None else self.recode(new)
        if "trials" in leaves:
            leaves = {**leaves, "trials": np.ones_like(leaves["trials"])}
        rows = self.rows if new is None else np.arange(len(next(iter(leaves.values()))))
        rays = rays_of(fitted, ready, self, leaves)
        columns = with_rows(predicted(fitted, quantity, leaves, interval, rays), rows, self.levels)
        return native(columns, self.backend if new is None else backend_of(new))


@with_keyword_hints
def from_formula(
    formula: str,
    data: DataFrame,
    *,
    weights: Weights | None = None,
    clusters: Clusters = None,
    also: Mapping[str, str] | None = None,
    by: str | Sequence[str] = (),
    intercept: bool = True,
    missing: str = "warn",
) -> Frame:
    """Code a table by a formula: designs, response, offset, weights and clusters, with names.

    Terms follow R: ``x + C(g) + x:g + a*b + (a + b)**2 - 1``. Text columns are factors; ``C(year)``
    makes a factor of numbers, and ``C(g, Treatment(reference="b"))`` sets its base level.
    Functions: log, exp, sqrt and the like, ``I(x**2)``, poly, bs, cr, cc, center, scale; new rows
    are coded with the constants (knots, means) of the fit. ``offset(log(years))`` becomes the leaf
    ``offset``. Other Python is refused.

    Args:
        formula: ``"y ~ …"``. A text response, or ``C(y)``, is categorical, coded 0, 1, … in the
            order of its levels. An ordered category keeps levels without rows, with a warning.
            ``Surv(time, event)`` and ``Surv(start, stop, event)`` give ``time``, ``event`` and
            ``entry``; ``cbind(successes, failures)`` gives ``y`` and ``trials``.
        data: a pandas, polars or pyarrow frame, or a dict of arrays (n,).
        weights: ``frequency("w")`` or ``sampling("w")``, the name of a column or an array (n,).
        clusters: the name of a column, a pair of names for two-way clusters, or arrays (n,).
        also: additional leaves: a formula for a second design, ``{"z": "~ w"}``, or a column,
            ``{"exposure": "years"}``; text becomes integer codes.
        by: names of columns to keep as ``labels``, such as the keys of groups.
        intercept: False drops the constant after coding, for ``cox`` and ``ordinal``.
        missing: what to do with rows that have a missing value in a used column: ``"warn"`` drops
            them with a warning, ``"drop"`` without one, ``"refuse"`` raises. They are counted by
            column in any case.

    Returns:
        A ``Frame``.

    Raises:
        ValueError, TypeError: for an invalid formula, a column that is missing or not finite,
            linearly dependent columns of the design, or no remaining rows.
        ImportError: if formulaic is not installed.

    >>> import jaxmle as jm
    >>> from jaxmle.data.frame import from_formula
    >>> table = {"sick": [3, 5, 2, 9], "years": [1.0, 2.0, 1.0, 2.0], "site": ["a", "a", "b", "b"]}
    >>> frame = from_formula("sick ~ site + offset(log(years))", table)
    >>> frame
    sick ~ site + offset(log(years)): 4 rows
      x        (4, 2)  Intercept, site[T.b]
      y        (4,)
      offset   (4,)  log(years)
    >>> from jaxmle.models import poisson
    >>> model = poisson(offset="offset")
    >>> fit = frame.fit(model)
    >>> fit.names, fit.x.round(4).tolist()
    (('Intercept', 'site[b]'), [0.9808, 0.3185])
    >>> frame.predict(fit, {"site": ["b"], "years": [10.0]})["estimate"].round(4).tolist()
    [36.6667]
    """
    check_choice("missing", missing, MISSING_POLICIES)
    if also is not None and not isinstance(also, Mapping):
        raise TypeError(
            "also must be a dictionary from names of leaves to a formula '~ w' or a "
            f"column; got {shown(also)}"
        )
    by = [by] if isinstance(by, str) else by
    if not isinstance(by, list | tuple) or not all(isinstance(name, str) for name in by):
        raise TypeError(f"by must be the name of a column, or a list of names; got {shown(by)}")
    check_flag("intercept", intercept)
    plan = plan_of(
        formula,
        also or {},
        given_of(weights, clusters),
        None if weights is None else weights.kind,
        list(by),
        intercept,
    )
    check_row_labels(data=data, clusters=clusters)
    _check_sides(plan)
    columns, total = columns_of(data, plan.wanted)
    columns |= arrays_of(plan.given, total)
    counts, rows = complete_rows(columns, total)
    settle(missing, counts, total, len(rows))
    frame = _coded(plan, {name: column.take(rows) for name, column in columns.items()}, rows)
    lost = lost_groups(columns, plan.keys, rows) if plan.keys and len(rows) < total else {}
    return replace(frame, total=total, missing=counts, lost=lost, backend=backend_of(data))


def _check_sides(plan: Plan) -> None:
    """Raise for a response that is among its own predictors: one column, or a time with its event.
    What is computed from several columns, such as ``y - before``, may have them on both sides.
    """
    response = plan.response
    parts = {} if response is None else response.parts
    if response is None or "successes" in parts or len(response.columns) > len(parts):
        return
    for terms in plan.terms.values():
        for name in set(response.columns) & set(terms.columns) - {parts.get("entry")}:
            raise ValueError(
                f"{plan.formula!r} has {name!r} on both sides of '~': the response cannot be its "
                "own predictor"
            )


def _coded(plan: Plan, columns: Mapping[str, Column], rows: ndarray) -> Frame:
    """The ``Frame`` of complete rows; ``rows`` are their positions in the table."""
    leaves, levels = leaves_of(plan.response, columns, rows) if plan.response else ({}, None)
    built = {
        leaf: designed(part, columns, rows, plan.intercept or leaf != "x")
        for leaf, part in plan.terms.items()
    }
    data = {leaf: matrix for leaf, (_, matrix) in built.items()} | leaves
    offsets = plan.terms["x"].offsets
    if offsets:
        data["offset"] = offset_of(offsets, columns, rows)
    codes = {
        name: columns[name].levels() for name in plan.plain.values() if columns[name].is_factor
    }
    data |= {
        leaf: codes_of(columns[name], codes[name]).astype(np.int64)
        if name in codes
        else finite_column(columns[name], name, rows)
        for leaf, name in plan.plain.items()
    }
    groups = tuple(
        plain(columns[plan.role(name)].values) for name in plan.given if name != "weights"
    )
    return Frame(
        formula=plan.formula,
        data=data,
        levels=levels,
        rows=rows,
        total=len(rows),
        missing={},
        weights=weights_of(plan, columns),
        clusters=one_or_all(groups),
        labels={name: plain(columns[name].values) for name in plan.keys},
        designs={leaf: design for leaf, (design, _) in built.items()},
        offsets=offsets,
        also=plan.plain,
        codes=codes,
        columns=dict(columns),
    )
