"""Wald tests of one fit or of every fit of a batch: of entries, of linear combinations, of any
function of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.inference.again import check_fit
from jaxmle.inference.delta import finite_point, real_value
from jaxmle.inference.hypotheses.record import Reason, Test, outcome
from jaxmle.parameters.arguments import check_function, check_number, shown
from jaxmle.parameters.constraints import Simplex
from jaxmle.parameters.tree import Layout
from jaxmle.record.explain import combination
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision, tracing
from jaxmle.solvers.status import Status

Restriction = str | Sequence[Any] | Mapping[str, Any] | np.ndarray | Callable[[Tree], Tree]

# Ends that leave no estimate with a covariance; after the others the witness says which
# combinations have one.
LOST = (Status.NONFINITE, Status.UNBOUNDED, Status.SADDLE, Status.STALLED, Status.MAX_STEPS)


class Gap(NamedTuple):
    """How far the estimate is from H0: r(θ̂) (..., q), its Jacobian ∂r/∂x (..., q, p), and H0
    in words.
    """

    value: Array
    jacobian: Array
    hypothesis: str


def wald_test(
    fit: Fit, restriction: Restriction, value: Any = 0.0, *, df_residual: float | None = None
) -> Test:
    """Wald test of r(θ) = value, with the covariance that the fit carries: robust after a robust
    fit.

        W = (r(θ̂) − value)' (G V G')⁻¹ (r(θ̂) − value),  G = ∂r/∂θ,  χ² with q degrees of freedom
        under H0.

    Args:
        fit: one fit, or a batch (leading axes), which is tested in one vectorised pass.
        restriction: what is tested, in one of four forms: a name or a list of names (``"beta[1]"``,
            or ``"beta"`` for a whole leaf); a dictionary from names to values, as ``fix`` takes it;
            a matrix (q, p) in the order of ``fit.names``; a function of the parameters,
            differentiated exactly. Unlike the likelihood-ratio test, the test depends on how a
            nonlinear H0 is written. All entries of a simplex together are tested in log ratios,
            since their own covariance is singular by construction.
        value: the value under H0, a scalar or (q,). A dictionary brings its own.
        df_residual: F(q, df_residual) of W/q instead of χ²(q), such as the number of clusters less
            one.

    Returns:
        A ``Test``. NaN with a ``reason`` where the fit has no covariance to test with, where what
        is tested leaves the estimable space, or where its covariance is singular.

    Raises:
        ValueError, TypeError: for an unknown name, a repeated or contradictory restriction, or a
            value on or beyond a bound, where a Wald
        test has no meaning (``lr_test(…, on_bound=…)`` is the test there).

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
            "the fit has no covariance (vcov=None): fit again with one, or give it with "
            "fit.with_vcov(…)"
        )
    if df_residual is not None:
        df_residual = check_number("df_residual", df_residual, low=0.0)
    gap = _gap(fit, restriction, value)
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
    """r'(G V G')⁻¹r and its reason, where G leaves alone what has no estimate."""
    xp = namespace(fit.loglik)
    g = gap.jacobian
    used = xp.any(g != 0, axis=-2)
    known = xp.isfinite(fit.se)
    vcov = xp.where(used[..., :, None] & used[..., None, :], fit.witness.vcov, 0.0)
    # An entry with a standard error of its own is orthogonal to what is not estimable, whatever
    # rounding left of it in the projector.
    null = xp.where(known[..., :, None] | known[..., None, :], 0.0, fit.witness.projector)
    size = xp.sqrt(xp.sum(g**2, axis=-1))
    leak = xp.any(xp.sqrt(xp.sum((g @ null) ** 2, axis=-1)) > 1e-6 * size, axis=-1)
    away = xp.any(used & ((fit.witness.bound != 0) | ~xp.isfinite(finite_point(fit))), axis=-1)
    lost = xp.any(xp.stack([fit.status == int(status) for status in LOST]), axis=0)
    covariance = g @ vcov @ xp.swapaxes(g, -1, -2)
    variance = xp.diagonal(covariance, axis1=-2, axis2=-1)
    # A combination that is constant by construction, such as the sum of a simplex, has rounding for
    # a variance.
    most = (
        xp.sum(
            abs(g) * xp.sqrt(xp.abs(xp.diagonal(vcov, axis1=-2, axis2=-1)))[..., None, :], axis=-1
        )
        ** 2
    )
    fine = (
        xp.all(xp.isfinite(covariance), axis=(-2, -1))
        & xp.all(variance > 64 * xp.finfo(most.dtype).eps * most, axis=-1)
        & xp.all(xp.isfinite(gap.value), axis=-1)
    )
    scale = xp.sqrt(xp.where(fine[..., None], variance, 1.0))
    correlation = xp.where(
        fine[..., None, None],
        covariance,
        xp.broadcast_to(xp.eye(scale.shape[-1], dtype=covariance.dtype), covariance.shape),
    ) / (scale[..., :, None] * scale[..., None, :])
    values, axes = xp.linalg.eigh(correlation)
    # Restrictions that repeat each other leave an eigenvalue of rounding: ε cond(V), far below ε^⅔
    # where the fit is CONVERGED.
    regular = fine & (values[..., 0] > xp.finfo(correlation.dtype).eps ** (2 / 3))
    turned = (xp.swapaxes(axes, -1, -2) @ (gap.value / scale)[..., None])[..., 0]
    statistic = xp.sum(turned**2 / xp.where(regular[..., None], values, 1.0), axis=-1)
    code = xp.where(
        lost,
        int(Reason.NOT_CONVERGED),
        xp.where(
            leak | away, int(Reason.NOT_ESTIMABLE), xp.where(regular, 0, int(Reason.SINGULAR))
        ),
    )
    return statistic, code.astype(xp.int32)


