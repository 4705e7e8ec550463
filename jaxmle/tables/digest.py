"""The digest of a batch of fits: counts by status, estimates over the converged members, the
worst members.
"""

from __future__ import annotations

import numpy as np

from jaxmle._types import ndarray
from jaxmle.solvers.status import Status
from jaxmle.tables import numerals
from jaxmle.tables.contents import Record
from jaxmle.tables.layout import Grid, Page, first_fitting, text
from jaxmle.tables.notes import printed
from jaxmle.tables.numerals import Style
from jaxmle.tables.table import common_facts, shortened

LINES_SHOWN = 40  # one screen
WORST_MEMBERS_SHOWN = 5  # members shown


def digest(fit: Record, level: float = 0.95) -> str:
    """The digest of a batch of fits as text: one screen, for any number of members and parameters.

    Args:
        fit: the record of a batch, with a leading axis on every leaf.
        level: fraction of the members between the two quantiles, between 0 and 1.

    Returns:
        The text: how many converged; counts by status; mean, standard deviation, quantiles and
        median of the estimates and of the standard errors over the converged members; the worst
        members with their status.
    """
    return text(first_fitting(page(fit, level, style) for style in numerals.STYLES))


def page(fit: Record, level: float = 0.95, style: Style = numerals.scaled) -> Page:
    """The digest of a batch as a page, for any output format."""
    status = np.asarray(fit.status).reshape(-1)
    converged = status == Status.CONVERGED
    outer = (counts(status), *worst(fit, status))
    # Six lines for status, facts and notes; four for blank, title and header of each grid of
    # parameters and its dots.
    room = (LINES_SHOWN - 6 - sum(len(grid.rows) + 3 for grid in outer)) // 2 - 4
    inner = parameters(fit, converged, level, style, max(room, 2)) if converged.any() else ()
    headline = f"{int(converged.sum())} of {status.size} fits {Status.CONVERGED.name}"
    return Page(
        headline,
        bool(converged.all()),
        facts(fit),
        (outer[0], *inner, *outer[1:]),
        notes(fit, converged),
    )


def facts(fit: Record) -> tuple[tuple[str, str], ...]:
    """Labels and values of what the members have in common; `n` as a range if it differs."""
    n = np.asarray(fit.n, dtype=float)
    low, high = (numerals.count(float(end)) for end in (n.min(), n.max())) if n.size else ("0", "0")
    return (
        ("n", low if low == high else f"{low} to {high}"),
        ("df", str(fit.df)),
        *common_facts(fit),
    )


def counts(status: ndarray) -> Grid:
    """How many members have each status that occurs, the worst status first."""
    codes, members = np.unique(status, return_counts=True)
    shares = 100.0 * members / max(status.size, 1)
    cells = zip(codes.tolist(), members.tolist(), shares.tolist(), strict=True)
    return Grid(
        ("status", "fits", "%"),
        tuple((Status(code).name, str(m), f"{share:.2f}") for code, m, share in cells),
    )


def parameters(
    fit: Record, members: ndarray, level: float, style: Style, room: int
) -> tuple[Grid, Grid]:
    """Two grids over the chosen members: the spread of the estimates and of the standard errors."""
    p = len(fit.names)
    header = ("", "mean", "SD", f"{_quantile(level, 0)}", "median", f"{_quantile(level, 1)}")
    grids = []
    for title, values in (("Estimates", fit.x), ("Standard errors", fit.se)):
        chosen = np.asarray(values, dtype=float).reshape(-1, p)[members]
        rows = [
            _row(printed(name), spread(chosen[:, j], level), style)
            for j, name in enumerate(fit.names)
        ]
        grids.append(
            Grid(
                header,
                shortened(rows, room - 1, 1),
                f"{title} over the {len(chosen)} converged fits",
            )
        )
    return grids[0], grids[1]


def _quantile(level: float, upper: int) -> str:
    return numerals.percent((1.0 + (2 * upper - 1) * level) / 2.0)


def spread(values: ndarray, level: float) -> tuple[float, float, float, float, float]:
    """Mean, standard deviation (divisor b − 1), lower quantile, median, upper quantile; NaN
    entries are left out.
    """
    known = values[~np.isnan(values)]
    if known.size == 0:
        return np.nan, np.nan, np.nan, np.nan, np.nan
    with np.errstate(invalid="ignore"):  # inf − inf
        sd = float(known.std(ddof=1)) if known.size > 1 else np.nan
        quantiles = np.quantile(known, [(1.0 - level) / 2.0, 0.5, (1.0 + level) / 2.0])
        return (float(known.mean()), sd, *quantiles.tolist())


def _row(name: str, values: tuple[float, ...], style: Style) -> tuple[str, ...]:
    mean, sd, *quantiles = values
    (sd_,) = style((sd,), sd)
    mean_, *quantiles_ = style((mean, *quantiles), sd)
    return (name, mean_, sd_, *quantiles_)


def worst(fit: Record, status: ndarray) -> tuple[Grid, ...]:
    """The grid of the worst members; none if all converged."""
    distance = distances(fit)
    shown = worst_members(status, distance)
    if shown.size == 0:
        return ()
    loglik, steps = (np.asarray(leaf).reshape(-1) for leaf in (fit.loglik, fit.steps))
    rows = tuple(
        (
            Status(int(status[i])).name,
            member(fit, i),
            numerals.likelihood(float(loglik[i])),
            numerals.significant(float(distance[i]), 2),
            str(int(steps[i])),
        )
        for i in shown
    )
    return (
        Grid(
            ("status", "member", "log-likelihood", "SE from optimum", "steps"),
            rows,
            "Worst members",
        ),
    )


def worst_members(status: ndarray, distance: ndarray) -> ndarray:
    """Positions of the worst members: first one of every failed status, then the farthest."""
    failed = np.flatnonzero(status != Status.CONVERGED)
    order = failed[np.lexsort((-_known_or_inf(distance[failed]), status[failed]))]
    _, starts = np.unique(status[order], return_index=True)
    others = np.setdiff1d(np.arange(order.size), starts)
    chosen = np.concatenate([starts, others])[:WORST_MEMBERS_SHOWN]
    return order[np.sort(chosen)]


def _known_or_inf(distance: ndarray) -> ndarray:
    return np.where(np.isnan(distance), np.inf, distance)


def distances(fit: Record) -> ndarray:
    """Distance of each member to its optimum in standard errors, √(2δ) of the Newton decrement
    δ, (b,).
    """
    return np.sqrt(2.0 * np.maximum(np.asarray(fit.decrement, dtype=float).reshape(-1), 0.0))


def member(fit: Record, position: int) -> str:
    """The index of a member as one would write it: `7`, or `2,7` in a batch of two axes."""
    return ",".join(str(int(i)) for i in np.unravel_index(position, fit.batch_shape))


def notes(fit: Record, converged: ndarray) -> tuple[str, ...]:
    """Where to look next: the explanation of the worst member, or of the member farthest from its
    optimum.
    """
    if not converged.size:
        return ()
    distance = distances(fit)
    if converged.all():
        far = int(np.argmax(distance))
        return (
            f"The member farthest from its optimum is {member(fit, far)}: {distance[far]:.1e} SE.",
        )
    first = worst_members(np.asarray(fit.status).reshape(-1), distance)[0]
    return (f"fit[{member(fit, first)}].explain() says what happened to a member.",)
