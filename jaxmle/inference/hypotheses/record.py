"""The record of a hypothesis test: a statistic, its degrees of freedom, and a p-value or the reason
why there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import partial

import jax
import numpy as np
import scipy

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, Index, Tree


class Reason(IntEnum):
    """Why a test has no p-value; NONE if it has one."""

    NONE = 0
    NOT_CONVERGED = 1
    NOT_ESTIMABLE = 2
    SINGULAR = 3
    INDEFINITE = 4
    HIGHER = 5
    BOUNDARY = 6
    DAVIES = 7
    ROBUST = 8
    SAMPLING = 9
    PENALISED = 10
    ALIKE = 11
    REPLICATES = 12


REASON_MEANING = {
    Reason.NONE: "",
    Reason.NOT_CONVERGED: (
        "a fit did not end at a maximum that the test can use; see its explain()"
    ),
    Reason.NOT_ESTIMABLE: (
        "the data do not determine the tested quantity: it involves a parameter without "
        "an estimate, on a bound or at infinity"
    ),
    Reason.SINGULAR: (
        "the covariance of the tested quantity is singular or NaN: restrictions are "
        "redundant at this estimate, or there are too few rows or clusters"
    ),
    Reason.INDEFINITE: (
        "the information is not positive definite at the restricted estimate; use the "
        "expected information or vcov='opg'"
    ),
    Reason.HIGHER: (
        "the restricted fit has the higher log-likelihood: the full fit is only a local "
        "maximum (see multistart), or the models are not nested"
    ),
    Reason.BOUNDARY: (
        "an estimate lies on a bound, where 2Δℓ is not χ²; if H0 puts one parameter on "
        "its bound, name it in on_bound, otherwise simulate under H0"
    ),
    Reason.DAVIES: (
        "other parameters vanish from the likelihood when H0 puts this one on its bound, so the "
        "mixing weights are not known; simulate under H0"
    ),
    Reason.ROBUST: (
        "with a robust covariance 2Δℓ is not χ²; use wald_test or score_test with the "
        "robust covariance"
    ),
    Reason.SAMPLING: (
        "with sampling weights the weighted sum is not a log-likelihood; use wald_test"
    ),
    Reason.PENALISED: "a MAP or bias-reduced fit does not maximise the log-likelihood",
    Reason.ALIKE: "the two models give the same terms, so their difference has no variance",
    Reason.REPLICATES: "more than half of the simulated data sets could not be fitted",
}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["statistic", "df", "pvalue", "code", "replicates"],
    meta_fields=["kind", "hypothesis", "law", "df_residual"],
)
@dataclass(frozen=True, eq=False)
class Test:
    """A hypothesis test, or a batch of them (every leaf then has leading axes).

    Leaves: ``statistic``; ``df`` its degrees of freedom; ``pvalue``; ``code`` a ``Reason`` as an
    integer, 0 if there is a p-value; ``replicates`` the number of simulated data sets behind the
    p-value, 0 if it has a formula. Static: ``kind`` the name of the test; ``hypothesis`` H0 in
    words; ``law``, the distribution of the statistic under H0 (chi2, F, normal, chi-bar-square,
    bootstrap); ``df_residual`` the second degrees of freedom of F, infinite otherwise.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.wald import wald_test
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> test = wald_test(result, {"rate": 1.0})
    >>> round(float(test.statistic), 6), test.law, int(test.df), test.reason  # (1/3 − 1)²/(1/6)²
    (16.0, 'chi2', 1, '')
    """

    __test__ = False  # pytest: a record, not a collection of tests

    statistic: Array
    df: Array
    pvalue: Array
    code: Array
    replicates: Array
    kind: str
    hypothesis: str
    law: str = "chi2"
    df_residual: float = math.inf

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading axes: () for one test."""
        return np.shape(self.statistic)

    @property
    def reason(self) -> Tree:
        """Why there is no p-value, as a sentence; ``""`` if there is one; for a batch a tuple of
        these.
        """
        if not self.batch_shape:
            return REASON_MEANING[Reason(int(self.code))]
        return tuple(
            REASON_MEANING[Reason(code)] for code in np.asarray(self.code).reshape(-1).tolist()
        )

    def __getitem__(self, index: Index) -> Test:
        if not self.batch_shape:
            raise TypeError("this is one test, not a batch: it has no members to index")
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("this is one test, not a batch")
        return self.batch_shape[0]

    def __repr__(self) -> str:
        if is_traced(self.statistic):
            return f"Test({self.kind}: {self.hypothesis})"
        return _batch_text(self) if self.batch_shape else _text(self)

    __str__ = __repr__


