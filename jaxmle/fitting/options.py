"""The input of every fit: the options that a user gives, checked once; and the likelihood, start
and data, read into one record.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import (
    Array,
    Clusters,
    Data,
    DType,
    DTypeLike,
    Foreign,
    Loglik,
    Params,
    PathLike,
    Tree,
)
from jaxmle.likelihood.checks import (
    check_coding,
    check_fixed,
    check_start,
    check_values,
    check_weight_shapes,
    host_data,
    host_params,
    traced_data,
)
from jaxmle.likelihood.combinators import Penalize, Weights, weight
from jaxmle.likelihood.contract import as_tree, check_read, data_length, rows_of
from jaxmle.likelihood.information.covariance import LEVERAGED, Kind, check_kind, check_order
from jaxmle.likelihood.information.hac import hac
from jaxmle.likelihood.structure import (
    chart_of,
    has,
    has_law,
    jeffreys_of,
    substituted,
    weighting_of,
)
from jaxmle.likelihood.terms import NO_LAW
from jaxmle.parameters.arguments import check_count, check_flag, shown
from jaxmle.parameters.frames import check_row_labels
from jaxmle.parameters.held_functions import with_held_functions
from jaxmle.parameters.tree import Chart, Layout, layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import tracing
from jaxmle.runtime.shards import refuse_explicit_rows, refuse_shards
from jaxmle.solvers.methods import Solver

# evaluations of the likelihood that a fit may take: the longest ascent among NIST's regressions
# takes 2 500 (MGH10, from its first start)
MAX_STEPS = 3000


@dataclass(frozen=True, eq=False)
class Options:
    """The options of a fit: all arguments but the likelihood, the start and the data.

    The fields mean what the arguments of ``fit`` mean. All that can be judged without the data is
    checked when the record is made; counts are Python integers afterwards, and ``dtype`` is None or
    a NumPy dtype.

    >>> Options(max_steps=np.int64(10), dtype="float32").dtype
    dtype('float32')
    """

    constraints: Tree = None
    solver: Solver | None = None
    vcov: Kind | None = "auto"
    clusters: Clusters = None
    weights: Weights | None = None
    dtype: DTypeLike = None
    max_steps: int = MAX_STEPS
    block_rows: int | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        check_kind(self.vcov, self.clusters)
        check_flag("progress", self.progress, may_be_none=True)
        object.__setattr__(self, "max_steps", check_count("max_steps", self.max_steps))
        if self.block_rows is not None:
            object.__setattr__(self, "block_rows", check_count("block_rows", self.block_rows, 1))
        if self.dtype is not None:
            object.__setattr__(self, "dtype", _checked_dtype(self.dtype))

    @property
    def host_dtype(self) -> DType:
        """The precision of a fit on the host: float64 unless another is given."""
        return np.dtype(np.float64) if self.dtype is None else np.dtype(self.dtype)

    @property
    def traced_dtype(self) -> DType:
        """The precision of a fit under a trace: that of the trace unless another is given."""
        default = jnp.zeros(()).dtype
        if self.dtype == np.float64 and default != np.float64:
            raise ValueError(
                "dtype='float64' inside a trace needs float64 enabled around it: with "
                "jax.enable_x64(True): …"
            )
        return default if self.dtype is None else np.dtype(self.dtype)


def _checked_dtype(dtype: object) -> DType:
    try:
        named: DType | None = np.dtype(dtype) if isinstance(dtype, str | type | np.dtype) else None
    except TypeError:  # no name of a dtype: refused below
        named = None
    if named is None or named not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"dtype must be float64 or float32; got {shown(dtype)}")
    return named


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem as it was read: a likelihood, a start and data that fit together."""

    loglik: Loglik  # the likelihood as a tree, with its weights
    chart: Chart
    params: Params  # the start
    data: Data
    rows: int | None  # how many terms the data suggest; None where there are no data
    dtype: DType
    given: Data  # the data as they were given

    @property
    def layout(self) -> Layout:
        return self.chart.layout

    @property
    def base(self) -> Array:
        """The entries (p,) of the start, with the values that ``fix`` and ``tie`` put in."""
        xp = jnp if tracing() else np
        x = self.layout.ravel(self.params)
        return xp.asarray(substituted(self.loglik, self.layout, x))