# ---------------------------------------------------------------- restrictions


def _gap(fit: Fit, restriction: Restriction, value: Any) -> Gap:
    if isinstance(restriction, str):
        restriction = [restriction]
    if isinstance(restriction, Mapping):
        if not isinstance(value, float) or value != 0.0:
            raise ValueError("a dictionary of names brings its own values: leave value out")
        return _of_names(fit, *_listed(fit.layout, list(restriction), list(restriction.values())))
    if callable(restriction):
        return _of_function(fit, restriction, value)
    if (
        isinstance(restriction, list | tuple)
        and restriction
        and all(isinstance(name, str) for name in restriction)
    ):
        return _of_names(fit, *_positions(fit.layout, list(restriction), value))
    return _of_matrix(fit, restriction, value)


def _listed(layout: Layout, names: list[str], values: list[Any]) -> tuple[list[int], np.ndarray]:
    """Positions and targets of names that each have a value."""
    if not names:
        raise ValueError("the restriction names no parameter")
    where = [layout.find(_plain(name)) for name in names]
    targets = []
    for name, found, value in zip(names, where, values, strict=True):
        target = _numbers(f"the value of {name!r}", value)
        if target.size not in (1, len(found)):
            raise ValueError(
                f"the restriction gives {name!r} {target.size} values; it has {len(found)} entries"
            )
        targets.append(np.broadcast_to(target, (len(found),)))
    return _distinct(layout, [j for found in where for j in found]), np.concatenate(targets)


def _positions(layout: Layout, names: list[str], value: Any) -> tuple[list[int], np.ndarray]:
    """Positions of names and their targets, from one value for all of them."""
    where = _distinct(layout, [j for name in names for j in layout.find(_plain(name))])
    return where, _targets(value, len(where))


