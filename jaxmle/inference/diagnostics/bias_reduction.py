"""Mean bias reduction: the root of an adjusted score, whose solution has no first-order bias in
any regular model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, DTypeLike, Loglik, Tree, ndarray
from jaxmle.fitting.options import Options, Posed, read
from jaxmle.likelihood.combinators import Penalize, Weights
from jaxmle.likelihood.contract import need_terms, terms_of
from jaxmle.likelihood.derivatives import gradient
from jaxmle.likelihood.discovery.row_independence import check_traced, check_weighted
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.information.bias import adjustment, inverse_root
from jaxmle.likelihood.structure import count, has, has_law, roots_of, weighting_of
from jaxmle.likelihood.terms import NO_LAW, expected_information
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Chart, Layout
from jaxmle.record.fit import Fit
from jaxmle.record.identity import identity, with_response_id
from jaxmle.record.witness import Witness, empty_witness
from jaxmle.runtime.compile import cached_under_trace, compiled, precision, to_numpy, tracing
from jaxmle.solvers.status import Status

SHARE_OF_WAY_TO_BOUND = 0.9  # largest fraction of the distance to a bound for one step
DECREMENT_OF_ADJUSTED_SCORE = 1e-20  # decrement at which the iteration stops: 1e-10 standard errors
# decrements of 1e-6 and 1e-3 standard errors, as in ``fit``
DECREMENT_TO_CONVERGE = 5e-13
DECREMENT_TO_ACCEPT = 5e-7
MIN_SHARE_OF_STEP = 1e-6  # twenty halvings
MAX_EPS_OF_DOUBLE = 1e-10  # the machine epsilon of float64 is below it, that of float32 above


@with_keyword_hints
def mean_br(
    loglik: Loglik,
    params0: Tree = None,
    data: Tree = None,
    *,
    constraints: Tree = None,
    weights: Weights | None = None,
    dtype: DTypeLike = None,
    max_steps: int = 500,
) -> Fit:
    """Solve the adjusted score equation s(θ) + A(θ) = 0, whose root has no first-order bias.

    A_t = ½ tr{V (P_t + Q_t)} with V the inverse expected information, P_t = E(U U' U_t), Q_t =
    E(∂²ℓ U_t) and U the score. The root is found by quasi-Fisher scoring, θ ← θ + V (s + A), with
    steps that stay inside the bounds and are halved if (s + A)'V(s + A) does not fall. It is finite
    for separated binomial and multinomial samples and for counts with empty cells. It does not
    maximise anything, except for canonical links, where ``jeffreys`` gives the same estimate:
    ``mode`` is "BR (mean)", and AIC and BIC are NaN. The root depends on the parametrisation,
    because bias is not invariant.

    Args:
        loglik: a likelihood that knows the distribution of its response: ``with_response(loglik,
            law)``, or a ``regression`` with ``response=``, which for ``exact`` also needs its
            ``cross`` moments.
        params0, data, constraints, weights, dtype: as in ``fit``; weights are frequency weights.
        max_steps: iterations allowed.

    Returns:
        A ``Fit``: standard errors from the inverse expected information at the root; ``decrement``
        is that of the adjusted score; ``score`` is the unadjusted score. Its status is CONVERGED,
        MAX_STEPS, STALLED, IMPRECISE or NONFINITE. Under ``jax.vmap`` it is a batch.

    Raises:
        ValueError, TypeError: for mistakes visible in shapes and types, and for a likelihood that
            does not know the distribution of its response.

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
    options = Options(constraints=constraints, weights=weights, dtype=dtype, max_steps=max_steps)
    posed = read(loglik, params0, data, options)
    _check(posed)
    if tracing():
        return _traced(posed, options.max_steps)
    return with_response_id(_host(posed, options.max_steps), loglik, posed.loglik, posed.data)


def _check(posed: Posed) -> None:
    loglik = posed.loglik
    if has(loglik, Penalize):
        raise ValueError(
            "mean_br adjusts the score of a likelihood; a penalised likelihood is biased "
            "by its prior on purpose"
        )
    if not has_law(loglik):
        raise ValueError(NO_LAW)
    if weighting_of(loglik) == "sampling":
        raise ValueError(
            "mean_br needs expectations under a likelihood, and a sum with sampling "
            "weights is not a likelihood; use frequency weights"
        )

    if posed.chart.k != len(posed.chart.moving):
        raise ValueError(
            "mean_br needs every entry to be a free parameter: it cannot be used with a "
            "simplex, correlation or covariance constraint"
        )


def _host(posed: Posed, max_steps: int) -> Fit:
    chart = posed.chart
    with precision(posed.dtype), np.errstate(all="ignore"):
        base = posed.base
        check_weighted(posed.loglik, posed.layout, base, posed.data)
        piece = compiled(
            posed.loglik,
            ("mean_br", chart, max_steps),
            lambda ll: lambda x, data: _solve(ll, chart, x, data, max_steps),
        )
        fit = to_numpy(piece(base, jax.tree.map(jnp.asarray, posed.data)))
        return replace(fit, data_id=identity(posed.loglik, posed.data, posed.dtype))


def _traced(posed: Posed, max_steps: int) -> Fit:
    chart = posed.chart
    base = posed.base
    check_traced(posed.loglik, posed.layout, base, posed.data, None)
    return cached_under_trace(
        posed.loglik,
        ("mean_br", chart, max_steps, str(posed.dtype)),
        lambda ll: lambda x, data: _solve(ll, chart, x, data, max_steps),
    )(base, posed.data)


# ---------------------------------------------------------------- the iteration


class _AdjustedScore(NamedTuple):
    """The adjusted score equation at one point."""

    x: Array  # (p,)
    step: Array  # (p,)  V (s + A)
    decrement: Array  # ()  (s + A)'V(s + A)/2
    information: Array  # (p, p)  expected


class _State(NamedTuple):
    point: _AdjustedScore
    share: Array  # fraction of the full step that is tried next
    steps: Array
    done: Array


def _adjusted_score(
    loglik: Loglik, layout: Layout, roots: ndarray, x: Array, data: Tree
) -> _AdjustedScore:
    information = expected_information(loglik, layout, x, data).information
    root = inverse_root(information, roots)

    def terms(x: Array) -> Array:
        return jnp.sum(need_terms(terms_of(loglik, layout.unravel(x), data), "mean_br"))

    scaled = root.T @ (gradient(terms)(x) + adjustment(loglik, layout, x, data, root))
    return _AdjustedScore(x, root @ scaled, 0.5 * jnp.sum(scaled**2), information)


def _room(layout: Layout, x: Array, step: Array) -> Array:
    """The largest fraction of the step, at most one, that stays inside the bounds."""
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
        move = state.share * _room(layout, state.point.x, state.point.step) * state.point.step
        trial = _adjusted_score(loglik, layout, roots, state.point.x + move, data)
        better = trial.decrement < state.point.decrement  # False if the trial is not finite
        point = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, state.point)
        share = jnp.where(better, 1.0, state.share / 2)
        # At the level of rounding the full step no longer improves; otherwise the iteration ends
        # after twenty halvings without improvement.
        stuck = (share < MIN_SHARE_OF_STEP) | (
            ~better & ((point.decrement <= DECREMENT_TO_CONVERGE) | (state.steps == 0))
        )
        return _State(
            point, share, state.steps + 1, stuck | (point.decrement <= DECREMENT_OF_ADJUSTED_SCORE)
        )

    # The start is treated as the first trial, a step of length zero, so that the equation is
    # compiled only once.
    nowhere = _AdjustedScore(
        x,
        jnp.zeros_like(x),
        jnp.asarray(jnp.inf, x.dtype),
        jnp.full((layout.p, layout.p), jnp.nan, x.dtype),
    )
    begin = _State(nowhere, jnp.ones((), x.dtype), jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    end = jax.lax.while_loop(lambda state: ~state.done & (state.steps <= max_steps), step, begin)
    end = end._replace(steps=end.steps - 1)
    return _record(loglik, chart, roots, end, _status(end, float(eps)), data)


def _status(end: _State, eps: float) -> Array:
    """The verdict on the last state of the iteration."""
    decrement_to_converge = (
        DECREMENT_TO_ACCEPT if eps > MAX_EPS_OF_DOUBLE else DECREMENT_TO_CONVERGE
    )
    status = jnp.where(
        end.point.decrement <= decrement_to_converge,
        int(Status.CONVERGED),
        jnp.where(
            end.point.decrement <= DECREMENT_TO_ACCEPT, int(Status.IMPRECISE), int(Status.MAX_STEPS)
        ),
    )
    status = jnp.where(
        (end.share < MIN_SHARE_OF_STEP) & (end.point.decrement > DECREMENT_TO_ACCEPT),
        int(Status.STALLED),
        status,
    )
    return jnp.where(jnp.isfinite(end.point.decrement), status, int(Status.NONFINITE))


def _record(
    loglik: Loglik, chart: Chart, roots: ndarray, end: _State, status: Array, data: Tree
) -> Fit:
    """The ``Fit`` of a root: like that of a maximum, except for the mode and the decrement, which
    is that of the adjusted score.
    """
    layout = chart.layout
    x = end.point.x
    unadjusted = sums(loglik, layout, x, data)
    root = inverse_root(end.point.information, roots)
    known = (status == Status.CONVERGED) | (status == Status.IMPRECISE)
    failed = status == Status.NONFINITE
    follow = np.maximum(roots, 0)
    full = jnp.where(known, (root @ root.T)[follow][:, follow], jnp.nan)
    vcov = jnp.where((roots < 0)[:, None] | (roots < 0)[None, :], jnp.nan, full)
    estimate = jnp.where(failed, jnp.nan, x[np.where(roots >= 0, roots, np.arange(layout.p))])
    nan_if_failed = jnp.where(failed, jnp.nan, 1.0).astype(x.dtype)
    n = count(loglik, data, lambda: terms_of(loglik, layout.unravel(x), data).shape[0])
    return Fit(
        params=layout.unravel(estimate),
        stderr=layout.unravel_entries(jnp.sqrt(jnp.diagonal(vcov))),
        vcov=vcov,
        hessian=unadjusted.hessian * nan_if_failed,
        loglik=unadjusted.value * nan_if_failed,
        score=unadjusted.score * nan_if_failed,
        decrement=end.point.decrement,
        n=jnp.asarray(n, x.dtype),
        status=status.astype(jnp.int32),
        witness=_witness(chart, x, end.point.information, full, end.point.decrement),
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


def _witness(chart: Chart, x: Array, information: Array, vcov: Array, decrement: Array) -> Witness:
    """The witness of a root: its distance from the root, and the curvature of the information."""
    block = information[np.ix_(chart.moving, chart.moving)]
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(block)))
    distance = jnp.sqrt(2 * decrement)
    return replace(
        empty_witness(x),
        vcov=vcov,
        curvature=jnp.linalg.eigvalsh(block / jnp.outer(scale, scale))[0],
        digits=-jnp.log10(jnp.maximum(distance, jnp.finfo(x.dtype).eps)),
        distance=distance,
    )
