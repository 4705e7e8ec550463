"""``to_marginaleffects``: a fit as a model of the Python package marginaleffects."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from jaxmle._types import Array, Foreign, Label, Loglik, Slice, Tree, ndarray
from jaxmle.data.frame import Frame
from jaxmle.data.prediction import Quantity, quantity_of, ready_model
from jaxmle.data.table import Column
from jaxmle.parameters.arguments import check_choice, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, precision

if TYPE_CHECKING:
    import polars as pl

PREDICTED_KINDS = ("mean", "link")


@with_keyword_hints
def to_marginaleffects(
    fit: Fit, frame: Frame, *, kind: str = "mean", model: Loglik | None = None
) -> Foreign:
    """A fit of a formula's frame as a model for the marginaleffects package: ``slopes``,
    ``comparisons``, ``predictions``, ``datagrid``, ``hypotheses`` and its plots.

    The adapter is a subclass of the package's public ``ModelAbstract``. Its rows and its covariance
    are those of the fit, and its predictions those of jaxmle. ``jaxmle.margins`` computes the same
    effects with exact derivatives.

    Args:
        fit: one fit of ``frame.fit(model)``.
        frame: the ``Frame`` of the fit.
        kind: "mean" of the response (probabilities of classes), or "link", the linear predictor.
        model: the built-in model, if the fit does not know it.

    Raises:
        ImportError: if marginaleffects is not installed.
        TypeError: for anything but a fit and a ``Frame``.

    >>> import warnings, jaxmle as jm
    >>> table = {"y": [0, 1, 0, 1, 1, 0, 1, 1], "x": [0.1, 0.4, 0.9, 1.2, 1.9, 1.4, 2.5, 0.2]}
    >>> frame = jm.from_formula("y ~ x", table)
    >>> fit = frame.fit(jm.models.logistic())
    >>> from marginaleffects import avg_slopes
    >>> slope = avg_slopes(jm.to_marginaleffects(fit, frame))
    >>> ours = jm.margins(fit, frame, "x").to_frame(backend="polars")
    >>> bool(abs(slope["estimate"][0] - ours["estimate"][0]) < 1e-6)
    True
    """
    check_choice("kind", kind, PREDICTED_KINDS)
    if not isinstance(frame, Frame):
        raise TypeError(
            f"to_marginaleffects needs the Frame made by from_formula; got {shown(frame)}"
        )
    ready = ready_model(fit, model, "to_marginaleffects", frame)
    return _adapter()(fit, frame, quantity_of(ready, kind))


def _table_of(frame: Frame) -> pl.DataFrame:
    """The columns of the formula at the rows of the fit, a polars frame; words are enumerations in
    the order of their levels.
    """
    polars = import_module("polars")
    series = {name: _series(polars, column) for name, column in frame.columns.items()}
    return polars.DataFrame(series)


def _series(polars: ModuleType, column: Column) -> pl.Series:
    if not column.is_factor:
        whole = column.values.dtype.kind in "fiub" and np.all(
            column.values == np.floor(column.values)
        )
        return polars.Series(column.values.astype(np.int64) if whole else column.values)
    levels = [str(level) for level in column.levels()]
    return polars.Series([str(value) for value in column.values], dtype=polars.Enum(levels))


@lru_cache(maxsize=1)
def _adapter() -> type:
    """The class of the adapter, made when the package is there: its protocol is a base class."""
    try:
        classes = import_module("marginaleffects.classes")
    except ImportError as error:
        raise ImportError(
            "to_marginaleffects needs marginaleffects: pip install marginaleffects"
        ) from error

    class JaxmleModel(classes.ModelAbstract):  # type: ignore[name-defined]
        """A fit of jaxmle by the protocol of marginaleffects."""

        def __init__(self, fit: Fit, frame: Frame, quantity: Quantity) -> None:
            self.frame = frame
            self.quantity = quantity
            response = [name for name in frame.columns if name not in frame.predictors]
            vault = classes.ModelVault(
                coef=np.asarray(fit.x),
                coefnames=np.array(fit.names),
                # rows are complete and words coded already: nothing is parsed again
                formula=lambda table: (None, self.get_exog(table)),
                modeldata=_table_of(frame),
                package="jaxmle",
                variable_names=[*response[:1], *frame.predictors],
            )
            super().__init__(fit, vault)

        def validation(self) -> None:
            """What the package finds out about a table, known already: release 0.6.0 asks polars
            whether decimals are among integers, which polars 2 refuses.
            """
            self.validate_coef()
            self.validate_response_name()
            self.vault.variables_type = {
                series.name: _type_of(series) for series in self.vault.modeldata
            }

        def get_vcov(self, vcov: object = True) -> ndarray | None:
            if isinstance(vcov, str):
                raise ValueError(
                    f"fit with vcov={vcov!r}, and leave vcov=True here: the covariance is "
                    "taken from the fit"
                )
            return np.asarray(self.model.vcov) if vcov else None

        def get_exog(self, newdata: pl.DataFrame) -> _Rows:
            return _Rows(self.frame.recode(newdata), newdata.height)

        def get_predict(self, params: ndarray, newdata: _Rows) -> pl.DataFrame:
            values = _values(self.model, self.quantity, np.asarray(params), newdata.leaves)
            return _predictions(values, self.frame.levels)

    return JaxmleModel


def _type_of(series: pl.Series) -> str:
    """The type of a column in the words of marginaleffects."""
    if not series.dtype.is_numeric():
        return "character"
    if set(series.unique().to_list()) <= {0, 1}:
        return "binary"
    return "integer" if series.dtype.is_integer() else "numeric"


class _Rows:
    """Coded rows, with what the package asks of a matrix: its shape, and slices of its rows."""

    def __init__(self, leaves: dict[str, ndarray], rows: int) -> None:
        self.leaves = leaves
        self.shape = (rows,)

    def __getitem__(self, rows: Slice) -> _Rows:
        return _Rows(
            {name: leaf[rows] for name, leaf in self.leaves.items()},
            len(range(self.shape[0])[rows]),
        )


def _predictions(values: ndarray, levels: tuple[Label, ...] | None) -> pl.DataFrame:
    """Values (n,) or (n, K) as the package has predictions: a row each, one class after another."""
    polars = import_module("polars")
    if values.ndim == 1:
        return polars.DataFrame({"rowid": _whole(len(values)), "estimate": values})
    rows, classes = values.shape
    names = levels or range(classes)
    return polars.DataFrame(
        {
            "rowid": np.tile(_whole(rows), classes),
            "group": [str(name) for name in names for _ in range(rows)],
            "estimate": values.T.ravel(),
        }
    )


def _whole(rows: int) -> ndarray:
    return np.arange(rows, dtype=np.int32)


def _values(fit: Fit, quantity: Quantity, x: ndarray, leaves: Tree) -> ndarray:
    """The quantity of each row at coefficients x (p,)."""
    layout = fit.layout

    def make(held: Tree) -> Tree:
        def values_at(x: Array, leaves: Tree) -> Array:
            return quantity.function(layout.unravel(x), leaves)

        return values_at

    with precision(np.float64):
        run = compiled(quantity.loglik, ("marginaleffects", quantity.key, layout), make)
        return np.asarray(run(x, leaves))
