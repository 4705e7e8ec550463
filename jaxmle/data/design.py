"""Design matrices: terms coded on the rows of a fit, and the same coding for new rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxmle._types import Foreign, Label, Tree, ndarray
from jaxmle.data.formula import ROWWISE, Terms
from jaxmle.data.table import NAMES_LISTED, Column, needed
from jaxmle.models.common.columns import collinear_columns
from jaxmle.parameters.arguments import first_line

INTERCEPT = "Intercept"


@dataclass(frozen=True, eq=False)
class Design:
    """How the columns of a table become a matrix (n, q).

    ``names`` of its columns; ``terms`` from each term to the positions of its columns; ``levels``
    of each column coded as categories; ``spec`` is formulaic's record of the coding (contrasts,
    means, knots), ``place`` the columns of its matrix that are kept.
    """

    names: tuple[str, ...]
    terms: dict[str, tuple[int, ...]]
    levels: dict[str, tuple[Label, ...]]
    columns: tuple[str, ...]
    spec: Foreign
    place: ndarray

    def apply(self, columns: Mapping[str, Column]) -> ndarray:
        """The matrix (n, q) of new rows; a row with a missing value is NaN. A level that did not
        occur in the fit is refused by name.
        """
        refuse_unseen(self.levels, columns)
        for name in self.columns:
            if columns[name].is_factor and name not in self.levels:
                raise TypeError(f"{name} holds text in the new data; in the fit it held numbers")
        rows = len(next(iter(columns.values())).values) if columns else 0
        missing = np.zeros(rows, dtype=bool)
        for name in self.columns:
            missing |= columns[name].missing
        matrix = np.full((rows, len(self.names)), np.nan)
        complete_rows = np.flatnonzero(~missing)
        if complete_rows.size:
            complete = {name: columns[name].take(complete_rows) for name in self.columns}
            coded = _formulaic(self.spec, _table(complete, self.levels, complete_rows.size))
            matrix[complete_rows] = np.asarray(coded, dtype=np.float64)[:, self.place]
        return matrix


def designed(
    terms: Terms, columns: Mapping[str, Column], rows: ndarray, intercept: bool
) -> tuple[Design, ndarray]:
    """Code the terms on complete rows.

    Args:
        columns: without missing values, (n,) each.
        rows: positions of these rows in the frame, for messages.
        intercept: False drops the constant after coding, so that factors keep their base level.

    Raises:
        ValueError: for a column that is not finite, a factor with one level, or linearly dependent
            columns.
    """
    levels = {
        name: columns[name].levels()
        for name in terms.columns
        if columns[name].is_factor or name in terms.factors
    }
    _check_kinds(terms, columns, levels)
    spec = needed("formulaic").ModelSpec(formula=terms.formula, output="numpy", na_action="ignore")
    coded = _formulaic(spec, _table(columns, levels, len(rows), terms.columns))
    spec = coded.model_spec
    labels = [_short(name, terms.short) for name in spec.column_names]
    place = np.array(
        [j for j, name in enumerate(labels) if intercept or name != INTERCEPT], dtype=int
    )
    matrix = np.ascontiguousarray(np.asarray(coded, dtype=np.float64)[:, place])
    names = tuple(labels[j] for j in place)
    _check_matrix(matrix, names, rows)
    position = {int(j): i for i, j in enumerate(place)}
    columns_of = {
        _short(str(term), terms.short): tuple(position[j] for j in indices if j in position)
        for term, indices in spec.term_indices.items()
    }
    return Design(
        names,
        {term: where for term, where in columns_of.items() if where and term != "1"},
        levels,
        terms.columns,
        spec,
        place,
    ), matrix


def _short(name: str, short: Mapping[str, str]) -> str:
    for long, brief in short.items():
        name = name.replace(long, brief)
    return name


def refuse_unseen(levels: Mapping[str, tuple[Label, ...]], columns: Mapping[str, Column]) -> None:
    """Raise for a level not seen when the formula was coded, which has no coefficient."""
    for name, known in levels.items():
        column = columns[name]
        seen = set(known)
        for row, value in enumerate(column.values.tolist()):
            if not column.missing[row] and value not in seen:
                unseen = {
                    v
                    for v, is_missing in zip(column.values.tolist(), column.missing, strict=True)
                    if not is_missing and v not in seen
                }
                others = (
                    f" (unseen in all: {', '.join(sorted(map(repr, unseen))[:NAMES_LISTED])})"
                    if len(unseen) > 1
                    else ""
                )
                listed = ", ".join(map(repr, known[:NAMES_LISTED])) + (
                    ", …" if len(known) > NAMES_LISTED else ""
                )
                raise ValueError(
                    f"{name} is {value!r} in row {row} of the new data{others}; the fit knows "
                    f"{listed}"
                )


def _table(
    columns: Mapping[str, Column],
    levels: Mapping[str, tuple[Label, ...]],
    rows: int,
    names: Tree = None,
) -> Tree:
    """The columns as a pandas frame: categories with the fitted levels, everything else floats."""
    pandas = needed("pandas")

    def values(name: str) -> Tree:
        column = columns[name]
        if column.is_factor:
            return pandas.Categorical(column.values.tolist(), categories=list(levels[name]))
        if name in levels and all(type(level) is int for level in levels[name]):
            return column.values.astype(np.int64)  # levels print as 2, not 2.0
        return column.values.astype(np.float64)

    return pandas.DataFrame(
        {name: values(name) for name in (columns if names is None else names)}, index=range(rows)
    )


def _formulaic(spec: Foreign, table: Tree) -> Foreign:
    """The matrix of a spec; formulaic sees only the table and these functions, no names of the
    caller.
    """
    with np.errstate(all="ignore"):
        try:
            return spec.get_model_matrix(table, context=dict(ROWWISE))
        except Exception as error:  # formulaic wraps errors of its transforms in its own classes
            raise ValueError(f"the formula cannot be coded: {first_line(error)}") from error


def is_fractions(levels: tuple[Label, ...]) -> bool:
    """Whether all levels are numbers as text, not all of them whole, as codes would be."""
    try:
        numbers = [float(level) for level in levels if isinstance(level, str)]
    except ValueError:  # a level that is no number
        return False
    whole = all(number == number // 1 for number in numbers)
    return len(numbers) == len(levels) > 0 and not whole


def _check_kinds(
    terms: Terms, columns: Mapping[str, Column], levels: Mapping[str, tuple[Label, ...]]
) -> None:
    for name in terms.numeric:
        if columns[name].is_factor:
            raise TypeError(f"{name!r} holds text and is used inside a numeric function")
    for name, known in levels.items():
        if name not in terms.factors and is_fractions(known):
            raise TypeError(
                f"{name} holds numbers as text, such as {known[0]!r}: convert the column to "
                f"numbers, or write C({name}) if each of them is a category"
            )
        if len(known) < 2:
            raise ValueError(
                f"{name} has {f'one level, {known[0]!r},' if known else 'no level'} in "
                "the remaining rows, so it has no contrast. Drop it from the formula"
            )


def _check_matrix(matrix: ndarray, names: tuple[str, ...], rows: ndarray) -> None:
    not_finite = np.argwhere(~np.isfinite(matrix))
    if len(not_finite):
        row, column = not_finite[0].tolist()
        raise ValueError(
            f"{names[column]} is {matrix[row, column]} in row {rows[row]} ({len(not_finite)} in "
            "all): a design must be finite"
        )
    dependent = collinear_columns(matrix, names) if names else {}
    if dependent:
        listed = "; ".join(
            f"{name} is a linear combination of {', '.join(parts)}"
            if parts
            else f"{name} is zero in every row"
            for name, parts in list(dependent.items())[:NAMES_LISTED]
        )
        more = (
            f"; and {len(dependent) - NAMES_LISTED} more" if len(dependent) > NAMES_LISTED else ""
        )
        raise ValueError(
            f"the design has {len(names)} columns and rank {len(names) - len(dependent)}: "
            f"{listed}{more}. Their coefficients are not identified: drop columns from "
            "the formula"
        )
