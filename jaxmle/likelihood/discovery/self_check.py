"""Checks of what is read from the program of a likelihood: it is compared with the general method
before its first use, and can be switched off.

Two forms differ from what the user wrote: a regression found in the program of a function
(``linear_predictors``), with its repeated operations done once (``runtime.cse``), and sums over
counts instead of rows (``histogram``). Each is mathematically identical, but the program is
checked. For a regression, the value, the score and a Hessian product over a few rows are computed
by it and by automatic differentiation of the summed terms; for counts, a sum is computed both ways.
If they differ by more than rounding, the form is not used. Repeated operations of a declared
regression are not compared: an operation is left out only if an earlier one has the same operands
and parameters, and tracing the program a second time would take a tenth of a first fit or more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxmle._types import Array, DTypeLike, FunctionTo, Loglik, Tree, ndarray
from jaxmle.closures.recipes import reduced
from jaxmle.likelihood.combinators import Penalize, Pool, WithResponse
from jaxmle.likelihood.contract import as_tree, data_length, leaf_of
from jaxmle.likelihood.discovery.linear_predictors import ROWS_OF_SECOND_TRACE, UnlikePrograms
from jaxmle.likelihood.discovery.rounding import evaluated, random_rounding
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.histogram import distinct, histogram
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.response import Exact
from jaxmle.likelihood.structure import jeffreys_of, parts_of
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.runtime.compile import remembered
from jaxmle.runtime.opaque import Opaque
from jaxmle.runtime.user_code import warn_caller

ROUNDING_RUNS = 3  # evaluations with random rounding, for each method
# allowed differences relative to the largest change by random rounding: three runs show less than 3
# % of their standard deviation once in 10⁴ entries, and two orders of summation differ by a few
# standard deviations
SAFETY_OF_ROUNDING = 100.0
STEP_FROM_START = 0.1  # on the free scale: a start of zeros hides everything multiplied by it

DECLARED = "declared"
FOUND = "found"
OPAQUE = "opaque"
HEAD_START = "head start"
FLOAT32_START = "float32 start"


class DiscoveryWarning(UserWarning):
    """A faster form found in the program of a likelihood does not agree with the likelihood and is
    not used. The fit uses the likelihood as written, which is correct but slower.

    >>> import warnings, numpy as np, jaxmle as jm
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", jm.DiscoveryWarning)  # a fit that does not say it
    ...     fit = jm.fit(lambda p, d: -((d - p["a"]) ** 2), {"a": 0.0}, np.arange(5.0))
    >>> fit.verdict.name
    'CONVERGED'
    """


class _Undecided(Exception):
    """The two forms cannot be compared at this point."""


# ---------------------------------------------------------------- switched off


@with_keyword_hints
def opaque(loglik: Loglik) -> Tree:
    """The likelihood as written: nothing is read from its program.

    A fit differentiates the sum of the terms, over all rows at once. No regression is looked for,
    no histogram of counts is used, and declarations (``regression``, a built-in model) are ignored.
    Rows are not proved independent, so members of unequal length are not padded, and weights are
    accepted after a numerical test. ``Fit.evaluation`` says ``"opaque"``. Comparing such a fit with
    the usual one checks jaxmle itself.

    Args:
        loglik: a function, a regression, a built-in model, or any combinator of these. The start
            and the constraints of a built-in model are not passed on.

    Returns:
        A log-likelihood of (params, data) with the same values, for ``fit`` and every combinator.

    Raises:
        TypeError: for anything but a function of (params, data).

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> logit = lambda p, d: d["y"] * (d["x"] @ p["b"]) - jnp.logaddexp(0.0, d["x"] @ p["b"])
    >>> rng = np.random.default_rng(0)
    >>> data = {"x": rng.normal(size=(20_000, 2)), "y": rng.integers(0, 2, 20_000).astype(float)}
    >>> usual = jm.fit(logit, {"b": jnp.zeros(2)}, data)
    >>> plain = jm.fit(jm.opaque(logit), {"b": jnp.zeros(2)}, data)
    >>> usual.evaluation, plain.evaluation
    ('found', 'opaque')
    >>> bool(np.allclose(usual.params["b"], plain.params["b"], rtol=0, atol=1e-9 * plain.se[0]))
    True
    """
    return _sealed(as_tree(loglik))


def _sealed(node: Tree) -> Tree:
    if isinstance(node, Opaque):
        return Opaque(node.function, discover=False)
    if isinstance(node, Regression):
        whole = Opaque(TermsAlone(node), discover=False)
        has_law = node.response is not None and not isinstance(node.response, Exact)
        return WithResponse(whole, node.response) if node.response and has_law else whole
    if isinstance(node, Pool):
        return replace(node, members=tuple(map(_sealed, node.members)))
    return replace(node, loglik=_sealed(node.loglik)) if parts_of(node) else node


@dataclass(frozen=True, eq=False)
class TermsAlone:
    """A regression as a plain function, without its declared structure."""

    regression: Regression

    def __call__(self, params: Tree, data: Tree) -> Array:
        return self.regression(params, data)

    @property
    def check_data(self) -> FunctionTo[None] | None:
        """The check of the coding of its data; None where it has none."""
        return getattr(self.regression.density, "check_data", None)

    def __reduce__(self) -> tuple[Tree, ...]:
        return reduced(self)


# ---------------------------------------------------------------- how the terms are summed


def evaluation_of(loglik: Loglik, used: Tree) -> str:
    """How the terms of a likelihood are summed: ``"declared"``, ``"found"`` or ``"opaque"``; for a
    pool those of its parts.

    Args:
        loglik: the user's likelihood, a tree.
        used: the same with the discovered forms.
    """
    return ", ".join(dict.fromkeys(_evaluations(loglik, used)))


def _evaluations(loglik: Loglik, used: Tree) -> list[str]:
    parts = parts_of(loglik)
    if parts:
        pairs = zip(parts, parts_of(used), strict=True)
        return [evaluation for part, other in pairs for evaluation in _evaluations(part, other)]
    if not isinstance(used, Regression):
        return [OPAQUE]
    return [DECLARED if isinstance(loglik, Regression) else FOUND]


# ---------------------------------------------------------------- found, and compared


def verified(loglik: Tree, form: Tree, layout: Layout, base: Array, data: Tree) -> Tree:
    """The discovered form of a likelihood; if it does not agree with the likelihood itself, the
    likelihood is restored.

    Args:
        loglik: a tree. For a declared regression, the terms of counts are compared.
        form: the same tree with regressions instead of functions.
        base: the parameters (p,).
        data: on the host.
    """
    if isinstance(loglik, Pool):
        parts = zip(loglik.members, form.members, data, strict=True)
        members = tuple(
            verified(member, form_member, layout, base, rows) for member, form_member, rows in parts
        )
        same = all(a is b for a, b in zip(members, form.members, strict=True))
        return form if same else replace(form, members=members)
    if isinstance(loglik, Penalize) and jeffreys_of(loglik) is not None:
        return form  # the prior needs what the regression declares
    if parts_of(loglik):
        inner = verified(loglik.loglik, form.loglik, layout, base, data)
        return form if inner is form.loglik else replace(form, loglik=inner)
    if form is not loglik:
        return form if _agrees(loglik, form, layout, base, data) else loglik
    if isinstance(loglik, Regression) and loglik.counts:
        return form if _agrees(loglik, form, layout, base, data) else _sealed(loglik)
    return form


def _agrees(loglik: Tree, form: Regression, layout: Layout, base: Array, data: Tree) -> bool:
    """Whether a form has the value, the score and the Hessian of the likelihood that it was found
    in, up to rounding; checked once for each function and structure of parameters and data.

    It warns if they differ. If they cannot be compared, at the start or close to it, a discovered
    regression is not used, but counts are.
    """
    base = np.asarray(base)
    kinds = tuple((np.shape(leaf)[1:], str(leaf.dtype)) for leaf in jax.tree.leaves(data))
    key = ("self-check", layout, str(base.dtype), jax.tree.structure(data), kinds)
    compare = _gap_of_counts if form is loglik else _gap_of_regression
    try:
        gap = remembered(
            (loglik, form), key, lambda pair: compare(pair[0], pair[1], layout, base, data)
        )
    except _Undecided:  # the two could not be compared
        return form is loglik
    if gap:
        what = (
            "the sum over the counts that occur"
            if form is loglik
            else "the regression found in the program of the likelihood"
        )
        warn_caller(
            f"{what} does not agree with automatic differentiation of the summed terms: "
            f"{gap}. It is not used, and the fit is correct without it. Please report "
            "this to jaxmle, with the likelihood; jaxmle.opaque(loglik) turns such forms "
            "off",
            DiscoveryWarning,
        )
    return not gap


def _gap_of_regression(
    loglik: Loglik, form: Regression, layout: Layout, base: ndarray, data: Tree
) -> str:
    """How a regression differs from the function that it was found in; "" if it does not."""
    rows = _few_rows(data)
    weights = _unlike(data_length(rows) or 0, base.dtype)  # so that rows cannot be exchanged
    try:
        return _gap((loglik, rows, weights), (form, rows, weights), layout, base)
    except UnlikePrograms:  # the caller warns with this reason
        return "its program for a few rows differs from that for all rows"


def _gap_of_counts(
    loglik: Regression, form: Regression, layout: Layout, base: ndarray, data: Tree
) -> str:
    """How a sum over counts differs from that over the rows; "" if it does not.

    Value, score and Hessian of a term of counts are sums of functions of the count. Random numbers
    for the counts represent all of these.
    """
    rows = _few_rows(data)
    for name, _ in form.counts:
        y = np.ravel(leaf_of(rows, name))
        number = int(distinct(y, np.array([y.size]))[0])
        if not number:  # no counts, and no histogram either
            continue
        weights = _unlike(y.size, np.float64)
        occurring = histogram(y, weights, number)
        counts = np.unique(y)
        values = _unlike(number, np.float64)
        by_rows = weights @ values[np.searchsorted(counts, y)]
        places = np.clip(np.searchsorted(counts, occurring.values), 0, number - 1)
        by_counts = occurring.weights @ values[places]
        rounding = SAFETY_OF_ROUNDING * np.finfo(float).eps * by_rows
        if not np.array_equal(counts[places], occurring.values):
            return f"counts of {name!r} occur in no row"
        if not abs(by_rows - by_counts) <= rounding:
            return f"a sum over {name!r} differs by {by_rows - by_counts:.3g} of {by_rows:.6g}"
    return ""


Weighted = tuple[Loglik, Tree, Array]  # a likelihood, its rows, and weights on them


def _gap(general: Weighted, other: Weighted, layout: Layout, base: ndarray) -> str:
    """How two methods for the same likelihood differ by more than rounding, in words; "" if they do
    not.

    Raises:
        _Undecided: neither the start nor a point beside it has finite derivatives by the general
            method.
    """
    along = _unlike(layout.p, base.dtype)
    programs = [
        _program(loglik, layout, base, rows, weights, along)
        for loglik, rows, weights in (general, other)
    ]
    for x in (_beside(layout, base), base):
        exact, noise = _with_rounding(programs[0], [x, *jax.tree.leaves(general[1:]), along])
        if not _is_finite(exact, noise):
            continue
        values, more = _with_rounding(programs[1], [x, *jax.tree.leaves(other[1:]), along])
        if not _is_finite(values) or _is_finite(more):
            return _difference(exact, values, [a + b for a, b in zip(noise, more, strict=True)])
    raise _Undecided


def _is_finite(*parts: list[Tree]) -> bool:
    return all(np.all(np.isfinite(value)) for part in parts for value in part)


def _unlike(number: int, dtype: DTypeLike) -> ndarray:
    """Numbers (number,) near one, no two alike."""
    return np.random.default_rng(0).uniform(0.5, 1.5, number).astype(dtype)


def _difference(general: list[Tree], other: list[Tree], noise: list[Tree]) -> str:
    names = ("the log-likelihood", "the score", "the Hessian")
    for name, a, b, rounding in zip(names, general, other, noise, strict=False):
        least = np.finfo(a.dtype).eps * np.max(np.abs(a), initial=0.0)
        allowed = SAFETY_OF_ROUNDING * (rounding + least)
        wrong = ~(np.abs(a - b) <= allowed)
        if np.any(wrong):
            worst = np.argmax(np.where(np.isnan(b), np.inf, np.abs(a - b)))
            return f"{name} differs by {np.ravel(a - b)[worst]:.3g} of {np.ravel(a)[worst]:.6g}"
    return ""


def _with_rounding(program: ClosedJaxpr, arguments: list[Tree]) -> tuple[list[Tree], list[Tree]]:
    """Value, score and Hessian product, and the largest change of each entry when every operation
    is rounded at random.
    """
    *exact, error = evaluated(program, arguments)
    runs = [
        evaluated(program, arguments, random_rounding(seed))[:-1] for seed in range(ROUNDING_RUNS)
    ]
    noise = [
        np.max([np.abs(run[place] - value) for run in runs], axis=0)
        for place, value in enumerate(exact)
    ]
    noise[-1] = noise[-1] + error
    return exact, noise


def _program(
    loglik: Loglik, layout: Layout, base: Array, rows: Tree, weights: Array, along: Array
) -> ClosedJaxpr:
    """The program of value (), score (p,), Hv (p,) and the error of the latter (p,), which is not
    zero if second derivatives are by differences.
    """

    def passed(x: Array, rows: Tree, weights: Array, along: Array) -> tuple[Array, ...]:
        point = sums(loglik, layout, x, rows, weights)
        error = None if point.hessian_by is None else point.hessian_by.error
        error_along = jnp.zeros_like(x) if error is None else error @ along
        return point.value, point.score, point.hessian @ along, error_along

    return jax.make_jaxpr(passed)(base, rows, weights, along)


def _few_rows(data: Tree) -> Tree:
    """Evenly spaced rows of those without NaN."""
    n = data_length(data) or 0
    usable = np.ones(n, bool)
    for leaf in jax.tree.leaves(data):
        if np.asarray(leaf).dtype.kind == "f":
            usable &= np.isfinite(np.asarray(leaf)).reshape(n, -1).all(axis=1)
    places = np.flatnonzero(usable)
    if not len(places):
        raise _Undecided
    chosen = places[np.linspace(0, len(places) - 1, min(ROWS_OF_SECOND_TRACE, n)).astype(int)]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], data)


def _beside(layout: Layout, base: ndarray) -> ndarray:
    """A point near the start, within all bounds."""
    chart = Chart(layout, (False,) * layout.p)
    z = np.asarray(chart.to_free(base))
    signs = np.where(np.arange(len(z)) % 2, -1.0, 1.0)
    moved = np.asarray(chart.to_user(z + STEP_FROM_START * signs.astype(z.dtype), base))
    return np.where(np.isfinite(base), moved, base).astype(base.dtype)
