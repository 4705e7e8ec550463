"""What the package maketables asks of a record for its ``ETable``. It is not imported: it looks
for attributes that its plug-in format names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxmle._types import Foreign, ndarray
from jaxmle.solvers.status import Status
from jaxmle.tables.frame import native
from jaxmle.tables.notes import printed
from jaxmle.tables.view import View

LEVELS = (90, 95)  # per cent: the intervals whose columns the format names
NAMES_OF_COLUMNS = {"b": "estimate", "se": "std_error", "t": "statistic", "p": "p_value"}
STATISTIC_LABELS = {"aicc": "AICc", "status": "Status"}  # that the package has no label for


def coefficients(fit: Foreign) -> Foreign:
    """Estimates, standard errors, z, p and interval ends of one fit as a frame of pandas, indexed
    by the names that formulas give.
    """
    if fit.batch_shape:
        raise ValueError("ETable has a column for each fit: give it members of the batch, fits[i]")
    return indexed(
        [printed(name) for name in _as_in_formulas(fit)],
        View().numbers(fit),
        {level: np.asarray(fit.interval(level / 100)) for level in LEVELS},
    )


def _as_in_formulas(fit: Foreign) -> list[str]:
    """The names as patsy and formulaic spell them, which fits of other packages in the same table
    have: ``race[T.black]`` for ``race[black]``.
    """
    return [
        whole.partition("[")[2].removesuffix("]") if name != whole else whole
        for name, whole in zip(fit.layout.names, fit.layout.whole_names, strict=True)
    ]


def indexed(
    names: list[str], numbers: Mapping[str, Foreign], intervals: Mapping[int, ndarray]
) -> Foreign:
    """A frame of pandas by the column names of the plug-in format."""
    columns = {short: numbers[ours] for short, ours in NAMES_OF_COLUMNS.items() if ours in numbers}
    for level, ends in intervals.items():
        columns |= {f"ci{level}l": ends[:, 0], f"ci{level}u": ends[:, 1]}
    return native({"Coefficient": names} | columns, "pandas").set_index("Coefficient")


def statistic(fit: Foreign, key: str) -> Foreign:
    """A fact of the fit by the key that the format gives it; None where the fit has not got it."""
    number = {"N": fit.n, "ll": fit.loglik, "aic": fit.aic, "aicc": fit.aicc, "bic": fit.bic}
    text = {"se_type": fit.vcov_kind or "none", "status": fit.verdict.name}
    if key in text:
        return printed(str(text[key]))
    if key not in number:
        return None
    value = float(number[key])
    return int(value) if key == "N" and value.is_integer() else value


def default_statistics(fit: Foreign) -> list[str]:
    """What stands below the estimates where nothing else is asked for: a fit that has not converged
    says so.
    """
    always = ["N", "ll", "aic", "se_type"]
    return always if fit.verdict == Status.CONVERGED else [*always, "status"]
