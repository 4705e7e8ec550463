"""Questions asked of a fit."""

from jaxmle.inference.delta import Delta, delta
from jaxmle.inference.lint import LintReport, lint

__all__ = ["Delta", "LintReport", "delta", "lint"]