def read(
    loglik: Loglik, params0: Params, data: Data, options: Options, may_be_empty: bool = False
) -> Posed:
    """Read what a user gives to a fit of one data set, and refuse what cannot be fitted.

    On the host arguments are checked by value and converted to NumPy arrays in the precision of the
    fit. Under a trace they are checked by shape and type, and converted to the precision of the
    trace.

    Args:
        loglik: a log-likelihood, in any form that ``fit`` takes.
        params0: start values; None for a model with a method ``start(data)``.
        data: the data.
        options: constraints, weights and dtype are read.
        may_be_empty: whether, on the host, every parameter may be fixed.

    Raises:
        ValueError, TypeError: as ``fit``.
    """
    weighted = loglik if options.weights is None else weight(loglik, options.weights)
    tree = as_tree(weighted)
    check_read(loglik, data)
    check_row_labels(data=data, clusters=options.clusters)
    if params0 is None:
        params0 = _model_start(loglik, data)
    elif hasattr(loglik, "outcome") and hasattr(loglik, "start"):
        if data is None:
            raise ValueError(
                f"{loglik!r} needs data, and none were given. The second argument is the "
                "start values: write fit(model, data=data)"
            )
        if hasattr(params0, "shape"):
            raise TypeError(
                f"the parameters of {loglik!r} are a dictionary; got {shown(params0)} as start "
                "values. Data go in as a dictionary too: write fit(model, data=data), with "
                "data = {'x': x, 'y': y}"
            )
    constraints = constraints_of(loglik, options.constraints)
    if tracing():
        return _read_shapes(tree, params0, data, constraints, options.traced_dtype)
    return _read_values(tree, params0, data, constraints, options.host_dtype, may_be_empty)


def constraints_of(loglik: Loglik, constraints: Tree) -> Tree:
    """The constraints that were given, or else those that a built-in model brings."""
    return getattr(loglik, "constraints", None) if constraints is None else constraints


def check_has_start(loglik: Loglik, name: str = "params0", what: str = "start values") -> None:
    """Refuse a likelihood that needs start values and was given none.

    Args:
        name: the argument that is missing.
        what: what that argument takes.
    """
    if not hasattr(loglik, "start"):
        raise ValueError(
            f"{name} is missing: give {what}, such as {{'beta': jnp.zeros(3), 'sigma': "
            "1.0}; only a model with a method start(data), such as models.poisson(), "
            "works without them"
        )


def _model_start(loglik: Foreign, data: Data) -> Params:
    """The start values that a built-in model proposes for these data."""
    check_has_start(loglik)
    rows = data if tracing() else host_data(data, np.float64, nan=True)
    if isinstance(rows, dict) or hasattr(rows, "ndim"):
        data_length(rows)
        _check_response(loglik, rows)
        check_coding(loglik, rows)  # the model itself refuses data of another form
    return loglik.start(rows)


def _check_response(loglik: Loglik, rows: Tree) -> None:
    """Refuse a response that is not one number for each row."""
    name = getattr(loglik, "outcome", None)
    y, x = (rows.get(leaf) if isinstance(rows, dict) else None for leaf in (name, "x"))
    if x is not None and y is not None and np.ndim(x) == 2 and np.ndim(y) > 1:
        raise ValueError(
            f"data[{name!r}] has shape {np.shape(y)}; a response must be one number for "
            f"each row, ({np.shape(x)[0]},): write a column as y[:, 0]"
        )


def _read_values(
    loglik: Loglik,
    params0: Params,
    data: Data,
    constraints: Tree,
    dtype: DType,
    may_be_empty: bool,
) -> Posed:
    """The input of a fit on the host, checked by value."""
    params = host_params(params0, dtype)
    layout = layout_of(params, constraints)
    check_start(layout, params)
    given = data
    data = host_data(given, dtype)
    rows = rows_of(loglik, data)
    check_fixed(loglik, layout, params, data)
    check_values(loglik, data)
    chart = chart_of(loglik, layout, may_be_empty)
    return Posed(loglik, chart, params, data, rows, dtype, given)


def _read_shapes(
    loglik: Loglik, params0: Params, data: Data, constraints: Tree, dtype: DType
) -> Posed:
    """The input of a fit under a trace, checked by shape and type."""
    refuse_shards()
    params0 = with_held_functions(params0)
    refuse_explicit_rows(data)
    _refuse_non_real(params0)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), params0)
    check_coding(loglik, data)
    given = data
    data = traced_data(given, dtype)
    layout = layout_of(params, constraints)
    rows = rows_of(loglik, data)
    check_weight_shapes(loglik, data)
    return Posed(loglik, chart_of(loglik, layout), params, data, rows, dtype, given)


