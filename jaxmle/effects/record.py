"""The record of effects: names, estimates, standard errors by the delta method, and their table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from jaxmle._types import Array, Foreign, Label, Tree
from jaxmle.effects.replicates import percentiles
from jaxmle.parameters.arguments import check_level
from jaxmle.tables import maketables, markup, numerals
from jaxmle.tables.estimates import Estimates, grid_of
from jaxmle.tables.frame import native
from jaxmle.tables.layout import Page, first_fitting, text

REASON_OUTSIDE = (
    "it depends on parameters without a finite, unique estimate; fit.explain() names them"
)
REASON_LIMIT = "the data are separated, and it is a limit"
REASON_NO_LIMIT = "the data are separated, and do not determine it"
REASON_NO_VARIANCE = (
    "it has no variance at these rows (a prediction at its limit), or the fit has no covariance "
    "for the parameters it depends on"
)


@dataclass(frozen=True, eq=False, repr=False)
class Margins:
    """Effects of variables on a prediction, or adjusted predictions, one per row.

    ``names`` (q,); ``labels``: the columns that identify a row (variable, contrast, the groups of
    ``by``, the values that were set, the class), (q,) each; ``estimate`` and ``stderr`` (q,);
    ``vcov`` (q, q); ``title``: what the effects are; ``backend``: the kind of frame that
    ``to_frame`` makes; ``draws`` (R, q): the effects for the replicates of a bootstrap, or None;
    ``separated``: whether the data are; then an effect that depends on infinite estimates is its
    limit, without a standard error, or NaN if there is no limit.

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
    labels: dict[str, tuple[Label, ...]]
    estimate: Array
    stderr: Array
    vcov: Array
    title: str
    tests: bool
    leaks: Array
    vcov_kind: str
    backend: str = "pandas"
    draws: Array | None = None
    separated: bool = False

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
    def reasons(self) -> tuple[str, ...]:
        """Why each standard error is missing, a clause; "" where it is not."""
        return tuple(map(self._reason, range(len(self.names))))

    def _reason(self, i: int) -> str:
        if np.isfinite(self.stderr[i]):
            return ""
        if self.vcov_kind == "none":
            return "the fit has no covariance (vcov=None)"
        if self.separated and (self.leaks[i] or self.vcov[i, i] == 0):
            return REASON_NO_LIMIT if np.isnan(self.estimate[i]) else REASON_LIMIT
        return REASON_OUTSIDE if self.leaks[i] else REASON_NO_VARIANCE

    @property
    def reason(self) -> str:
        """Why standard errors are missing, a sentence for each reason; "" where none is."""
        reasons = self.reasons
        sentences = []
        for why in dict.fromkeys(filter(None, reasons)):
            listed = ", ".join(
                name for name, given in zip(self.names, reasons, strict=True) if given == why
            )
            sentences.append(f"No standard error for {listed}: {why}.")
        return " ".join(sentences)

    def __len__(self) -> int:
        return len(self.names)

    def _estimates(self, level: float) -> Estimates:
        interval = np.asarray(self.conf_int(level))
        estimate = np.asarray(self.estimate)
        stderr = np.asarray(self.stderr)
        return Estimates(self.names, estimate, stderr, interval, level, self.tests)

    def to_frame(self, level: float = 0.95, backend: str | None = None) -> Tree:
        """A tidy data frame: the labels, estimate, std_error, statistic, p_value, conf_low,
        conf_high; of the same kind as the table, or ``backend``.
        """
        columns = {"term": list(self.names)} | {
            name: list(values) for name, values in self.labels.items() if name != "term"
        }
        estimates = self._estimates(check_level(level)).columns()
        reasons = {"reason": list(self.reasons)} if self.separated and self.reason else {}
        return native(columns | estimates | reasons, backend or self.backend)

    @property
    def __maketables_coef_table__(self) -> Foreign:
        ends = {level: np.asarray(self.conf_int(level / 100)) for level in maketables.LEVELS}
        return maketables.indexed(list(self.names), self._estimates(0.95).columns(), ends)

    def __maketables_stat__(self, key: str) -> Foreign:
        return self.vcov_kind if key == "se_type" else None

    __maketables_default_stat_keys__ = property(lambda self: ["se_type"])
    __maketables_depvar__ = ""

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
