"""Standard errors at a kink, where the Hessian knows nothing of the density: from the expected
information of a family that gives it, as 1/(2 f(m) √n) for the median of a Laplace sample.
"""

from __future__ import annotations

from typing import Any

from jaxmle._namespace import namespace
from jaxmle._types import Array
from jaxmle.families.family import Family
from jaxmle.likelihood.information.covariance import Kind
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.opaque import Opaque
from jaxmle.solvers.state import Point
from jaxmle.verdict.judge import Verdict
from jaxmle.verdict.limit import is_at_kink


def family_of(loglik: Any, kind: Kind | None) -> Family | None:
    """The family that a likelihood is, if it gives its expected information and the covariance
    asked for is of the model.
    """
    family = loglik.function if isinstance(loglik, Opaque) else None
    if kind != "observed" or not isinstance(family, Family) or family.law.information is None:
        return None
    return family


def by_family(
    family: Family, layout: Layout, verdict: Verdict, point: Point, n: Array, vcov: Array
) -> tuple[Verdict, Array]:
    """The verdict and the covariance (p, p) of n rows, at a kink by the family's information."""
    xp = namespace(point.z)
    user = point.aux
    each = xp.asarray(family.information(layout.unravel(user.x)))
    information = user.jacobian.T @ (n * each) @ user.jacobian
    expected = user.jacobian @ xp.linalg.inv(information) @ user.jacobian.T
    kinked = is_at_kink(verdict)
    return (
        verdict._replace(null=xp.where(kinked, 0.0, verdict.null)),
        xp.where(kinked, expected, vcov),
    )
