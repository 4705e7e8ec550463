"""The rows that effects are averaged over: a formula's ``Frame``, or a dictionary of arrays that a
user's function reads, with a common interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxmle._types import DataFrame, Label, Tree, ndarray
from jaxmle.data.frame import Frame
from jaxmle.data.table import NAMES_LISTED, Column
from jaxmle.likelihood.checks import host_data
from jaxmle.parameters.arguments import shown


@dataclass(frozen=True, eq=False)
class Source:
    """Columns (n,) that can be changed, and the data made from them.

    ``predictors`` are the columns that a prediction depends on; ``labels`` additional columns for
    grouping; ``levels`` those of each factor, the base first; ``weights`` (n,) or None.
    """

    columns: dict[str, Column]
    predictors: tuple[str, ...]
    labels: dict[str, ndarray]
    levels: dict[str, tuple[Label, ...]]
    weights: ndarray | None
    classes: tuple[Label, ...] | None
    backend: str
    frame: Frame | None
    data: dict[str, ndarray]

    @property
    def rows(self) -> int:
        return len(next(iter(self.data.values())))

    def leaves(self, columns: Mapping[str, Column], rows: int) -> dict[str, ndarray]:
        """The data of changed columns; what no column changes, such as a response, only where the
        rows are those of the table.
        """
        if self.frame is None:
            changed = {name: columns[name].values for name in self.predictors}
            return self._with_matrices(changed, rows)
        leaves = self.frame.leaves({name: columns[name] for name in self.predictors}, rows)
        rest = self.data if rows == self.rows else {}
        return {**rest, **leaves}

    def _with_matrices(self, changed: dict[str, ndarray], rows: int) -> dict[str, ndarray]:
        """The dictionary with the columns of its matrices put back."""
        leaves = {}
        for name, leaf in self.data.items():
            if leaf.ndim == 1:
                leaves[name] = changed[name]
            elif leaf.ndim == 2:
                parts = [changed[f"{name}[{j}]"] for j in range(leaf.shape[1])]
                leaves[name] = np.stack(parts, axis=1)
            elif rows == self.rows:
                leaves[name] = leaf
        return leaves

    def column(self, name: Tree, what: str) -> Column:
        """The column with a name; ``what`` is for messages."""
        if not isinstance(name, str) or name not in self.columns:
            near = difflib.get_close_matches(str(name), list(self.columns), n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"they are {', '.join(list(self.columns)[:NAMES_LISTED])}"
            )
            raise ValueError(f"{what} names {name!r}, which is not a column of the fit; {hint}")
        return self.columns[name]

    def is_factor(self, name: str) -> bool:
        """Whether a column is coded as categories, or is boolean."""
        return name in self.levels


def source_of(data: DataFrame) -> Source:
    """The rows of a ``Frame``, or of a dictionary of arrays."""
    if isinstance(data, Frame):
        return _of_frame(data)
    if not isinstance(data, Mapping) or not data:
        raise TypeError(
            "margins takes the Frame of the fit, jaxmle.from_formula(…), or a dictionary of arrays "
            f"that the function reads; got {shown(data)}"
        )
    arrays = {name: np.asarray(leaf) for name, leaf in host_data(dict(data), np.float64).items()}
    columns = {}
    for name, leaf in arrays.items():
        if leaf.ndim == 1:
            columns[name] = Column(leaf, np.zeros(len(leaf), bool))
        for j in range(leaf.shape[1] if leaf.ndim == 2 else 0):
            columns[f"{name}[{j}]"] = Column(leaf[:, j], np.zeros(len(leaf), bool))
    return Source(columns, tuple(columns), {}, _truths(columns), None, None, "pandas", None, arrays)


def _of_frame(frame: Frame) -> Source:
    predictors = tuple(frame.predictors)
    levels = {name: known for d in frame.designs.values() for name, known in d.levels.items()}
    levels |= {name: codes for name, codes in frame.codes.items() if name in predictors}
    levels |= {k: v for k, v in _truths(frame.columns).items() if k in predictors}
    return Source(
        frame.columns,
        predictors,
        frame.labels,
        levels,
        None if frame.weights is None else np.asarray(frame.weights.values, dtype=float),
        frame.levels,
        frame.backend,
        frame,
        frame.data,
    )


def _truths(columns: Mapping[str, Column]) -> dict[str, tuple[Tree, ...]]:
    """The levels of boolean columns."""
    return {
        name: (False, True) for name, column in columns.items() if column.values.dtype.kind == "b"
    }
