"""Vuong's test between two models that are not nested."""

from __future__ import annotations

import jax.numpy as jnp

from jaxmle._namespace import namespace
from jaxmle._types import Array, Axes, Loglik, Tree
from jaxmle.inference.again import Again, again
from jaxmle.inference.hypotheses.likelihood_ratio import has_supremum, same_data
from jaxmle.inference.hypotheses.record import Reason, Test, outcome
from jaxmle.likelihood.combinators import Penalize
from jaxmle.likelihood.contract import need_terms, terms_of
from jaxmle.likelihood.structure import has, weighting_of
from jaxmle.parameters.arguments import check_choice
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.record.fit import Fit


@with_keyword_hints
def vuong_test(
    loglik1: Loglik,
    fit1: Fit,
    loglik2: Loglik,
    fit2: Fit,
    data: Tree,
    *,
    correction: str = "none",
    in_axes: Axes = 0,
) -> Test:
    """Vuong's test of two models that are not nested: whether one is closer to the truth in
    Kullback–Leibler divergence.

        z = (Σ m_i − c) / (√n ω),  m_i = ℓ1_i − ℓ2_i,  ω² = Σ m_i²/n − (Σ m_i/n)²

    is standard normal if both are equally close (Vuong 1989, Econometrica 57, theorem 5.1); a large
    positive z favours the first model. The p-value is two-sided.

    This holds only for *strictly* non-nested models. If the models overlap, or one is nested in the
    other, and the truth lies in their intersection, ω² is zero in the limit and z is not normal;
    zero-inflated against plain counts is such a case (Wilson 2015, Economics Letters 127, 51–53).
    Vuong's preliminary variance test is not done here.

    Args:
        loglik1, fit1, loglik2, fit2: two likelihoods, each with one term per observation, and their
            fits to the same data. Both must include all constants of their density.
        data: the data of the fits; for a batch stacked.
        correction: ``"none"``, ``"aic"`` (c = k1 − k2) or ``"bic"`` (c = (k1 − k2) log(n) / 2).
        in_axes: as in ``score_test``.

    Returns:
        A ``Test`` whose statistic is z. NaN with a ``reason`` if a fit is not a maximum, or if the
        terms of both models are the same.

    Raises:
        ValueError: for fits of different data, models with different numbers of terms, or an
            unknown correction.

    >>> import numpy as np, jaxmle as jm
    >>> from jax.scipy.stats import laplace, norm
    >>> from jaxmle.inference.hypotheses.vuong import vuong_test
    >>> y = np.array([-3.0, -0.4, -0.1, 0.0, 0.1, 0.2, 0.4, 4.0])
    >>> one = lambda p, d: laplace.logpdf(d, 0.0, p["s"])
    >>> two = lambda p, d: norm.logpdf(d, 0.0, p["s"])
    >>> fits = [jm.fit(f, {"s": 1.0}, y, constraints={"s": jm.positive}) for f in (one, two)]
    >>> print(vuong_test(one, fits[0], two, fits[1], y))
    Vuong test of two models equally close to the truth
    z = 1.408, p = 0.159
    """
    check_choice("correction", correction, ("none", "aic", "bic"))
    same_data([fit1, fit2])
    first, second = (
        _terms(again(loglik, fit, data, in_axes=in_axes, what="vuong_test"))
        for loglik, fit in ((loglik1, fit1), (loglik2, fit2))
    )
    xp = namespace(first)
    if first.shape != second.shape:
        raise ValueError(
            f"the models have {first.shape[-1]} and {second.shape[-1]} terms: the terms "
            "of both must be for the same observations"
        )
    n = first.shape[-1]
    m = first - second
    mean = xp.mean(m, axis=-1)
    variance = xp.mean((m - mean[..., None]) ** 2, axis=-1)
    noise = (8 * xp.finfo(m.dtype).eps) ** 2 * xp.mean(first**2 + second**2, axis=-1) + 1e-12 * (
        fit1.decrement + fit2.decrement
    )
    k = fit1.df - fit2.df
    penalty = {"none": 0.0, "aic": float(k), "bic": 0.5 * k * float(xp.log(n)) if n else 0.0}[
        correction
    ]
    alike = variance <= noise
    z = (n * mean - penalty) / xp.sqrt(n * xp.where(alike, 1.0, variance))
    stopped = ~(has_supremum(fit1) & has_supremum(fit2))
    code = xp.where(
        (fit1.mode, fit2.mode) != ("ML", "ML"),
        int(Reason.PENALISED),
        xp.where(stopped, int(Reason.NOT_CONVERGED), xp.where(alike, int(Reason.ALIKE), 0)),
    )
    return outcome(
        z,
        1.0,
        code.astype(xp.int32),
        "Vuong",
        "two models equally close to the truth",
        "normal",
        broken=code != 0,
    )


def _terms(given: Again) -> Array:
    """The terms at the estimate, (..., n)."""
    if weighting_of(given.loglik) != "none" or given.fit.weighting != "none":
        raise ValueError(
            "Vuong's test is not defined here for weighted fits: repeat the rows that frequency "
            "weights stand for"
        )
    if has(given.loglik, Penalize):
        raise ValueError("Vuong's test compares likelihoods: give them without their priors")
    layout = given.fit.layout
    return given.evaluate(
        "terms",
        lambda ll, x, data, codes: need_terms(
            jnp.asarray(terms_of(ll, layout.unravel(x), data)), "Vuong's test"
        ),
    )
