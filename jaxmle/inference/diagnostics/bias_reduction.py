"""Mean bias reduction: the root of an adjusted score, whose solution has no first-order bias in
any regular model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Loglik, Tree
from jaxmle.fitting.fit import host_dtype
from jaxmle.fitting.identity import identity, with_response_id
from jaxmle.likelihood.checks import (
    check_fixed,
    check_start,
    check_values,
    check_weight_shapes,
    host_data,
    host_params,
    traced_data,
)
from jaxmle.likelihood.combinators import Penalize, weight
from jaxmle.likelihood.contract import as_tree, need_terms, rows_of, terms_of
from jaxmle.likelihood.derivatives import gradient
from jaxmle.likelihood.discovery.row_independence import check_traced, check_weighted
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.information.bias import adjustment, inverse_root
from jaxmle.likelihood.structure import count, has, has_law, roots_of, substituted, weighting_of
from jaxmle.likelihood.terms import NO_LAW, expected_information
from jaxmle.parameters.arguments import check_count
from jaxmle.parameters.tree import Chart, Layout, layout_of
from jaxmle.record.fit import Fit, Witness
from jaxmle.runtime.compile import compiled, kept, precision, to_numpy, tracing
from jaxmle.solvers.status import Status

SHARE_OF_WAY_TO_BOUND = 0.9  # share of the way to a bound that one step may take
DECREMENT_OF_ADJUSTED_SCORE = 1e-20  # decrement at which the iteration stops: 1e-10 standard errors
# decrements of 1e-6 and 1e-3 standard errors, as in ``fit``
GOOD = 5e-13
FAIR = 5e-7


def mean_br(
    loglik: Loglik,
    params0: Tree = None,
    data: Tree = None,
    *,
    constraints: Tree = None,
    weights: Any = None,
    dtype: Any = None,
    max_steps: int = 500,
) -> Fit:
    """Solve the adjusted score equation s(θ) + A(θ) = 0, whose root has no bias of first order.

    A_t = ½ tr{V (P_t + Q_t)} with V the inverse expected information, P_t = E(U U' U_t) and Q_t =
    E(∂²ℓ U_t), U the score. It is found by quasi-Fisher scoring, θ ← θ + V (s + A), with steps
    halved where (s + A)'V(s + A) does not fall and kept inside the bounds. The root is finite on
    separated binomial and multinomial samples and on counts with empty cells. It is no maximum of
    anything, except for canonical links, where ``jeffreys`` gives the same: the record's ``mode``
    is "BR (mean)", and AIC and BIC are NaN. The root belongs to the parameters as they are given:
    bias is not invariant.

    Args:
        loglik: a likelihood that knows the law of its response: ``with_response(loglik, law)``, or
            a ``regression`` with ``response=``, which for ``exact`` needs its ``cross`` moments
            too.
        params0, data, constraints, weights, dtype: as in ``fit``; weights are frequency weights.
        max_steps: iterations allowed.

    Returns:
        A ``Fit``: standard errors from the inverse expected information at the root; ``decrement``
            is that of the adjusted score; ``score`` the
        score without adjustment. Its status is CONVERGED, MAX_STEPS, STALLED, IMPRECISE or
        NONFINITE. Under ``jax.vmap`` a batch.

    Raises:
        ValueError, TypeError: for what is visible in shapes and types, and a likelihood without a
            law of its response.

    Source: Firth (1993), Biometrika 80, 27–38; Kosmidis & Firth (2009), Biometrika 96, 793–804.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.diagnostics.bias_reduction import mean_br
    >>> logit = lambda params, data: (
    ...     data["y"] * params["b"] * data["x"] - jnp.logaddexp(0.0, params["b"] * data["x"])
    ... )
    >>> separated = {"y": np.array([0.0, 0.0, 1.0, 1.0]), "x": np.array([-2.0, -1.0, 1.0, 2.0])}
    >>> result = mean_br(
    ...     jm.with_response(logit, jm.enumeration("y", [0.0, 1.0])), {"b": 0.0}, separated
    ... )
    >>> round(float(result.params["b"]), 4), result.mode
    (1.3828, 'BR (mean)')
    """
    if params0 is None:
        if not hasattr(loglik, "start"):
            raise ValueError(
                "params0 is missing: give start values; only a model with a method start(data) "
                "may go without"
            )
        params0 = loglik.start(data)
    constraints = getattr(loglik, "constraints", None) if constraints is None else constraints
    tree = as_tree(loglik if weights is None else weight(loglik, weights))
    max_steps = check_count("max_steps", max_steps)
    _check(tree)
    if tracing():
        return _traced(tree, params0, data, constraints, dtype, max_steps)
    found = _host(tree, params0, data, constraints, dtype, max_steps)
    return with_response_id(found, loglik, tree, data)


def _check(loglik: Loglik) -> None:
    if has(loglik, Penalize):
        raise ValueError(
            "mean_br adjusts the score of a likelihood; a penalised one has a prior's bias on "
            "purpose"
        )
    if not has_law(loglik):
        raise ValueError(NO_LAW)
    if weighting_of(loglik) == "sampling":
        raise ValueError(
            "mean_br needs expectations under a likelihood, and a sum under sampling weights is "
            "none; frequency weights are"
        )


def _chart(loglik: Loglik, layout: Layout) -> Chart:
    chart = Chart(layout, tuple(bool(root != j) for j, root in enumerate(roots_of(loglik, layout))))
    if not chart.k:
        raise ValueError("every parameter is fixed: there is nothing to estimate")
    if chart.k != len(chart.moving):
        raise ValueError(
            "mean_br needs as many free parameters as entries: no simplex, correlation or "
            "covariance among them"
        )
    return chart


def _host(
    loglik: Loglik, params0: Tree, data: Tree, constraints: Tree, dtype: Any, max_steps: int
) -> Fit:
    real = host_dtype(dtype)
    params = host_params(params0, real)
    layout = layout_of(params, constraints)
    check_start(layout, params)
    check_fixed(loglik, layout)
    data = host_data(data, real)
    check_values(loglik, data)
    chart = _chart(loglik, layout)
    with precision(real), np.errstate(all="ignore"):
        rows_of(loglik, data)
        x = np.asarray(substituted(loglik, layout, layout.ravel(params)))
        check_weighted(loglik, layout, x, data)
        piece = compiled(
            loglik,
            ("mean_br", chart, max_steps),
            lambda ll: lambda x, data: _solve(ll, chart, x, data, max_steps),
        )
        fit = to_numpy(piece(x, jax.tree.map(jnp.asarray, data)))
        return replace(fit, data_id=identity(loglik, data, real))


def _traced(
    loglik: Loglik, params0: Tree, data: Tree, constraints: Tree, dtype: Any, max_steps: int
) -> Fit:
    real = jnp.zeros(()).dtype if dtype is None else host_dtype(dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(real), params0)
    data = traced_data(data, real)
    layout = layout_of(params, constraints)
    check_weight_shapes(loglik, data)
    chart = _chart(loglik, layout)
    x = jnp.asarray(substituted(loglik, layout, layout.ravel(params)))
    check_traced(loglik, layout, x, data, None)
    return kept(
        loglik,
        ("mean_br", chart, max_steps, str(real)),
        lambda ll: lambda x, data: _solve(ll, chart, x, data, max_steps),
    )(x, data)


# ---------------------------------------------------------------- the iteration


class _At(NamedTuple):
    """The adjusted score equation at one point."""

    x: Array  # (p,)
    step: Array  # (p,)  V (s + A)
    decrement: Array  # ()  (s + A)'V(s + A)/2
    information: Array  # (p, p)  expected


class _State(NamedTuple):
    at: _At
    share: Array  # of the full step that is tried next
    steps: Array
    done: Array


def _at(loglik: Loglik, layout: Layout, roots: np.ndarray, x: Array, data: Tree) -> _At:
    information = expected_information(loglik, layout, x, data).information
    root = inverse_root(information, roots)

    def terms(x: Any) -> Any:
        return jnp.sum(need_terms(terms_of(loglik, layout.unravel(x), data), "mean_br"))

    scaled = root.T @ (gradient(terms)(x) + adjustment(loglik, layout, x, data, root))
    return _At(x, root @ scaled, 0.5 * jnp.sum(scaled**2), information)


def _room(layout: Layout, x: Array, step: Array) -> Array:
    """The largest share of the step, at most one, that stays inside the bounds."""
    low, high = (np.array([bound[side] for bound in layout.bounds]) for side in (0, 1))
    left = jnp.where(step < 0, x - low, high - x)
    return jnp.minimum(
        1.0,
        SHARE_OF_WAY_TO_BOUND
        * jnp.min(jnp.where(step == 0, jnp.inf, left / jnp.where(step == 0, 1.0, jnp.abs(step)))),
    )


def _solve(loglik: Loglik, chart: Chart, x: Array, data: Tree, max_steps: int) -> Fit:
    layout = chart.layout
    roots = roots_of(loglik, chart.layout)
    eps = jnp.finfo(x.dtype).eps

    def step(state: _State) -> _State:
        move = state.share * _room(layout, state.at.x, state.at.step) * state.at.step
        trial = _at(loglik, layout, roots, state.at.x + move, data)
        better = trial.decrement < state.at.decrement  # False where the trial is not finite
        at = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.at)
        share = jnp.where(better, 1.0, state.share / 2)
        # At the floor of rounding the full step no longer improves; elsewhere twenty halvings that
        # do not help are the end.
        stuck = (share < 1e-6) | (~better & ((at.decrement <= GOOD) | (state.steps == 0)))
        return _State(
            at, share, state.steps + 1, stuck | (at.decrement <= DECREMENT_OF_ADJUSTED_SCORE)
        )

    # The start is the first trial, a step of length zero from nowhere: so the equation is compiled
    # once.
    nowhere = _At(
        x,
        jnp.zeros_like(x),
        jnp.asarray(jnp.inf, x.dtype),
        jnp.full((layout.p, layout.p), jnp.nan, x.dtype),
    )
    begin = _State(nowhere, jnp.ones((), x.dtype), jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    end = jax.lax.while_loop(lambda state: ~state.done & (state.steps <= max_steps), step, begin)
    end = end._replace(steps=end.steps - 1)
    fair = FAIR if eps > 1e-10 else GOOD
    status = jnp.where(
        end.at.decrement <= fair,
        int(Status.CONVERGED),
        jnp.where(end.at.decrement <= FAIR, int(Status.IMPRECISE), int(Status.MAX_STEPS)),
    )
    status = jnp.where((end.share < 1e-6) & (end.at.decrement > FAIR), int(Status.STALLED), status)
    status = jnp.where(jnp.isfinite(end.at.decrement), status, int(Status.NONFINITE))
    return _record(loglik, chart, roots, end, status, data)


def _record(
    loglik: Loglik, chart: Chart, roots: np.ndarray, end: _State, status: Array, data: Tree
) -> Fit:
    """The ``Fit`` of a root: as of a maximum, but for the mode and the equation whose decrement
    is told.
    """
    layout = chart.layout
    x = end.at.x
    at = sums(loglik, layout, x, data)
    root = inverse_root(end.at.information, roots)
    known = (status == Status.CONVERGED) | (status == Status.IMPRECISE)
    failed = status == Status.NONFINITE
    follow = np.maximum(roots, 0)
    full = jnp.where(known, (root @ root.T)[follow][:, follow], jnp.nan)
    vcov = jnp.where((roots < 0)[:, None] | (roots < 0)[None, :], jnp.nan, full)
    estimate = jnp.where(failed, jnp.nan, x[np.where(roots >= 0, roots, np.arange(layout.p))])
    hollow = jnp.where(failed, jnp.nan, 1.0).astype(x.dtype)
    n = count(loglik, data, lambda: terms_of(loglik, layout.unravel(x), data).shape[0])
    return Fit(
        params=layout.unravel(estimate),
        stderr=layout.unravel_entries(jnp.sqrt(jnp.diagonal(vcov))),
        vcov=vcov,
        hessian=at.hessian * hollow,
        loglik=at.value * hollow,
        score=at.score * hollow,
        decrement=end.at.decrement,
        n=jnp.asarray(n, x.dtype),
        status=status.astype(jnp.int32),
        witness=_witness(chart, end.at.information, full, end.at.decrement),
        steps=end.steps,
        data_id=jnp.zeros(2, jnp.uint32),
        response_id=jnp.zeros(2, jnp.uint32),
        names=layout.names,
        bounds=layout.bounds,
        df=chart.k,
        vcov_kind="expected",
        mode="BR (mean)",
        weighting=weighting_of(loglik),
        layout=layout,
    )


def _witness(chart: Chart, information: Array, vcov: Array, decrement: Array) -> Witness:
    """What the record of a root can show: how far it is from the root, and the curvature of the
    information there.
    """
    block = information[np.ix_(chart.moving, chart.moving)]
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(block)))
    p = chart.layout.p
    real = information.dtype
    distance = jnp.sqrt(2 * decrement)
    none = jnp.asarray(-1, jnp.int32)
    zeros = jnp.zeros(chart.layout.p, jnp.int32)
    return Witness(
        row=none,
        term=none,
        direction=jnp.zeros(p, real),
        sign=zeros,
        projector=jnp.zeros((p, p), real),
        vcov=vcov,
        bound=zeros,
        curvature=jnp.linalg.eigvalsh(block / jnp.outer(scale, scale))[0],
        digits=-jnp.log10(jnp.maximum(distance, jnp.finfo(real).eps)),
        gain=jnp.zeros((), real),
        distance=distance,
        stderr_error=jnp.zeros(p, real),
        certificate=jnp.zeros((), jnp.int32),
    )
