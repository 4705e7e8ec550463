"""The likelihood-ratio test of two fits, and its distribution if H0 lies on a bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, Tree
from jaxmle.inference.hypotheses.record import Reason, Test, outcome
from jaxmle.inference.statuses import STATUSES_WITH_SUPREMUM
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import tracing
from jaxmle.solvers.status import Status


@with_keyword_hints
def lr_test(restricted: Fit, full: Fit, *, on_bound: str | None = None) -> Test:
    """Likelihood-ratio test of a restricted model against a full one: 2(ℓ_full − ℓ_restricted),
    compared with χ² whose df is the difference in df.

    The models must be nested; the fits cannot show whether they are.

    Args:
        restricted: the fit under H0, of ``fix(loglik, …)``, of ``tie(loglik, …)``, or of another
            function.
        full: the fit of the full model to the same data; both may be batches of the same shape.
        on_bound: the parameter of the full fit that H0 puts on its bound (a variance of 0, an
            overdispersion of 0). The statistic is then 0 half of the time, and the p-value is
            ½·P(χ²₁ > 2Δℓ), or 1 if the statistic is 0 (Self & Liang 1987, JASA 82, 605–610, case
            5). This holds for one such parameter, if no other parameter vanishes under H0.

    Returns:
        A ``Test``. NaN with a ``reason`` if the distribution of 2Δℓ is not known: a fit that is not
        a maximum, an estimate on a bound that H0 does not name, penalised fits, sampling weights,
        robust covariances, a restricted fit above the full one.

    Raises:
        ValueError: for fits of different data or of different n, or if the first is not the smaller
            one.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.likelihood_ratio import lr_test
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> gamma = lambda p, d: (
    ...     (p["k"] - 1) * jnp.log(d)
    ...     - p["rate"] * d
    ...     + p["k"] * jnp.log(p["rate"])
    ...     - jm.special.gammaln(p["k"])
    ... )
    >>> start, bounds = {"k": 1.0, "rate": 1.0}, {"k": jm.positive, "rate": jm.positive}
    >>> exponential = jm.fit(jm.fix(gamma, {"k": 1.0}), start, y, constraints=bounds)
    >>> lr_test(exponential, jm.fit(gamma, start, y, constraints=bounds))
    Likelihood-ratio test of 1 restriction
    chi2(1) = 1.621, p = 0.203
    """
    same_data([restricted, full])
    df = full.df - restricted.df
    if df < 1:
        raise ValueError(
            "the restricted fit comes first and has fewer free parameters; got df "
            f"{restricted.df} and {full.df}"
        )
    j = None if on_bound is None else _bounded(full, on_bound)
    xp = namespace(full.loglik)
    statistic = 2 * (full.loglik - restricted.loglik)
    noise = _noise(restricted, full)
    code = (
        xp.zeros(statistic.shape, dtype=xp.int32)
        if hasattr(statistic, "shape")
        else xp.zeros((), dtype=xp.int32)
    )
    for reason, holds in reversed(_reasons(restricted, full, statistic < -noise, j, df)):
        code = xp.where(holds, int(reason), code)
    law = "chi2" if j is None else "chi-bar-square"
    hypothesis = (
        f"{df} restriction{'s' if df > 1 else ''}" if j is None else f"{on_bound} on its bound"
    )
    settled = (
        xp.where(xp.abs(statistic) <= noise, 0.0, statistic)
        if j is not None
        else xp.maximum(statistic, xp.where(statistic < -noise, statistic, 0.0))
    )
    return outcome(
        settled,
        df,
        code.astype(xp.int32),
        "Likelihood-ratio",
        hypothesis,
        law,
        broken=(code == int(Reason.NOT_CONVERGED))
        | (code == int(Reason.PENALISED))
        | (code == int(Reason.SAMPLING)),
    )


def _bounded(full: Fit, name: str) -> int:
    """The position of the one entry that H0 puts on a bound."""
    if not isinstance(name, str):
        raise TypeError(f"on_bound must be the name of a parameter; got {shown(name)}")
    entries = full.layout.find(name)
    if len(entries) != 1:
        raise ValueError(f"on_bound must name one parameter; {name!r} has {len(entries)} entries")
    if not any(np.isfinite(full.bounds[entries[0]])):
        raise ValueError(
            f"on_bound={name!r}, but the full fit has no bound for it: declare the bound "
            "by a constraint such as jaxmle.positive"
        )
    return entries[0]


def _noise(restricted: Fit, full: Fit) -> Array:
    """A bound on the numerical error of 2Δℓ: the remaining gain of both fits, and the rounding of
    two sums of n terms.
    """
    xp = namespace(full.loglik)
    shortfall = xp.where(xp.isfinite(full.decrement), full.decrement, 0.0) + xp.where(
        xp.isfinite(restricted.decrement), restricted.decrement, 0.0
    )
    return 2 * xp.minimum(shortfall, 1e-6) + 64 * xp.finfo(full.dtype).eps * (
        xp.abs(full.loglik) + xp.abs(restricted.loglik) + xp.where(xp.isnan(full.n), 0.0, full.n)
    )


def _reasons(
    restricted: Fit, full: Fit, higher: Array, j: int | None, df: int
) -> list[tuple[Reason, Tree]]:
    """The reasons why the distribution of the statistic may be unknown, the most serious first."""
    xp = namespace(full.loglik)
    robust = any(fit.vcov_kind.startswith(("HC", "CR")) for fit in (restricted, full))
    on_bound = full.witness.bound != 0
    other_bound = xp.any(
        on_bound if j is None else on_bound & (np.arange(len(full.names)) != j), axis=-1
    )
    stopped = xp.stack([~has_supremum(fit) for fit in (restricted, full)])
    return [
        (Reason.PENALISED, restricted.mode != "ML" or full.mode != "ML"),
        (Reason.SAMPLING, "sampling" in (restricted.weighting, full.weighting)),
        (Reason.NOT_CONVERGED, xp.any(stopped, axis=0)),
        (Reason.HIGHER, higher),
        (Reason.DAVIES, j is not None and df > 1),
        (Reason.BOUNDARY, other_bound | (restricted.status == int(Status.BOUNDARY))),
        (Reason.ROBUST, robust),
    ]


def has_supremum(fit: Fit) -> Array:
    """Whether the log-likelihood of a fit is the supremum of its model."""
    xp = namespace(fit.loglik)
    return xp.any(
        xp.stack([fit.status == int(status) for status in STATUSES_WITH_SUPREMUM]), axis=0
    )


def same_data(fits: Sequence[Fit]) -> None:
    """Raise for fits that cannot be compared: of different data, sizes, weights or batches."""
    first = fits[0]
    for place, fit in enumerate(fits):
        if not isinstance(fit, Fit):
            raise TypeError(
                f"both arguments must be fits; argument {place} is a {type(fit).__name__}"
            )
    for place, fit in enumerate(fits):
        if fit.batch_shape != first.batch_shape:
            raise ValueError(
                f"fit {place} has batch shape {fit.batch_shape}, the first {first.batch_shape}"
            )
        if fit.weighting != first.weighting:
            raise ValueError(
                f"fit {place} has weights of the kind {fit.weighting!r}, the first "
                f"{first.weighting!r}"
            )
        if tracing() or is_traced(fit.loglik):
            continue
        _same_rows(first, fit, place)


def _same_rows(first: Fit, fit: Fit, place: int) -> None:
    """Raise unless fits have the same data, or the same response and weights with any designs."""
    known, same = _compared(first.data_id, fit.data_id)
    has_response, same_response = _compared(first.response_id, fit.response_id)
    other = known & ~same & ~(has_response & same_response)
    for differs, what in (
        (_differ(first.n, fit.n), "another n"),
        (other, "other data"),
    ):
        if np.any(differs):
            where = f", in member {int(np.flatnonzero(differs)[0])}" if first.batch_shape else ""
            raise ValueError(
                f"fit {place} was made from {what} than the first{where}: log-likelihoods "
                "are comparable only on the same data. Built-in models and regressions "
                "need the same response, rows and weights. For your own functions, give "
                "all models the same data tree, with all columns and the same rows, "
                "types and order of leaves, and fix parameters that a model leaves out "
                "with jaxmle.fix."
            )


def _differ(first: Array, second: Array) -> Array:
    """Whether numbers differ; two NaN, which are unknown, do not."""
    first = np.asarray(first)
    second = np.asarray(second)
    return (first != second) & ~(np.isnan(first) & np.isnan(second))


def _compared(first: Array, second: Array) -> tuple[Array, Array]:
    """Whether both fingerprints are known (they are zero under a trace), and whether they
    agree; one for each member.
    """
    first = np.asarray(first)
    second = np.asarray(second)
    known = np.any(first != 0, axis=-1) & np.any(second != 0, axis=-1)
    return known, np.all(first == second, axis=-1)
