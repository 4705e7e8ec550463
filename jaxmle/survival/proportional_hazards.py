"""The test of proportional hazards: a score test of coefficients that change with time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from jaxmle._types import Data, Loglik, ndarray
from jaxmle.parameters.arguments import check_choice, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.survival.cox_rows import CoxFit, cox_fit
from jaxmle.survival.estimators import Observed, table_of
from jaxmle.survival.residuals import information, schoenfeld, schoenfeld_rows

TRANSFORMS = ("km", "rank", "log", "identity")


@dataclass(frozen=True, eq=False)
class ProportionalHazards:
    """The test of proportional hazards, for each term and for all of them.

    ``terms``, their names; ``statistic``, ``df`` and ``pvalue`` of each; the last, "global", is for
    all terms together. ``transform`` g of time; ``time`` and ``g`` (d,) of the events,
    ``residuals`` (d, q) scaled Schoenfeld residuals, whose trend over g shows how a coefficient
    changes.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = jm.datasets.load("lung").data
    >>> rows = {"x": data["age"], "time": data["time"], "event": data["death"]}
    >>> model = models.cox()
    >>> fit = jm.fit(model, data=rows)
    >>> jm.survival.proportional_hazards_test(model, fit, rows).terms
    ('beta', 'global')
    """

    terms: tuple[str, ...]
    statistic: ndarray
    df: ndarray
    pvalue: ndarray
    transform: str
    time: ndarray
    g: ndarray
    residuals: ndarray

    def __repr__(self) -> str:
        width = max(map(len, self.terms))
        head = f"Proportional hazards, score test, g = {self.transform}"
        lines = [f"{'':{width}} {'chi2':>9} {'df':>4} {'p':>9}"]
        lines += [
            f"{name:{width}} {statistic:>9.4f} {df:>4d} {p:>9.4g}"
            for name, statistic, df, p in zip(
                self.terms, self.statistic, self.df.tolist(), self.pvalue, strict=True
            )
        ]
        return "\n".join([head, *lines])


@with_keyword_hints
def proportional_hazards_test(
    model: Loglik,
    fit: Fit,
    data: Data,
    *,
    transform: str = "km",
    terms: Mapping[str, Sequence[str]] | None = None,
) -> ProportionalHazards:
    """Grambsch & Therneau's test that the coefficients of a Cox model do not change with time.

    It is the score test of θ = 0 in β(t) = β + θ g(t): Σ g (x − x̄) over the events, with the
    information of (β, θ) as Σ V, Σ gV and Σ g²V (Grambsch & Therneau 1994, Biometrika 81, 515;
    Therneau & Grambsch 2000, section 6.2). This is R's ``cox.zph`` since survival 3.0; earlier
    versions, like lifelines' ``proportional_hazard_test``, took V as constant.

    Args:
        model: ``models.cox(…)``.
        fit: its ``Fit``.
        data: the data of the fit, a dictionary or a ``Frame``.
        transform: g(t): "km" (the default, as in R), one minus the Kaplan–Meier estimator of all
            rows just before t; "rank", the rank of t among all observed times; "log"; "identity".
        terms: a dictionary from names of terms to their coefficients, such as ``frame.terms``,
            which are tested together; None tests each coefficient.

    Returns:
        A ``ProportionalHazards``.

    Raises:
        ValueError, TypeError: for another model, data that are not those of the fit, or unknown
            names.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = jm.datasets.load("lung").data
    >>> x = np.column_stack([data["age"], data["sex"]])
    >>> rows = {"x": x, "time": data["time"], "event": data["death"]}
    >>> model = models.cox()
    >>> test = jm.survival.proportional_hazards_test(model, jm.fit(model, data=rows), rows)
    >>> test.statistic.round(3).tolist(), test.df.tolist()
    ([0.224, 2.444, 2.622], [1, 1, 2])
    """
    check_choice("transform", transform, TRANSFORMS)
    cox = cox_fit(model, fit, data, "proportional_hazards_test")
    members = _members(cox, fit, terms)
    g = _transformed(cox, transform)
    row, values = schoenfeld_rows(cox)
    if not len(row):
        raise ValueError("no row has an event")
    g_of_event = g[row] - g[row].mean()
    score = (cox.rows.weight[row] * g_of_event) @ values
    g_of_tie = np.zeros(len(cox.sets.time))
    g_of_tie[cox.sets.own_tie[row]] = g_of_event
    g_of_step = g_of_tie[cox.sets.tie]
    blocks = [information(cox, g_of_step**power) for power in range(3)]
    everything = np.arange(len(cox.beta))
    tested = [*members.values(), everything]
    statistic = np.array([_score_statistic(score, blocks, places) for places in tested])
    df = np.array([len(places) for places in tested])
    return ProportionalHazards(
        terms=(*members, "global"),
        statistic=statistic,
        df=df,
        pvalue=scipy.special.chdtrc(df, statistic),
        transform=transform,
        time=cox.rows.time[row],
        g=g[row],
        residuals=schoenfeld(model, fit, data, scaled=True).values,
    )


def _members(
    cox: CoxFit, fit: Fit, terms: Mapping[str, Sequence[str]] | None
) -> dict[str, ndarray]:
    """The positions of the coefficients of each term."""
    if terms is None:
        return {name: np.array([j]) for j, name in enumerate(cox.names)}
    if not isinstance(terms, Mapping) or not terms:
        raise TypeError(
            "terms must be a dictionary from names to their coefficients, such as "
            f"frame.terms; got {shown(terms)}"
        )
    layout = getattr(fit, "layout", None)
    places: dict[str, ndarray] = {}
    for term, names in terms.items():
        if layout is None:
            entries = [cox.names.index(name) for name in names]
        else:
            entries = [j for name in names for j in layout.find(name)]
        places[term] = np.unique(entries)
    return places


def _transformed(cox: CoxFit, transform: str) -> ndarray:
    """g of the time of each row, (n,)."""
    rows = cox.rows
    if transform == "identity":
        return rows.time
    if transform == "log":
        if (rows.time <= 0).any():
            raise ValueError('transform="log" needs times above 0')
        return np.log(rows.time)
    if transform == "rank":
        return scipy.stats.rankdata(rows.time)
    entry = rows.entry if np.isfinite(rows.entry).any() else None
    table = table_of(Observed(rows.time, rows.event, entry, np.ones(rows.n), False))
    before = np.concatenate([[1.0], np.cumprod(1 - table.n_event / table.n_risk)])
    return 1 - before[table.place]


def _score_statistic(score: ndarray, blocks: list[ndarray], places: ndarray) -> float:
    """U'(I22 − I21 I11⁻¹ I12)⁻¹U of the tested entries; NaN if the information is singular."""
    plain, mixed, square = blocks
    across = mixed[:, places]
    try:
        left = square[np.ix_(places, places)] - across.T @ np.linalg.solve(plain, across)
        return float(score[places] @ np.linalg.solve(left, score[places]))
    except np.linalg.LinAlgError:  # a singular information: there is no statistic
        return float("nan")
