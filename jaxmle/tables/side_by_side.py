"""``table``: several fits side by side, as in a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from jaxmle._types import DataFrame
from jaxmle.parameters.arguments import check_choice, check_count, check_flag, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.solvers.status import Status
from jaxmle.tables import markup, numerals
from jaxmle.tables.contents import Record
from jaxmle.tables.frame import native
from jaxmle.tables.layout import Grid, Page, text
from jaxmle.tables.notes import printed
from jaxmle.tables.view import EXPONENTIATED, View

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
BELOW = ("stderr", "interval", "z", "p", "nothing")
WHAT_IS_BELOW = {
    "stderr": "Standard errors in parentheses.",
    "interval": "{share} intervals in brackets.",
    "z": "z values in parentheses.",
    "p": "p-values in parentheses.",
}


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Several fits side by side: one row for each parameter and one column for each fit, then n,
    log-likelihood, AIC and the kind of standard errors.

    It can be printed, or converted to LaTeX (booktabs), Markdown, HTML or a tidy data frame.

    >>> import numpy as np, jaxmle as jm
    >>> table = {"y": [0, 1, 1, 0, 1, 0, 1, 1], "x": [1.0, 3.0, 2.0, 2.0, 4.0, 3.0, 5.0, 1.0]}
    >>> fits = [jm.from_formula(f, table).fit(jm.models.logistic()) for f in ("y ~ 1", "y ~ x")]
    >>> jm.table(fits, names=["null", "slope"])
                        null     slope
    Intercept         0.511    -1.153
                     (0.730)   (1.773)
    x                           0.675
                               (0.689)
    n                 8         8
    log-likelihood   -5.293    -4.705
    AIC              12.585    13.411
    vcov            observed  observed
    <BLANKLINE>
    Standard errors in parentheses.
    """

    fits: tuple[Record, ...]
    names: tuple[str, ...]
    views: tuple[View, ...]
    below: str
    stars: bool
    digits: int

    def page(self) -> Page:
        """The table as a page, for any output format."""
        columns = [self._column(i) for i in range(len(self.fits))]
        terms = list(dict.fromkeys(name for column in columns for name in column))
        rows: list[tuple[str, ...]] = []
        for term in terms:
            cells = [column.get(term, ("", "")) for column in columns]
            rows.append((printed(term), *(above for above, _ in cells)))
            if self.below != "nothing":
                rows.append(("", *(under for _, under in cells)))
        facts = [_facts(fit) for fit in self.fits]
        rows += [
            (label, *(fact[label] for fact in facts))
            for label in facts[0]
            if label != "status" or any(fact[label] != Status.CONVERGED.name for fact in facts)
        ]
        grid = Grid(("", *map(printed, self.names)), tuple(rows))
        return Page("", True, (), (grid,), self._notes())

    def _column(self, i: int) -> dict[str, tuple[str, str]]:
        """From each name to the cell of its estimate and the one below it."""
        fit = self.fits[i]
        view = self.views[i]
        numbers = {name: values.tolist() for name, values in view.numbers(fit).items()}
        cells = {}
        for j, name in enumerate(view.names(fit)):
            row = {key: values[j] for key, values in numbers.items()}
            mark = next((m for p, m in STARS if row["p_value"] < p), "") if self.stars else ""
            cells[name] = (self._number(row["estimate"]) + mark, self._under(row))
        return cells

    def _under(self, row: Mapping[str, float]) -> str:
        if self.below == "interval":
            return f"[{self._number(row['conf_low'])}, {self._number(row['conf_high'])}]"
        if self.below == "p":
            return f"({numerals.p_value(row['p_value'])})"
        if self.below == "z":
            return f"({numerals.z_value(row['statistic'])})"
        return f"({self._number(row['std_error'])})"

    def _number(self, value: float) -> str:
        """A fixed number of decimals; or as many significant digits if these would not show
        anything.
        """
        small = np.isfinite(value) and 0 < abs(value) < 0.5 * 10.0**-self.digits
        if small:
            return numerals.exponent(value, 2)
        return numerals.fixed(value, self.digits)

    def _notes(self) -> tuple[str, ...]:
        share = numerals.percent(self.views[0].level)
        stars = ", ".join(f"{mark} p < {p:g}" for p, mark in reversed(STARS))
        sentences = (
            [WHAT_IS_BELOW[self.below].format(share=share)] if self.below in WHAT_IS_BELOW else []
        )
        sentences += [f"{stars}."] if self.stars else []
        sentences += [EXPONENTIATED] if self.views[0].exponentiate else []
        return tuple(sentences)

    def __repr__(self) -> str:
        return text(self.page()).lstrip("\n")

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The table in HTML."""
        return markup.html_page(self.page())

    def to_latex(self) -> str:
        """The table in LaTeX (booktabs)."""
        return markup.latex_page(self.page())

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return markup.markdown_page(self.page())

    def to_frame(self, backend: str | None = None) -> DataFrame:
        """A tidy data frame: model, term and the columns of ``Fit.to_frame``."""
        parts = []
        for name, fit, view in zip(self.names, self.fits, self.views, strict=True):
            terms = view.names(fit)
            parts.append({"model": [name] * len(terms), "term": terms, **view.numbers(fit)})
        joined = {
            name: np.concatenate([np.asarray(part[name], dtype=object) for part in parts]).tolist()
            for name in parts[0]
        }
        return native(joined, backend)


@with_keyword_hints
def table(
    fits: Sequence[Record] | Mapping[str, Record],
    *,
    names: Sequence[str] | None = None,
    exponentiate: bool = False,
    labels: Mapping[str, str] | None = None,
    terms: Sequence[str] | None = None,
    level: float = 0.95,
    below: str = "stderr",
    stars: bool = False,
    digits: int = 3,
) -> Table:
    """Several fits side by side.

    Args:
        fits: single fits of any models; a list, or a dictionary from column headings to fits.
        names: the column headings; (1), (2), … by default.
        exponentiate: exponentiate estimates and intervals: odds ratios, rate ratios, hazard ratios.
        labels: a dictionary from names of parameters to labels; a fit need not have all these
            parameters.
        terms: the parameters to show, in this order.
        level: coverage of the intervals.
        below: what is shown below an estimate: ``"stderr"``, ``"interval"``, ``"z"``, ``"p"`` or
            ``"nothing"``.
        stars: one, two or three stars for p < 0.05, p < 0.01, p < 0.001.
        digits: decimals of estimates and standard errors.

    Returns:
        A ``Table``, which can be printed, with ``to_latex()``, ``to_markdown()``, ``to_html()``,
        ``to_frame()``.

    Raises:
        TypeError, ValueError: for anything but single fits, or a name that no fit has.

    >>> import numpy as np, jaxmle as jm
    >>> normal = lambda params, y: -0.5 * (y - params["mean"]) ** 2
    >>> fits = [jm.fit(normal, {"mean": 0.0}, np.array(y)) for y in ([1.0, 3.0], [2.0, 8.0])]
    >>> print(jm.table(fits, labels={"mean": "Mean"}, digits=1).to_markdown().splitlines()[2])
    | Mean           |    2.0   |     5.0  |
    """
    records, names = _listed(fits, names)
    if not records:
        raise ValueError("table needs at least one fit")
    for place, fit in enumerate(records):
        if not hasattr(fit, "layout") or not hasattr(fit, "interval"):
            raise TypeError(f"table shows fits; number {place} is {shown(fit)}")
        if fit.batch_shape:
            raise ValueError(
                f"table shows single fits; number {place} is a batch of {fit.batch_shape[0]}: give "
                "fits[i]"
            )
    heads = [f"({i + 1})" for i in range(len(records))] if names is None else list(names)
    if len(heads) != len(records) or not all(isinstance(head, str) for head in heads):
        raise ValueError(
            f"names must be {len(records)} strings, one for each fit; got {shown(names)}"
        )
    check_choice("below", below, BELOW)
    check_flag("stars", stars)
    check_count("digits", digits, 0, 15)
    whole = View(level, exponentiate, labels, terms)
    views = tuple(_view_of(fit, whole) for fit in records)
    for wanted in (*(whole.labels or {}), *(whole.terms or ())):
        if not any(_has(fit, wanted) for fit in records):
            records[0].layout.find(wanted)  # raises an error that lists the names
    return Table(records, tuple(heads), views, below, stars, digits)


def _listed(
    fits: Sequence[Record] | Mapping[str, Record], names: Sequence[str] | None
) -> tuple[tuple[Record, ...], Sequence[str] | None]:
    """The fits as a sequence, and their column headings if a dictionary gives them."""
    if isinstance(fits, Mapping):
        return tuple(fits.values()), list(fits) if names is None else names
    return tuple(fits) if isinstance(fits, list | tuple) else (cast(Record, fits),), names


def _view_of(fit: Record, whole: View) -> View:
    """The requested view, restricted to what one fit has."""
    labels = {name: label for name, label in (whole.labels or {}).items() if _has(fit, name)}
    terms = None if whole.terms is None else [name for name in whole.terms if _has(fit, name)]
    return View(whole.level, whole.exponentiate, labels, terms)


def _has(fit: Record, name: str) -> bool:
    try:
        fit.layout.find(name)
    except ValueError:  # a parameter of another fit
        return False
    return True


def _facts(fit: Record) -> dict[str, str]:
    return {
        "n": numerals.count(float(fit.n)),
        "log-likelihood": numerals.likelihood(float(fit.loglik)),
        "AIC": numerals.likelihood(float(fit.aic)),
        "vcov": printed(str(fit.vcov_kind or "none")),
        "status": fit.verdict.name,
    }