def _refuse_non_real(params: Params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        kind = jnp.result_type(leaf)
        if not jnp.issubdtype(kind, jnp.floating) and not jnp.issubdtype(kind, jnp.integer):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {kind}; parameters must be "
                "floating-point numbers or integers"
            )


# ---------------------------------------------------------------- the covariance


def covariance_of(
    loglik: Loglik, chart: Chart, solver: Solver, options: Options
) -> tuple[Kind | None, str, str | None]:
    """The kind of covariance that ``options`` ask of this likelihood, the mode of estimation, and
    the label of the covariance in tables.

    Raises:
        ValueError: where the likelihood does not have it.
    """
    if jeffreys_of(loglik) is not None:
        return _covariance_under_jeffreys(loglik, options, chart)
    weighting = weighting_of(loglik)
    kind = options.vcov
    if (kind == "expected" or solver.curvature == "expected") and not has_law(loglik):
        raise ValueError(NO_LAW)
    if kind == "auto":
        plain = "HC0" if weighting == "sampling" else "observed"
        kind = plain if options.clusters is None else "CR1"
    if kind == "cluster":
        kind = "CR1"
    elif kind == "hac":
        kind = hac()
    check_order(kind, weighting)
    label = None if kind is None else str(kind)
    if kind in LEVERAGED and not has_law(loglik):
        label = f"{kind} (observed leverage)"
    return kind, "MAP" if has(loglik, Penalize) else "ML", label


def _covariance_under_jeffreys(
    loglik: Loglik, options: Options, chart: Chart
) -> tuple[Kind | None, str, str | None]:
    """Kind, mode and label under Jeffreys's prior, where the covariance is the inverse of the
    unpenalised information that the prior is made of.
    """
    information = jeffreys_of(loglik).information
    if information == "expected" and not has_law(loglik):
        raise ValueError(
            f"jeffreys: {NO_LAW}; or use the observed information instead, "
            "jeffreys(loglik, information='observed')"
        )
    if options.vcov not in ("auto", information, None) or options.clusters is not None:
        got = repr(options.vcov) if options.clusters is None else "clusters"
        raise ValueError(
            "after jeffreys the covariance is the inverse of the unpenalised "
            f"information, vcov='auto'; got {got}. For another kind at the estimate use "
            "fit.with_vcov(jaxmle.vcov(loglik, kind)(fit.params, data))"
        )
    if weighting_of(loglik) == "sampling":
        raise ValueError(
            "jeffreys needs the information of a likelihood, and a sum with sampling "
            "weights is not a likelihood; use frequency weights"
        )
    if chart.k != len(chart.moving):
        raise ValueError(
            "jeffreys needs every entry to be a free parameter: it cannot be used with a "
            "simplex, correlation or covariance constraint"
        )
    variant = "" if information == "expected" else ", observed information"
    mode = f"MPL (Jeffreys{variant})"
    if options.vcov is None:
        return None, mode, None
    return "expected", mode, f"{information} (unpenalised)"


# ---------------------------------------------------------------- rows that are not in memory


@runtime_checkable
class RowSource(Protocol):
    """Rows that are read again for each pass of a fit, such as ``parquet(…)``."""

    def fit(
        self,
        loglik: Loglik,
        params0: Tree,
        options: Options,
        engine: Executor | None,
        checkpoint: PathLike | None,
    ) -> Fit:
        """The fit of a log-likelihood to these rows."""
        ...


def check_source(source: object, data: Tree) -> None:
    """Refuse a source that is none, and data beside a source."""
    if isinstance(source, type) or not isinstance(source, RowSource):
        raise TypeError(
            "source must be rows on disk, such as jaxmle.parquet('sales', {'x': ['price', 'age'], "
            f"'y': 'sold'}}); got {shown(source)}"
        )
    if data is not None:
        raise ValueError("give data or source, not both: data are rows in memory, source is files")


def refuse_without_source(engine: Executor | None, checkpoint: object) -> None:
    """Refuse an engine or a checkpoint without a source: they belong to a fit that reads its rows
    in each pass.
    """
    arguments = {"engine": engine, "checkpoint": checkpoint}
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(
            f"{' and '.join(given)} is only for fits of files, fit(loglik, "
            "source=parquet(…)): leave it out for data in memory"
        )
