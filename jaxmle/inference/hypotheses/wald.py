"""Wald tests of one fit or of every fit of a batch: of entries, of linear combinations, of any
function of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, ArrayLike, Tree
from jaxmle.inference.again import check_fit
from jaxmle.inference.hypotheses.record import Reason, Test, outcome
from jaxmle.inference.hypotheses.restriction import Gap, Restriction, gap_of
from jaxmle.inference.statuses import STATUSES_WITHOUT_ESTIMATE
from jaxmle.parameters.arguments import check_number
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point

# A gradient with a larger part in the null space involves directions without an estimate.
MAX_NULL_SHARE_OF_GRADIENT = 1e-6


@with_keyword_hints
def wald_test(
    fit: Fit,
    restriction: Restriction,
    value: ArrayLike | Mapping[str, ArrayLike] = 0.0,
    *,
    df_residual: float | None = None,
) -> Test:
    """Wald test of r(θ) = value with the covariance of the fit, which is robust if the fit's is.

        W = (r(θ̂) − value)' (G V G')⁻¹ (r(θ̂) − value),  G = ∂r/∂θ,  χ² with q degrees of freedom
        under H0.

    Args:
        fit: one fit, or a batch, whose members are tested in one vectorised pass.
        restriction: what is tested, in one of five forms: a name or a list of names (``"beta[1]"``,
            ``"age"`` after a formula, or ``"beta"`` for a whole leaf); linear equations in names
            (``"age = 0"``, ``"a = b"``, ``"a - b = 1; c = 0"``); a dictionary from names to values,
            as in ``fix``; a matrix (q, p) in the order of ``fit.names``; a function of the
            parameters, differentiated exactly. Unlike the likelihood-ratio test, the result depends
            on how a nonlinear H0 is written. All entries of a simplex together are tested as log
            ratios, because their covariance is singular by construction.
        value: the value under H0, a scalar or (q,); not with a dictionary, which contains the
            values.
        df_residual: compare W/q with F(q, df_residual) instead of W with χ²(q); for example the
            number of clusters minus one.

    Returns:
        A ``Test``. NaN with a ``reason`` if the fit has no covariance, if the data do not determine
        the tested quantity, or if its covariance is singular.

    Raises:
        ValueError, TypeError: for an unknown name, a repeated or contradictory restriction, or a
            value on or beyond a bound, where a Wald test is not valid (use ``lr_test(…,
            on_bound=…)``).

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.wald import wald_test
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> fit = jm.fit(
    ...     lambda p, d: jnp.log(p["rate"]) - p["rate"] * d,
    ...     {"rate": 1.0},
    ...     y,
    ...     constraints={"rate": jm.positive},
    ... )
    >>> wald_test(fit, {"rate": 1.0})
    Wald test of rate = 1
    chi2(1) = 16.00, p <0.001
    >>> round(float(wald_test(fit, lambda params: jnp.log(params["rate"])).statistic), 4)
    4.8278
    """
    check_fit("wald_test", fit)
    if fit.vcov_kind == "none":
        raise ValueError(
            "the fit has no covariance (vcov=None): refit with one, or add one with "
            "fit.with_vcov(…)"
        )
    if df_residual is not None:
        df_residual = check_number("df_residual", df_residual, low=0.0)
    gap = gap_of(fit, restriction, value)
    with np.errstate(all="ignore"):
        statistic, code = _quadratic(gap, fit)
        q = gap.value.shape[-1]
        if df_residual is None:
            return outcome(statistic, q, code, "Wald", gap.hypothesis, broken=code != 0)
        return outcome(
            statistic / q,
            q,
            code,
            "Wald",
            gap.hypothesis,
            "F",
            float(df_residual),
            broken=code != 0,
        )


def _quadratic(gap: Gap, fit: Fit) -> tuple[Array, Array]:
    """The statistic r'(G V G')⁻¹r, and the reason why there is none, if G involves an entry without
    an estimate.
    """
    xp = namespace(fit.loglik)
    g = gap.jacobian
    used = xp.any(g != 0, axis=-2)
    known = xp.isfinite(fit.se)
    vcov = xp.where(used[..., :, None] & used[..., None, :], fit.witness.vcov, 0.0)
    # An entry with a standard error is orthogonal to the directions that are not estimable, apart
    # from rounding in the projector.
    null = xp.where(known[..., :, None] | known[..., None, :], 0.0, fit.witness.projector)
    size = xp.sqrt(xp.sum(g**2, axis=-1))
    leak = xp.any(
        xp.sqrt(xp.sum((g @ null) ** 2, axis=-1)) > MAX_NULL_SHARE_OF_GRADIENT * size, axis=-1
    )
    away = xp.any(used & ((fit.witness.bound != 0) | ~xp.isfinite(finite_point(fit))), axis=-1)
    without_covariance = xp.any(
        xp.stack([fit.status == int(status) for status in STATUSES_WITHOUT_ESTIMATE]), axis=0
    )
    covariance = g @ vcov @ xp.swapaxes(g, -1, -2)
    variance = xp.diagonal(covariance, axis1=-2, axis2=-1)
    # The variance of a combination that is constant by construction, such as the sum of a simplex,
    # is rounding error.
    largest_variance = (
        xp.sum(
            abs(g) * xp.sqrt(xp.abs(xp.diagonal(vcov, axis1=-2, axis2=-1)))[..., None, :], axis=-1
        )
        ** 2
    )
    computable = (
        xp.all(xp.isfinite(covariance), axis=(-2, -1))
        & xp.all(variance > 64 * xp.finfo(largest_variance.dtype).eps * largest_variance, axis=-1)
        & xp.all(xp.isfinite(gap.value), axis=-1)
    )
    statistic, regular = _form(gap.value, covariance, computable)
    code = xp.where(
        without_covariance,
        int(Reason.NOT_CONVERGED),
        xp.where(
            leak | away, int(Reason.NOT_ESTIMABLE), xp.where(regular, 0, int(Reason.SINGULAR))
        ),
    )
    return statistic, code.astype(xp.int32)


def _form(r: Array, covariance: Array, computable: Array) -> tuple[Array, Array]:
    """The quadratic form r'C⁻¹r, (...), and whether C is regular; ``fine`` is False if that cannot
    be computed.
    """
    xp = namespace(covariance)
    variance = xp.diagonal(covariance, axis1=-2, axis2=-1)
    scale = xp.sqrt(xp.where(computable[..., None], variance, 1.0))
    correlation = xp.where(
        computable[..., None, None],
        covariance,
        xp.broadcast_to(xp.eye(scale.shape[-1], dtype=covariance.dtype), covariance.shape),
    ) / (scale[..., :, None] * scale[..., None, :])
    values, axes = xp.linalg.eigh(correlation)
    # Redundant restrictions give an eigenvalue at the level of rounding: ε cond(V), far below ε^⅔
    # if the fit is CONVERGED.
    regular = computable & (values[..., 0] > xp.finfo(correlation.dtype).eps ** (2 / 3))
    turned = (xp.swapaxes(axes, -1, -2) @ (r / scale)[..., None])[..., 0]
    return xp.sum(turned**2 / xp.where(regular[..., None], values, 1.0), axis=-1), regular


# ---------------------------------------------------------------- factors


@partial(jax.tree_util.register_dataclass, data_fields=["tests"], meta_fields=["terms"])
@dataclass(frozen=True, eq=False)
class JointTests:
    """One Wald test for each term of a model: ``terms`` are their names, ``tests`` the results in
    the same order.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.wald import joint_tests
    >>> data = {"x": np.array([1.0, 3.0, 2.0, 6.0]), "y": np.array([0.0, 1.0, -1.0, 2.0])}
    >>> two = lambda p, d: -0.5 * (d["x"] - p["a"]) ** 2 - 0.5 * (d["y"] - p["b"]) ** 2
    >>> result = jm.fit(two, {"a": 0.0, "b": 0.0}, data)
    >>> tests = joint_tests(result, {"both": ["a", "b"], "second": ["b"]})
    >>> round(float(tests["both"].statistic), 6), round(float(tests["second"].statistic), 6)
    (37.0, 1.0)
    >>> 4 * (3.0**2 + 0.5**2), 4 * 0.5**2  # n times the squared means
    (37.0, 1.0)
    """

    terms: tuple[str, ...]
    tests: tuple[Test, ...]

    def __getitem__(self, term: str) -> Test:
        if term not in self.terms:
            raise KeyError(f"no term is called {term!r}; the terms are {', '.join(self.terms)}")
        return self.tests[self.terms.index(term)]

    @property
    def pvalues(self) -> Array:
        """The p-values, (..., terms), for ``holm`` and ``benjamini_hochberg``."""
        return namespace(self.tests[0].pvalue).stack([test.pvalue for test in self.tests], axis=-1)

    def __repr__(self) -> str:
        if self.tests[0].batch_shape or is_traced(self.tests[0].statistic):
            return f"JointTests({', '.join(self.terms)}; {self.tests[0].batch_shape} fits)"
        from jaxmle.tables.layout import Grid, Page, text
        from jaxmle.tables.numerals import p_value, significant

        rows = tuple(
            (term, f"{float(t.df):g}", significant(float(t.statistic)), p_value(float(t.pvalue)))
            for term, t in zip(self.terms, self.tests, strict=True)
        )
        notes = tuple(
            f"{term}: no p-value: {t.reason}"
            for term, t in zip(self.terms, self.tests, strict=True)
            if int(t.code)
        )
        law = self.tests[0].law
        return text(
            Page(
                f"Wald tests of {len(rows)} terms",
                True,
                (),
                (Grid(("", "df", law, "p"), rows),),
                notes,
            )
        )

    __str__ = __repr__


@with_keyword_hints
def joint_tests(
    fit: Fit, terms: Mapping[str, Tree] | None = None, *, df_residual: float | None = None
) -> JointTests:
    """Joint Wald tests, one for each term, that all its coefficients are zero.

    Args:
        fit: one fit or a batch.
        terms: a dictionary from names of terms to names of their coefficients, such as ``{"race":
            ["beta[3]", "beta[4]"]}``. None for one term per leaf of the parameters, except leaves
            for which 0 is not an interior value (a variance, a probability).
        df_residual: as in ``wald_test``.

    Returns:
        ``JointTests``: ``tests["race"]``, ``pvalues`` (..., terms), and a table when printed.

    Raises:
        TypeError: if ``terms`` is not a dictionary.
        ValueError: for names that the fit does not have, or if no term can be zero.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.wald import joint_tests
    >>> data = {"y": np.array([1.0, 2.0, 2.5, 4.5]), "x": np.array([0.0, 1.0, 2.0, 3.0])}
    >>> fit = jm.fit(
    ...     lambda p, d: -0.5 * (d["y"] - p["a"] - p["b"] * d["x"]) ** 2, {"a": 0.0, "b": 0.0}, data
    ... )
    >>> print(joint_tests(fit, {"line": ["a", "b"], "slope": ["b"]}))
    Wald tests of 2 terms
    <BLANKLINE>
           df    chi2       p
    line    2  31.050  <0.001
    slope   1   6.050   0.014
    """
    check_fit("joint_tests", fit)
    if terms is None:
        leaves = zip(fit.layout.leaves, fit.layout.spans, strict=True)
        free = [
            (leaf.path or "theta", span)
            for leaf, span in leaves
            if all(low < 0 < high for low, high in fit.bounds[span])
        ]
        terms = {name: list(fit.names[span]) for name, span in free}
        if not terms:
            raise ValueError("zero is inside the bounds of no parameter: name the terms to test")
    if not isinstance(terms, Mapping) or not terms:
        raise TypeError(
            "terms must be a dictionary from names of terms to names of their coefficients"
        )
    return JointTests(
        tuple(terms),
        tuple(wald_test(fit, names, df_residual=df_residual) for names in terms.values()),
    )
