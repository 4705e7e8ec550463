"""The summary of one fit: its status, what was maximised, and a row for every parameter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmle.likelihood.derivatives import DIFFERENCES
from jaxmle.solvers.status import MEAN, MEAN_OF_ROWS
from jaxmle.tables import numerals
from jaxmle.tables.contents import Record
from jaxmle.tables.layout import ELLIPSIS, Grid, Page, first_fitting, text
from jaxmle.tables.notes import covariance_note, printed
from jaxmle.tables.numerals import Style
from jaxmle.tables.view import EXPONENTIATED, View

# rows shown of a fit with more than FIRST + LAST parameters
FIRST_ROWS_SHOWN = 80
LAST_ROWS_SHOWN = 20


def summary(fit: Record, view: View | float = 0.95) -> str:
    """The summary of one fit as text, at most 100 columns wide, the status line first.

    Args:
        fit: the record of one fit.
        view: what is shown, or the coverage of the Wald intervals alone.

    Returns:
        The text: status (with its explanation unless converged); n, df, log-likelihood, AIC, BIC,
        the kind of covariance; then estimate, standard error, z, p and interval of every
        parameter. `n/a` marks what is NaN.
    """
    return text(first_fitting(page(fit, view, style) for style in numerals.STYLES))


def page(fit: Record, view: View | float = 0.95, style: Style = numerals.scaled) -> Page:
    """The summary of one fit as a page, for any output format."""
    view = view if isinstance(view, View) else View(view)
    grid = coefficients(fit, view, style)
    hidden = len(view.places(fit)) - FIRST_ROWS_SHOWN - LAST_ROWS_SHOWN
    more = (f"{hidden} more parameters: fit.to_frame() has all of them.",) if hidden > 0 else ()
    transformed = (EXPONENTIATED,) if view.exponentiate else ()
    return Page(
        status_line(fit), bool(fit.converged), facts(fit), (grid,), more + transformed + notes(fit)
    )


def status_line(fit: Record) -> str:
    """The name of the status and, unless there is nothing to explain, its sentence."""
    name = fit.verdict.name
    # A row with leverage one is explained even in a converged fit.
    if fit.converged and fit.witness.row < 0:
        return name
    sentence = covariance_note(fit).strip() if fit.converged else fit.explain()
    return sentence if sentence.startswith(name) else f"{name}: {sentence}"


def facts(fit: Record) -> tuple[tuple[str, str], ...]:
    """Labels and values of the facts about the whole fit."""
    return (
        ("n", numerals.count(float(fit.n))),
        ("df", str(fit.df)),
        ("log-likelihood", numerals.likelihood(float(fit.loglik))),
        ("AIC", numerals.likelihood(float(fit.aic))),
        ("BIC", numerals.likelihood(float(fit.bic))),
        *common_facts(fit),
    )


def common_facts(fit: Record) -> tuple[tuple[str, str], ...]:
    """The kind of covariance, the dtype unless float64, the label of a MAP fit: the same for one
    fit and a batch.
    """
    dtype = np.dtype(fit.dtype).name
    return (
        ("vcov", printed(str(fit.vcov_kind or "none"))),
        *((("dtype", dtype),) if dtype != "float64" else ()),
        *((("estimates", printed(fit.mode)),) if fit.mode != "ML" else ()),
    )


def coefficients(fit: Record, view: View | float, style: Style) -> Grid:
    """A row per parameter: estimate, standard error, z, p and the two ends of the interval."""
    view = view if isinstance(view, View) else View(view)
    share = numerals.percent(view.level)
    header = ("", "estimate", "std. error", "z", "p", f"lower {share}", f"upper {share}")
    columns = view.numbers(fit).values()
    values = np.stack([np.asarray(column, dtype=float) for column in columns], axis=-1)
    rows = [
        _row(printed(name), numbers, style)
        for name, numbers in zip(view.names(fit), values.tolist(), strict=True)
    ]
    return Grid(header, shortened(rows, FIRST_ROWS_SHOWN, LAST_ROWS_SHOWN))


def _row(name: str, numbers: Sequence[float], style: Style) -> tuple[str, ...]:
    estimate, stderr, z, p, lower, upper = numbers
    estimate_, lower_, upper_ = style((estimate, lower, upper), stderr)
    (stderr_,) = style((stderr,), stderr)
    return (name, estimate_, stderr_, numerals.z_value(z), numerals.p_value(p), lower_, upper_)


def shortened(
    rows: Sequence[tuple[str, ...]], first: int, last: int
) -> tuple[tuple[str, ...], ...]:
    """The rows, or the first and the last few around a row of dots if there are more than `first +
    last`.
    """
    if len(rows) <= first + last:
        return tuple(rows)
    dots = (ELLIPSIS,) + ("",) * (len(rows[0]) - 1)
    return (*rows[:first], dots, *rows[len(rows) - last :])


def notes(fit: Record) -> tuple[str, ...]:
    """Notes on what a reader of the table could misread."""
    se = np.asarray(fit.se, dtype=float)
    known = np.isfinite(se) & (se > 0.0)
    bounded = bool(np.isfinite(np.asarray(fit.bounds, dtype=float)).any() and known.any())
    without = bool(fit.converged and known.any() and not known.all())
    noise = np.max(
        np.asarray(fit.witness.stderr_error, dtype=float)[known] / se[known], initial=0.0
    )
    remarks = (
        (
            bounded,
            "Bounded parameters: intervals respect the bound; z and p only where 0 is inside the "
            "bounds.",
        ),
        (
            without,
            "A parameter without a standard error is held fixed, or its variance cannot "
            "be estimated.",
        ),
        (
            noise > 0.0 and fit.hessian_by == DIFFERENCES,
            "The information was computed by differences of the score: measured error of "
            f"the standard errors up to {100 * noise:.2g}%.",
        ),
        (
            noise > 0.0 and fit.hessian_by != DIFFERENCES,
            "The information was simulated: Monte Carlo error of the standard errors up "
            f"to {100 * noise:.2g}%.",
        ),
        (
            fit.converged and bool(int(fit.witness.certificate) & MEAN),
            f"{MEAN_OF_ROWS[0].upper()}{MEAN_OF_ROWS[1:]}",
        ),
        (
            bool(np.isnan(float(fit.n))) and np.isfinite(float(fit.loglik)),
            "n is not known, because the likelihood returns one number and has no data: "
            "there is no BIC or AICc.",
        ),
        (
            fit.weighting == "sampling",
            "AIC and BIC are not defined with sampling weights: the weighted sum is not "
            "a likelihood.",
        ),
        (
            fit.mode != "ML",
            f"AIC and BIC do not apply to a {printed(fit.mode)} fit: the log-likelihood is not "
            "at its maximum.",
        ),
    )
    return tuple(sentence for holds, sentence in remarks if holds)
