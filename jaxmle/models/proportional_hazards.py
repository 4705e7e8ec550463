"""Cox's proportional hazards model: the partial likelihood, with ties, strata, late entry, weights
and an offset.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmle._namespace import namespace
from jaxmle._types import Array, Tree
from jaxmle.models.common import coding, response_laws
from jaxmle.models.common.model import Model
from jaxmle.models.common.options import made_once
from jaxmle.models.common.predictors import eta_of
from jaxmle.models.common.start_values import column
from jaxmle.models.survival import LATE_ENTRY
from jaxmle.models.time_order import time_order
from jaxmle.parameters.arguments import check_choice

# The most blocks that sums over ties run in; all are needed only if no two rows are tied.
TIE_BLOCKS = 16
MIN_ROWS_FOR_TIE_BLOCKS = 2**14  # with fewer rows one block is as fast


class CoxOptions(NamedTuple):
    """How a Cox model treats ties, and which leaves it reads besides x, time and event."""

    ties: str
    strata: str | None
    entry: str | None
    weights: str | None
    offset: str | None


class _Sorted(NamedTuple):
    """The rows in the order of stratum, time and events first: arrays (n,).

    ``eta`` is the predictor minus the largest one of the stratum, so that no sum overflows.
    """

    order: Array
    eta: Array
    time: Array
    event: Array
    w: Array
    group: Array
    fresh_group: Array  # whether a row is the first of its stratum
    tie: Array  # which tie a row belongs to
    first: Array  # the first row of its tie

    @property
    def risk(self) -> Array:
        """w e^η."""
        return self.w * jnp.exp(self.eta)

    @property
    def total_event(self) -> Array:
        """The weight of a row that has the event, 0 of others."""
        return jnp.where(self.event > 0, self.w, 0.0)

    @property
    def half_tie(self) -> Array:
        """2·tie of a row with an event, 2·tie + 1 of any other row: codes in increasing order."""
        return 2 * self.tie + (self.event <= 0)

    def in_tie(self, values: Array) -> Array:
        """Sums of ``values`` (n, …) over the tie of each row."""
        return jax.ops.segment_sum(values, self.tie, self.eta.shape[0])[self.tie]

    def shares(self, ties: str) -> tuple[Array, Array]:
        """For each row with an event, (n,) each: the share of the risk of its tie's events that is
        gone by then, and its weight.

        Efron: for the j-th of d tied events (from 0) the share j/d is gone, and its weight is their
        mean.
        """
        total_event = self.w * self.event
        if ties == "breslow":
            return jnp.zeros_like(self.eta), total_event
        died = jnp.maximum(self.in_tie(self.event), 1.0)
        place = jnp.arange(self.eta.shape[0])
        share = (place - self.first) / died  # events come first within their tie
        return share, jnp.where(self.event > 0, self.in_tie(total_event) / died, 0.0)


def _sorted(
    params: Tree, data: Tree, options: CoxOptions, multiplier: Array | None = None
) -> _Sorted:
    eta = eta_of(params, data, options.offset)
    time = jnp.asarray(data["time"])
    event = jnp.asarray(data["event"]).astype(eta.dtype)
    w = jnp.ones_like(eta)
    if options.weights is not None:
        w = jnp.asarray(data[options.weights]).astype(eta.dtype)
    w = w if multiplier is None else w * multiplier
    w = jnp.where(_is_missing(data, options), jnp.nan, w)
    group = jnp.zeros(time.shape, jnp.int32)
    if options.strata is not None:
        group = jnp.asarray(data[options.strata]).astype(jnp.int32)
    order = time_order(None if options.strata is None else group, time, event)
    eta, time, event, w, group = (a[order] for a in (eta, time, event, w, group))
    n = eta.shape[0]
    fresh_group = jnp.concatenate([jnp.ones(1, bool), group[1:] != group[:-1]])
    fresh_time = fresh_group | jnp.concatenate([jnp.ones(1, bool), time[1:] != time[:-1]])
    tie = jnp.cumsum(fresh_time, dtype=jnp.int32) - 1
    stratum = jnp.cumsum(fresh_group) - 1
    first = jax.ops.segment_min(jnp.arange(n, dtype=jnp.int32), tie, n)[tie]
    eta = eta - jax.lax.stop_gradient(jax.ops.segment_max(eta, stratum, n))[stratum]
    return _Sorted(order, eta, time, event, w, group, fresh_group, tie, first)


def _is_missing(data: Tree, options: CoxOptions) -> Array:
    """Whether the time, event, entry or stratum of any row is NaN. Sorting and comparisons treat a
    NaN as a number, so nothing else would reveal it.
    """
    names = ("time", "event", options.entry, options.strata)
    leaves = [jnp.asarray(data[name]) for name in names if name is not None]
    return jnp.any(jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in leaves]))


def cox_loglik(
    params: Tree, data: Tree, options: CoxOptions, multiplier: Array | None = None
) -> Array:
    """The partial log-likelihood of proportional hazards, one scalar.

    Args:
        multiplier: (n,) factors of the weights, 1 where None.
    """
    rows = _sorted(params, data, options, multiplier)
    risk = rows.risk
    at_risk = _sums_to_the_end(risk, rows.fresh_group)[rows.first]
    if options.entry is not None:
        at_risk = at_risk - _risk_not_entered(
            risk, data, options.entry, rows.order, rows.time, rows.group
        )
    share, mass = rows.shares(options.ties)
    gone = 0.0 if options.ties == "breslow" else share * rows.in_tie(rows.event * risk)
    has_event = rows.event > 0
    left = jnp.where(has_event, at_risk - gone, 1.0)
    return jnp.sum(jnp.where(has_event, rows.w * rows.event * rows.eta - mass * jnp.log(left), 0.0))


def second_order(
    params: Tree, data: Tree, options: CoxOptions
) -> tuple[Array, Array, Array] | None:
    """ℓ, its score (q,) and its Hessian (q, q) in ``beta``, by sums over the risk sets; None with
    late entry, where automatic derivatives are used.

    With x̄ the mean of x in the risk set of an event of weight m and risk S0, the score is Σ w x −
    Σ m x̄, and the Hessian Σ m x̄x̄' − Σ_j r_j E_j x_j x_j', E_j = Σ m/S0 over the events up to the
    time of j. All but the last sum run over whole ties.
    """
    x = jnp.asarray(data["x"])
    if options.entry is not None or x.ndim != 2 or jnp.shape(params["beta"]) != (x.shape[1],):
        return None
    rows = _sorted(params, data, options)
    return _by_ties(rows, x - jnp.mean(x, axis=0, keepdims=True), options.ties)


class _TieSums(NamedTuple):
    """What the sums over the rows need of each tie; places at the end may hold no tie.

    ``fresh``: the first of its stratum; ``open_end``: the next tie is of the same stratum;
    ``hazard``, ``hazard_of_events``: Σ m/S0 over the tie's events, and Σ (1 − s) m/S0; ``moments``:
    Σ m/S0², Σ (1 − s) m/S0² and Σ (1 − s)² m/S0².
    """

    fresh: Array
    open_end: Array
    hazard: Array
    hazard_of_events: Array
    moments: tuple[Array, Array, Array]


def _by_ties(rows: _Sorted, x: Array, ties: str) -> tuple[Array, Array, Array]:
    """ℓ, its score and its Hessian from sums over the ties.

    When a share s of a tie's events is gone, the risk is R + (1 − s)E, with E that of the tie's
    events and R that of all others at risk: sums of positive numbers. Sums of x are computed for a
    block of ties at a time, from the last to the first, so that few ties need few blocks.

    Args:
        x: (n, q) the centred design, in the order of the data.
    """
    n = x.shape[0]
    length = n if n < MIN_ROWS_FOR_TIE_BLOCKS else n // TIE_BLOCKS
    blocks = -(-n // length)
    value, sums, exposure = _tie_sums(rows, ties, blocks * length)

    def unsorted(values: Array) -> jax.Array:
        return jnp.zeros(n, values.dtype).at[rows.order].set(values, unique_indices=True)

    score = unsorted(rows.total_event) @ x
    weighted = unsorted(rows.risk)[:, None] * x
    means, outer = _means_of_ties(weighted, unsorted(rows.half_tie), rows.tie[-1], sums, length)
    inner = unsorted(rows.risk * exposure)[:, None] * x
    return value, score - means, outer - inner.T @ x


def _tie_sums(rows: _Sorted, ties: str, count: int) -> tuple[Array, _TieSums, Array]:
    """ℓ, the sums of ``count`` ties, and E_j of each row."""

    def of_tie(values: Array) -> jax.Array:
        return jax.ops.segment_sum(values, rows.tie, count, indices_are_sorted=True)

    halves = jax.ops.segment_sum(rows.risk, rows.half_tie, 2 * count, indices_are_sorted=True)
    events = halves[0::2]
    fresh = of_tie(rows.fresh_group.astype(int)) > 0
    open_end = jnp.append(~fresh[1:], False)
    later = jnp.roll(_sums_to_the_end(halves[1::2] + events, fresh), -1)
    others = halves[1::2] + jnp.where(open_end, later, 0.0)
    share, mass = rows.shares(ties)
    has_event = rows.event > 0
    rest = jnp.where(has_event, 1.0 - share, 0.0)
    left = jnp.where(has_event, others[rows.tie] + rest * events[rows.tie], 1.0)
    hazard = jnp.where(has_event, mass / left, 0.0)
    value = jnp.sum(rows.total_event * rows.eta - mass * jnp.log(left))
    squared = hazard / left
    # Three sums, not one sum of three columns: arrays of up to 32 MB reuse memory that was freed.
    moments = (of_tie(squared), of_tie(rest * squared), of_tie(rest**2 * squared))
    sums = _TieSums(fresh, open_end, of_tie(hazard), of_tie(rest * hazard), moments)
    last = jnp.append(fresh[1:], True)
    so_far = _sums_to_the_end(sums.hazard[::-1], last[::-1])[::-1]
    shift = (sums.hazard_of_events - sums.hazard)[rows.tie]
    return value, sums, so_far[rows.tie] + jnp.where(has_event, shift, 0.0)


def _means_of_ties(
    weighted: Array, half_tie: Array, last_tie: Array, sums: _TieSums, length: int
) -> tuple[Array, Array]:
    """Σ m x̄ (q,) and Σ m x̄x̄' (q, q), ``length`` ties at a time, from the last to the first.

    Args:
        weighted: (n, q) the design times the risk, in the order of the data.
        half_tie: (n,) 2·tie of a row with an event, 2·tie + 1 of any other row.
    """
    q = weighted.shape[1]
    blocks = sums.fresh.shape[0] // length
    turns = 1 if blocks == 1 else last_tie // length + 1

    def add_block(number: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        next_total, means, outer = carry
        start = (turns - 1 - number) * length
        part = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, length), sums)
        place = half_tie - 2 * start
        place = jnp.where((place >= 0) & (place < 2 * length), place, 2 * length)  # dropped
        halves = jax.ops.segment_sum(weighted, place, 2 * length)
        events = halves[0::2]
        others = halves[1::2].at[-1].add(jnp.where(part.open_end[-1], next_total, 0.0))
        total = _sums_to_the_end(others + events, part.fresh)
        later = jnp.concatenate([total[1:], jnp.zeros_like(total[:1])])
        others = others + jnp.where(part.open_end[:, None], later, 0.0)
        means = means + part.hazard @ others + part.hazard_of_events @ events
        whole, rest, square = (moment[:, None] for moment in part.moments)
        outer = (
            outer
            + others.T @ (whole * others + rest * events)
            + events.T @ (rest * others + square * events)
        )
        return total[0], means, outer

    nothing = jnp.zeros(q, weighted.dtype)
    start = (nothing, nothing, jnp.zeros((q, q), weighted.dtype))
    return jax.lax.fori_loop(0, turns, add_block, start)[1:]


def _sums_to_the_end(values: Array, fresh: Array) -> jax.Array:
    """Sums of ``values`` (n, …) from each row to the end of its stratum, accumulated from the end:
    differences of cumulative sums would lose the small ones.

    The rows are laid out in √n blocks of √n rows, summed side by side; then the sum that follows
    each block is added where no stratum ends in between. So n rows take 2√n steps, not n.

    Args:
        fresh: (n,) whether a row is the first of its stratum.
    """
    n = values.shape[0]
    length = math.isqrt(n - 1) + 1
    blocks = -(-n // length)
    rest = values.shape[1:]

    def laid_out(rows: Array) -> jax.Array:
        padding = ((0, blocks * length - n), *((0, 0) for _ in rows.shape[1:]))
        return jnp.pad(rows, padding).reshape(blocks, length, *rows.shape[1:]).swapaxes(0, 1)

    def where(condition: Array, total: Array) -> jax.Array:
        return jnp.where(condition.reshape(*condition.shape, *(1 for _ in rest)), total, 0.0)

    def within(later: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[Tree, Tree]:
        total = where(~row[1], later[0]) + row[0]
        is_open = later[1] & ~row[1]  # no stratum ends between the row and the end of its block
        return (total, is_open), (total, is_open)

    def across(later: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return block[0] + where(block[1], later), later

    last = laid_out(jnp.concatenate([fresh[1:], jnp.ones(1, bool)]))
    nothing = (jnp.zeros((blocks, *rest), values.dtype), jnp.ones(blocks, bool))
    total, is_open = jax.lax.scan(within, nothing, (laid_out(values), last), reverse=True)[1]
    heads = (total[0], is_open[0])
    after = jax.lax.scan(across, jnp.zeros(rest, values.dtype), heads, reverse=True)[1]
    whole = total + where(is_open, jnp.broadcast_to(after, total.shape))
    return whole.swapaxes(0, 1).reshape(-1, *rest)[:n]


def _risk_not_entered(
    risk: Array, data: Tree, entry: str, order: Array, time: Array, group: Array
) -> Array:
    """For each time, the risk of those in the stratum who enter at that time or later."""
    enters = jnp.asarray(data[entry])[order]
    by_entry = jnp.lexsort((enters, group))
    fresh = jnp.concatenate([jnp.ones(1, bool), group[by_entry][1:] != group[by_entry][:-1]])
    later = jnp.append(_sums_to_the_end(risk[by_entry], fresh), 0.0)
    # The first of the stratum's sorted entries not before the time, found by merging both lists.
    n = time.shape[0]
    both = jnp.lexsort(
        (
            jnp.concatenate([jnp.ones(n, bool), jnp.zeros(n, bool)]),
            jnp.concatenate([enters, time]),
            jnp.concatenate([group, group]),
        )
    )
    rank = jnp.cumsum(both < n)
    position = jnp.zeros(2 * n, rank.dtype).at[both].set(rank)[n:]
    inside = (position < n) & (jnp.append(group[by_entry], -1)[jnp.minimum(position, n)] == group)
    return jnp.where(inside, later[jnp.minimum(position, n)], 0.0)


def row_terms(params: Tree, data: Tree, options: CoxOptions) -> Array:
    """The derivative of ℓ by the logarithm of each row's weight, (n,).

    Its gradient in beta is the row's score residual times its weight: ∫ (x − x̄) dM, summed over a
    row's time at risk (Lin & Wei 1989, JASA 84, 1074). They sum to the score.
    """
    ones = jnp.ones(jnp.shape(data["time"]), jnp.result_type(float))
    return jax.grad(lambda m: cox_loglik(params, data, options, m))(ones)


# likelihood.contract.carried asks for these
cox_loglik.row_terms = row_terms  # type: ignore[attr-defined]
cox_loglik.second_order = second_order  # type: ignore[attr-defined]


@made_once
def cox(
    *,
    ties: str = "efron",
    strata: str | None = None,
    entry: str | None = None,
    weights: str | None = None,
    offset: str | None = None,
) -> Model:
    """Cox's proportional hazards by partial likelihood: hazard e^{xβ} times an unspecified baseline
    in each stratum, as in R's ``coxph`` and lifelines' ``CoxPHFitter``. Parameters: ``beta`` (q,).

    Risk sets make rows depend on each other, so the likelihood is one scalar, and anything that
    needs one term per row (``weights=`` of ``fit``) raises. Robust covariances use score residuals
    as the scores of rows: ``vcov="HC0"`` is that of Lin & Wei (1989), R's ``robust=TRUE``, and
    ``vcov="CR0"`` with ``clusters=`` R's ``cluster``. The design must not have an intercept.
    ``predict`` is the relative hazard e^{xβ}. ``jaxmle.survival`` has baselines, survival curves
    and residuals.

    Args:
        ties: ``"efron"`` (Efron 1977, Journal of the American Statistical Association 72, p. 557)
            or ``"breslow"``.
        strata: name of the leaf of stratum codes, integers.
        entry: name of the leaf of entry times; a row is at risk in (entry, time].
        weights: name of a leaf of case weights, which also apply in the risk sets; with Breslow's
            ties a weight of 2 is the same as the row twice.
        offset: name of a data leaf (n,) added to xβ.

    Returns:
        A ``Model`` of ``{"x": (n, q), "time": (n,), "event": (n,)}``, event 1 or 0.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle import models
    >>> data = {
    ...     "x": np.array([[0.0], [1.0], [0.0], [1.0]]),
    ...     "time": np.array([4.0, 2.0, 1.0, 3.0]),
    ...     "event": np.array([1, 1, 1, 1]),
    ... }
    >>> jm.fit(models.cox(), data=data).params["beta"].round(4).tolist()
    [0.4812]
    """
    check_choice("ties", ties, ("efron", "breslow"))
    options = CoxOptions(ties, strata, entry, weights, offset)
    return Model(
        "cox",
        functools.partial(cox_loglik, options=options),
        _start_cox,
        None,
        lambda params, data: (jnp.exp(eta_of(params, data, offset)),),
        response_laws.PredictiveLaw(mean=lambda relative: relative),
        "time",
        coding=_cox_coding(options),
    )


def _cox_coding(options: CoxOptions) -> tuple[coding.Rule, ...]:
    strata = options.strata
    entry = options.entry
    weights = options.weights
    return (
        coding.finite("time"),
        coding.events(),
        *(() if strata is None else (coding.groups(strata),)),
        *(() if weights is None else (coding.at_least_zero(weights),)),
        *(() if entry is None else (coding.Order(entry, "time", LATE_ENTRY, strict=True),)),
        *coding.optional(options.offset),
    )


def _start_cox(data: Tree) -> Tree:
    x = column(data, "x")
    y = column(data, "time")
    xp = namespace(x)
    single = x.shape == y.shape
    return {
        "beta": xp.zeros_like(y[..., 0])
        if single
        else xp.zeros_like(y[..., :1]) + xp.zeros_like(x[..., 0, :])
    }
