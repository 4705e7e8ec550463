"""The record of effects: names, estimates, standard errors by the delta method, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from jaxmle._types import Array
from jaxmle.effects.replicates import percentiles
from jaxmle.parameters.arguments import check_level
from jaxmle.tables import markup, numerals
from jaxmle.tables.estimates import Estimates, grid_of
from jaxmle.tables.frame import native
from jaxmle.tables.layout import Page, first_fitting, text


@dataclass(frozen=True, eq=False, repr=False)
class Margins:
    """Effects of variables on a prediction, or adjusted predictions, one per row.

    ``names`` (q,); ``labels``: the columns that identify a row (variable, contrast, the groups of
    ``by``, the values that were set, the class), (q,) each; ``estimate`` and ``stderr`` (q,);
    ``vcov`` (q, q); ``title``: what the effects are; ``backend``: the kind of frame that
    ``to_frame`` makes; ``draws`` (R, q): the effects for the replicates of a bootstrap, or None.

    >>> import numpy as np, jaxmle as jm
    >>> table = {"y": [0, 1, 1, 0, 1, 0, 1, 1], "x": [1.0, 3.0, 2.0, 2.0, 4.0, 3.0, 5.0, 1.0]}
    >>> frame = jm.from_formula("y ~ x", table)
    >>> fit = frame.fit(jm.models.logistic())
    >>> effect = jm.margins(fit, frame)
    >>> p = jm.models.logistic().predict(fit.params, frame.data)
    >>> slope = np.mean(p * (1 - p)) * fit.params["beta"][1]  # the mean of p(1 − p)β
    >>> effect.names, bool(abs(effect.estimate[0] - slope) < 1e-9)
    (('x',), True)
    """

    names: tuple[str, ...]
    labels: dict[str, tuple[Any, ...]]
    estimate: Array
    stderr: Array
    vcov: Array
    title: str
    tests: bool
    leaks: Array
    vcov_kind: str
    backend: str = "pandas"
    draws: Array | None = None

    def conf_int(self, level: float = 0.95) -> Array:
        """Symmetric intervals estimate ± z·SE, or the percentiles of a bootstrap, (q, 2)."""
        if self.draws is not None:
            return percentiles(np.asarray(self.draws), check_level(level))
        z = float(scipy.special.ndtri(0.5 + check_level(level) / 2))
        half = z * self.stderr
        return np.stack([self.estimate - half, self.estimate + half], axis=-1)

    @property
    def zvalues(self) -> Array:
        """Estimate over standard error, (q,)."""
        return self._estimates(0.95).zvalues

    @property
    def pvalues(self) -> Array:
        """Two-sided normal p-values of ``zvalues``, (q,)."""
        return self._estimates(0.95).pvalues

    @property
    def reason(self) -> str:
        """Why standard errors are missing, as a sentence; "" if none are."""
        missing = ~np.isfinite(self.stderr)
        if not missing.any():
            return ""
        listed = ", ".join(name for name, gone in zip(self.names, missing, strict=True) if gone)
        if self.vcov_kind == "none":
            return "No standard errors: the fit has no covariance (vcov=None)."
        if np.any(self.leaks & missing):
            return (
                f"No standard error for {listed}: it depends on parameters without a finite, "
                "unique estimate; fit.explain() names them."
            )
        return (
            f"No standard error for {listed}: it has no variance at these rows (a "
            "prediction at its limit), or the fit has no covariance for the parameters "
            "it depends on."
        )

    def __len__(self) -> int:
        return len(self.names)

    def _estimates(self, level: float) -> Estimates:
        interval = np.asarray(self.conf_int(level))
        estimate = np.asarray(self.estimate)
        stderr = np.asarray(self.stderr)
        return Estimates(self.names, estimate, stderr, interval, level, self.tests)

    def to_frame(self, level: float = 0.95, backend: str | None = None) -> Any:
        """A tidy data frame: the labels, estimate, std_error, statistic, p_value, conf_low,
        conf_high; of the same kind as the table, or ``backend``.
        """
        columns = {"term": list(self.names)} | {
            name: list(values) for name, values in self.labels.items() if name != "term"
        }
        estimates = self._estimates(check_level(level)).columns()
        return native(columns | estimates, backend or self.backend)

    def page(self, level: float = 0.95) -> Page:
        """The table as a page, for any output format."""
        estimates = self._estimates(check_level(level))
        facts = (("vcov", self.vcov_kind),)
        notes = (self.reason,) if self.reason else ()
        return first_fitting(
            Page(self.title, True, facts, (grid_of(estimates, style),), notes)
            for style in numerals.STYLES
        )

    def summary(self, level: float = 0.95) -> str:
        """The table as text."""
        return text(self.page(level))

    def __repr__(self) -> str:
        replicates = np.inf if self.draws is None else len(self.draws)
        return self.summary(min(0.95, 1 - 2 / (replicates + 1)))  # the widest possible

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self, level: float = 0.95) -> str:
        """The table in HTML."""
        return markup.html_page(self.page(level))

    def to_latex(self, level: float = 0.95) -> str:
        """The table in LaTeX (booktabs)."""
        return markup.latex_page(self.page(level))

    def to_markdown(self, level: float = 0.95) -> str:
        """The table in Markdown."""
        return markup.markdown_page(self.page(level))
