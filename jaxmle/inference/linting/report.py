"""The report of ``lint``: one finding for each check, and all of them as a table of marks and
sentences.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from jaxmle._types import Tree

CHECKS = (
    "finite",
    "shape",
    "sum",
    "rows",
    "derivatives",
    "scores",
    "normalised",
    "support",
    "sign",
    "parameters",
    "precision",
)
REPORT_COLUMNS = 100  # of the printed table


@dataclass(frozen=True)
class Finding:
    """What one check found: ``passed`` is None if it could not be checked; ``note`` marks a remark
    about a correct likelihood.
    """

    check: str
    passed: bool | None
    sentence: str
    evidence: dict[str, Tree] = field(default_factory=dict)
    note: bool = False

    @property
    def mark(self) -> str:
        return "–" if self.passed is None else "✗" if not self.passed else "!" if self.note else "✓"


@dataclass(frozen=True)
class LintReport:
    """The findings of ``lint``, in the order of its checks; ``ok`` is True if no check failed.

    >>> import numpy as np, jaxmle as jm
    >>> y, bounds = np.array([1.0, 3.0, 2.0, 6.0]), {"sigma": jm.positive}
    >>> forgotten = lambda p, y: -0.5 * ((y - p["mu"]) / p["sigma"]) ** 2  # where is −log σ?
    >>> start = {"mu": 2.5, "sigma": 2.0}
    >>> report = jm.lint(forgotten, start, y, support="real", constraints=bounds)
    >>> report.ok, report["normalised"].passed, report["finite"].passed
    (False, False, True)
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.passed is not False for finding in self.findings)

    def __getitem__(self, check: str) -> Finding:
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"there is no check called {check!r}; the checks are {', '.join(CHECKS)}")

    def __repr__(self) -> str:
        failed = [finding.check for finding in self.findings if finding.passed is False]
        head = (
            f"lint: {len(failed)} of {len(self.findings)} checks failed ({', '.join(failed)})"
            if failed
            else "lint: no mistake found"
        )
        open_ = [finding.check for finding in self.findings if finding.passed is None]
        head += f"; not checked: {', '.join(open_)}" if open_ and not failed else ""
        legend = "✓ passed   ✗ failed   ! note   – not checked"
        return "\n".join(
            [head, *(line for finding in self.findings for line in _lines(finding)), legend]
        )


def _lines(finding: Finding) -> list[str]:
    """One finding as text, with its sentence wrapped next to the name of the check."""
    wrapped = textwrap.wrap(finding.sentence, REPORT_COLUMNS - 15)
    return [
        f"{finding.mark} {finding.check:<12} {wrapped[0]}",
        *(" " * 15 + line for line in wrapped[1:]),
    ]
