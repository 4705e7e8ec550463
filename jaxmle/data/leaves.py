"""The leaves of the data that are not designs: offsets, numbers and codes of text; and whether a
model reads them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

from jaxmle._types import Clusters, Foreign, Label, Loglik, Tree, ndarray
from jaxmle.data.design import INTERCEPT
from jaxmle.data.formula import columns_in, parse, real
from jaxmle.data.prediction import BINARY, CATEGORIES
from jaxmle.data.table import NAMES_LISTED, Column
from jaxmle.likelihood.combinators import Weights
from jaxmle.runtime.compile import precision

OF_CATEGORIES = (*BINARY, *CATEGORIES)
WITHOUT_CONSTANT = {
    "cox": "its baseline hazard takes its place",
    "ordinal": "its thresholds take its place",
}
KEYWORDS = ("offset", "entry", "exposure", "strata")  # of models, that name a leaf


def offset_of(offsets: tuple[str, ...], columns: Mapping[str, Column], rows: ndarray) -> ndarray:
    """The sum of the offsets, (n,); NaN where a column is missing."""
    incomplete = np.zeros(len(rows), dtype=bool)
    for text in offsets:
        for name in columns_in(parse(text)):
            incomplete |= columns[name].missing
    complete = np.flatnonzero(~incomplete)
    present = {name: column.take(complete) for name, column in columns.items()}
    total = np.full(len(rows), np.nan)
    total[complete] = sum(real(text, present, rows[complete], "an offset") for text in offsets)
    return total


def finite_column(column: Column, name: str, rows: ndarray) -> ndarray:
    """A column of finite numbers, (n,)."""
    values = column.values.astype(np.float64)
    not_finite = np.flatnonzero(~np.isfinite(values))
    if not_finite.size:
        raise ValueError(
            f"{name} is {values[not_finite[0]]} in row {rows[not_finite[0]]}: it must be finite"
        )
    return values


def whole_codes(codes: ndarray) -> ndarray:
    """Codes as integers, unless one is missing."""
    return codes if np.any(np.isnan(codes)) else codes.astype(np.int64)


class Coding(Protocol):
    """A ``Frame``, as far as a model is checked against it."""

    # fmt: off
    @property
    def formula(self) -> str: ...
    @property
    def data(self) -> dict[str, ndarray]: ...
    @property
    def levels(self) -> tuple[Label, ...] | None: ...
    @property
    def weights(self) -> Weights | None: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    # fmt: on


def codes_of(column: Column, levels: tuple[Label, ...]) -> ndarray:
    """Text as integers from 0, in the order of the levels; NaN if missing."""
    place: dict[Label, float] = {level: float(code) for code, level in enumerate(levels)}
    return np.array(
        [
            np.nan if is_missing else place[value]
            for value, is_missing in zip(column.values.tolist(), column.missing, strict=True)
        ]
    )


def listed(clusters: Clusters) -> tuple[ndarray, ...]:
    """The clusters as a tuple of label arrays (n,), one for each dimension of clustering."""
    given: Foreign = clusters
    return given if isinstance(given, tuple) else (given,)


def blank_column(rows: int) -> Column:
    """A column of zeros (rows,) with nothing missing, for a missing response."""
    return Column(np.zeros(rows), np.zeros(rows, dtype=bool))


def reads_leaf(model: Loglik, params: Tree, data: dict[str, ndarray], leaf: str) -> bool:
    """Whether the model reads a leaf, that is, cannot be traced without it."""
    rest = {name: value for name, value in data.items() if name != leaf}
    try:
        with precision(np.float64):
            jax.eval_shape(model, params, rest)
    except Exception:  # whatever a user's function raises if a leaf is missing
        return True
    return False


def check_model(model: Loglik, params0: Tree, frame: Coding) -> None:
    """Raise if a model would ignore part of a ``Frame``, does not accept its kind of response, or
    cannot have its constant.
    """
    check_outcome(model, frame)
    name = getattr(model, "name", "")
    if frame.levels is not None and hasattr(model, "outcome") and name not in OF_CATEGORIES:
        raise ValueError(
            f"{model!r} needs a numeric response; the response of {frame.formula!r} is a "
            f"category, {', '.join(map(repr, frame.levels[:NAMES_LISTED]))}: use "
            "logistic, multinomial or ordinal, or convert it to numbers first"
        )
    if frame.weights is not None and name == "cox":
        raise ValueError(
            f"{model!r} reads its weights from a leaf: from_formula(…, also={{'w': 'w'}}) and "
            "cox(weights='w'), without weights here"
        )
    if name in WITHOUT_CONSTANT and INTERCEPT in frame.names:
        raise ValueError(
            f"{model!r} has no constant; {WITHOUT_CONSTANT[name]}: from_formula(…, intercept=False)"
        )
    if params0 is None:
        return  # fit reports what is missing
    for leaf in frame.data:
        is_optional = leaf not in ("x", getattr(model, "outcome", ""))
        if is_optional and not reads_leaf(model, params0, frame.data, leaf):
            hint = f": use {leaf}={leaf!r} where it is made" if leaf in KEYWORDS else ""
            raise ValueError(
                f"{model!r} does not read data[{leaf!r}], which the formula provides{hint}"
            )


def check_outcome(model: Loglik, frame: Coding) -> None:
    """Raise if a ``Frame`` does not have the response that a model reads."""
    outcome = getattr(model, "outcome", None)
    if outcome is not None and outcome not in frame.data:
        form = "Surv(time, event) ~ …" if outcome == "time" else "a single response, y ~ …"
        raise ValueError(
            f"{model!r} reads its response from data[{outcome!r}]; the formula "
            f"{frame.formula!r} has {sorted(frame.data)}. Write {form}"
        )


def check_parameters(model: Loglik, params0: Tree, frame: Coding) -> None:
    """Raise if the formula of a ``Frame`` leaves no parameter."""
    if not frame.names and not sum(map(np.size, jax.tree.leaves(params0))):
        raise ValueError(
            f"{frame.formula!r} leaves {model!r} nothing to estimate: add a term, or fit "
            "a larger formula and fix coefficients with jaxmle.fix(model, {'beta': "
            "0.0})"
        )