def _plain(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a restriction is named by strings such as 'beta[1]'; got {name!r}")
    if "=" in name:
        raise ValueError(
            f"{name!r} reads as an equation: write {{'beta[1]': 0.0}}, a matrix, or a function "
            "such as lambda p: p['beta'][1] - p['beta'][2]"
        )
    return name


def _distinct(layout: Layout, where: list[int]) -> list[int]:
    for j in where:
        if where.count(j) > 1:
            raise ValueError(f"the restriction names {layout.names[j]!r} more than once")
    return where


def _targets(value: Any, q: int) -> np.ndarray:
    target = _numbers("value", value)
    if target.size not in (1, q) or not np.all(np.isfinite(target)):
        raise ValueError(f"value must be finite, one number or {q} of them; got {shown(value)}")
    return np.broadcast_to(target, (q,))


def _numbers(name: str, value: Any) -> np.ndarray:
    """A flat array of real numbers."""
    array = value if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
    if isinstance(array, np.ma.MaskedArray) or array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers; got {shown(value)}")
    return np.ravel(array.astype(float))


def _of_names(fit: Fit, where: list[int], target: np.ndarray) -> Gap:
    """Entries against their values; whole simplexes in log ratios to their last entry."""
    xp = namespace(fit.loglik)
    x = finite_point(fit)
    names = fit.names
    for j, goal in zip(where, target.tolist(), strict=True):
        low, high = fit.bounds[j]
        if not (np.isfinite(goal) and low < goal < high):
            raise ValueError(
                f"H0 puts {names[j]} at {goal:g}, which is not strictly between {low:g} and "
                f"{high:g}: on a bound a Wald test has no meaning. Compare two fits with "
                "lr_test(restricted, full, on_bound=…)."
            )
    goal = dict(zip(where, target.tolist(), strict=True))
    whole = [row for row in _simplexes(fit.layout) if all(j in goal for j in row)]
    inside = {j for row in whole for j in row}
    values = []
    rows = []

    def spread(j: Any) -> Any:
        return xp.broadcast_to(xp.asarray(np.eye(len(names))[j], dtype=x.dtype), x.shape)

    for j in (j for j in where if j not in inside):
        values.append(x[..., j] - goal[j])
        rows.append(spread(j))
    for row in whole:
        if abs(sum(goal[j] for j in row) - 1) > 1e-9:
            raise ValueError(
                f"{names[row[0]]} … {names[row[-1]]} sum to one; the values of H0 sum to "
                f"{sum(goal[j] for j in row):g}"
            )
        last = row[-1]
        for j in row[:-1]:
            values.append(xp.log(x[..., j] / x[..., last]) - math.log(goal[j] / goal[last]))
            rows.append(spread(j) / x[..., j, None] - spread(last) / x[..., last, None])
    same = len(set(target.tolist())) == 1
    told = (
        " = ".join(names[j] for j in where[:6])
        + (" = …" if len(where) > 6 else "")
        + f" = {target[0]:g}"
    )
    each = ", ".join(f"{names[j]} = {goal[j]:g}" for j in where[:6]) + (
        ", …" if len(where) > 6 else ""
    )
    return Gap(
        xp.stack(values, axis=-1), xp.stack(rows, axis=-2).astype(x.dtype), told if same else each
    )


def _simplexes(layout: Layout) -> Iterator[list[int]]:
    """The positions of each set of probabilities that sum to one."""
    for leaf, span in zip(layout.leaves, layout.spans, strict=True):
        if isinstance(leaf.constraint, Simplex):
            yield from np.arange(span.start, span.stop).reshape(-1, leaf.shape[-1]).tolist()


def _of_matrix(fit: Fit, matrix: Any, value: Any) -> Gap:
    p = len(fit.names)
    xp = namespace(fit.loglik)
    x = finite_point(fit)
    try:
        if isinstance(matrix, str | bytes | np.ma.MaskedArray | type(None)):
            raise TypeError
        r = np.atleast_2d(np.asarray(matrix, dtype=float))
    except (TypeError, ValueError):
        raise TypeError(
            f"restriction must be names, a dictionary, a matrix (q, {p}) or a function of the "
            f"parameters; got {type(matrix).__name__}"
        ) from None
    if r.ndim != 2 or r.shape[1] != p or not r.size or not np.all(np.isfinite(r)):
        raise ValueError(
            f"the restriction must be a finite matrix (q, {p}), a column for each of "
            f"{', '.join(fit.names[:8])}; got shape {np.shape(matrix)}"
        )
    _refuse_repeats(r)
    target = _targets(value, len(r))
    used = np.broadcast_to(
        np.any(r != 0, axis=0), x.shape
    )  # an entry that no row looks at may be NaN
    value = xp.where(used, x, 0.0) @ r.T.astype(x.dtype)
    gap = value - np.broadcast_to(target, value.shape)
    told = ", ".join(
        f"{combination(fit.names, row)} = "
        f"{goal / np.abs(row).max() * np.sign(row[np.argmax(np.abs(row))]):g}"
        for row, goal in zip(r[:4], target, strict=False)
    )
    return Gap(
        gap.astype(x.dtype),
        xp.broadcast_to(xp.asarray(r, dtype=x.dtype), (*x.shape[:-1], *r.shape)),
        told + (", …" if len(r) > 4 else ""),
    )


def _refuse_repeats(r: np.ndarray) -> None:
    """The first row that is a combination of those above it, by name."""
    scaled = r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), np.finfo(float).tiny)
    for i in range(len(r)):
        if np.linalg.matrix_rank(scaled[: i + 1], tol=1e-10) <= i:
            what = "is zero" if not np.any(r[i]) else "is a combination of the rows above it"
            raise ValueError(f"row {i} of the restriction {what}: leave it out")