def _text(test: Test) -> str:
    from jaxmle.tables.layout import wrap
    from jaxmle.tables.numerals import p_value, significant

    p = p_value(float(test.pvalue))
    value = (
        f"{_symbol(test)} = {significant(float(test.statistic))}, p "
        f"{p if p.startswith('<') else '= ' + p}"
    )
    drawn = (f"p from {int(test.replicates)} simulated data sets",) if int(test.replicates) else ()
    reason = (f"no p-value: {test.reason}",) if int(test.code) else ()
    return "\n".join(
        line
        for part in (f"{test.kind} test of {test.hypothesis}", value, *drawn, *reason)
        for line in wrap(part)
    )


def _symbol(test: Test) -> str:
    df = f"{float(np.max(np.asarray(test.df))):g}"
    return {
        "chi2": f"chi2({df})",
        "F": f"F({df}, {test.df_residual:g})",
        "normal": "z",
        "chi-bar-square": "chi-bar-square",
        "bootstrap": "statistic",
    }[test.law]


def _batch_text(test: Test) -> str:
    from jaxmle.tables.layout import wrap

    codes, times = np.unique(np.asarray(test.code), return_counts=True)
    known = np.asarray(test.pvalue)[np.asarray(test.code) == 0]
    share = (
        f"{100 * np.mean(known <= 0.05):.3g} % of {known.size} p-values are at most 0.05"
        if known.size
        else "no p-value"
    )
    none = [
        f"{int(k)} without: {REASON_MEANING[Reason(int(code))]}"
        for code, k in zip(codes, times, strict=True)
        if code
    ]
    head = f"{int(np.size(test.statistic))} {test.kind} tests of {test.hypothesis}, {_symbol(test)}"
    return "\n".join(line for part in (head, share, *none) for line in wrap(part))


# ---------------------------------------------------------------- laws


def chi2_sf(statistic: Array, df: Array) -> Array:
    """P(χ²_df > statistic)."""
    if namespace(statistic) is np:
        return scipy.special.chdtrc(df, statistic)
    from jax.scipy.special import gammaincc

    return gammaincc(df / 2, statistic / 2)


def f_sf(statistic: Array, df: float | Array, df_residual: float) -> Array:
    """P(F > statistic)."""
    if namespace(statistic) is np:
        return scipy.special.fdtrc(df, df_residual, statistic)
    from jax.scipy.special import betainc

    return betainc(df_residual / 2, df / 2, df_residual / (df_residual + df * statistic))


def two_sided(z: Array) -> Array:
    """2·P(Z > |z|) for a standard normal Z."""
    if namespace(z) is np:
        return 2 * scipy.special.ndtr(-np.abs(z))
    import jax.numpy as jnp
    from jax.scipy.special import ndtr

    return 2 * ndtr(-jnp.abs(z))


def outcome(
    statistic: Array,
    df: float,
    code: Array,
    kind: str,
    hypothesis: str,
    law: str = "chi2",
    df_residual: float = math.inf,
    broken: Tree = 0,
) -> Test:
    """The record of a statistic with its own distribution. If ``code`` is not 0 the p-value is NaN,
    and if ``broken`` the statistic too.
    """
    xp = namespace(statistic)
    statistic = xp.where(xp.asarray(broken, dtype=bool), xp.nan, statistic)
    safe = xp.where(xp.isnan(statistic), 0.0, statistic)
    size = xp.full_like(statistic, df)
    if law == "normal":
        p = two_sided(safe)
    elif law == "F":
        p = f_sf(safe, df, df_residual)
    elif law == "chi-bar-square":
        # Half of the time the estimate lies on the bound and the statistic is 0 (Self & Liang 1987,
        # JASA 82, case 5).
        p = xp.where(safe > 0, 0.5 * chi2_sf(safe, size), 1.0)
    else:
        p = chi2_sf(safe, size)
    p = xp.where((code != 0) | xp.isnan(statistic), xp.nan, p)
    whole = xp.zeros(statistic.shape, dtype=xp.int32)
    if xp is np:
        statistic, size, p, code, whole = (
            np.asarray(leaf)[()] for leaf in (statistic, size, p, code, whole)
        )
    return Test(statistic, size, p, code, whole, kind, hypothesis, law, df_residual)