def _of_function(fit: Fit, g: Callable[[Tree], Tree], value: Any) -> Gap:
    """r and its Jacobian at every estimate, by forward differentiation."""

    check_function("restriction", g, "lambda params: params['a'] - params['b']")

    def at(x: Array) -> tuple[Array, Array]:
        def flat(x: Any) -> Any:
            return ravel_pytree(real_value("restriction", g(fit.layout.unravel(x))))[0]

        return flat(x), jax.jacfwd(flat)(x)

    for _ in fit.batch_shape:
        at = jax.vmap(at)
    if tracing():
        values, jacobian = at(finite_point(fit))
    else:
        with precision(fit.dtype):
            values, jacobian = (np.asarray(leaf) for leaf in at(jnp.asarray(finite_point(fit))))
    q = values.shape[-1]
    if not q:
        raise ValueError("the restriction returns no numbers")
    name = getattr(g, "__name__", "g").replace("<lambda>", "g")
    told = _targets(value, q)
    goal = f"{told[0]:g}" if len(set(told.tolist())) == 1 else ", ".join(f"{v:g}" for v in told[:6])
    return Gap(
        values - np.broadcast_to(told.astype(values.dtype), values.shape),
        jacobian,
        f"{name}(params) = {goal}",
    )


# ---------------------------------------------------------------- factors


@partial(jax.tree_util.register_dataclass, data_fields=["tests"], meta_fields=["terms"])
@dataclass(frozen=True)
class JointTests:
    """One Wald test for each term of a model: ``terms`` their names, ``tests`` the records in the
    same order.

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
        """The p-values, (..., terms): what ``holm`` and ``benjamini_hochberg`` take."""
        return namespace(self.tests[0].pvalue).stack([test.pvalue for test in self.tests], axis=-1)

    def __repr__(self) -> str:
        if self.tests[0].batch_shape or isinstance(self.tests[0].statistic, jax.core.Tracer):
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


def joint_tests(
    fit: Fit, terms: Mapping[str, Any] | None = None, *, df_residual: float | None = None
) -> JointTests:
    """One joint Wald test for each term: that all its coefficients are zero.

    Args:
        fit: one fit or a batch.
        terms: from the name of a term to the names of its coefficients, such as ``{"race":
            ["beta[3]", "beta[4]"]}``. None for one term for each leaf of the parameters, those
            aside for which 0 is no interior value (a variance, a probability).
        df_residual: as in ``wald_test``.

    Returns:
        ``JointTests``: ``tests["race"]``, ``pvalues`` (..., terms), and a table when printed.

    Raises:
        TypeError: for terms that are no dictionary.
        ValueError: for names that the fit does not have, and where no term can be zero.

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
            raise ValueError("no parameter can be zero inside its bounds: name the terms")
    if not isinstance(terms, Mapping) or not terms:
        raise TypeError(
            "terms is a dictionary from the name of a term to the names of its coefficients"
        )
    return JointTests(
        tuple(terms),
        tuple(wald_test(fit, names, df_residual=df_residual) for names in terms.values()),
    )
