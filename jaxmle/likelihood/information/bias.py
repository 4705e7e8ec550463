"""First-order bias: Jeffreys's penalty, the adjustment of the score that removes it, and what both
need from the distribution of the response.

With F the expected information, V = F⁻¹, P_t = E(U U' U_t) and Q_t = E(∂²ℓ U_t), U the score, the
adjustment of entry t is A_t = ½ tr{V (P_t + Q_t)} (Firth 1993, Biometrika 80; Kosmidis & Firth
2009, Biometrika 96, eq. 7). Terms are independent, so that A is a sum over rows: A = ½ Σ_i E{(s_i'V
s_i + tr V ∂²ℓ_i) s_i}. The first-order bias of the maximum is −V A (Cox & Snell 1968, JRSS B 30).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Loglik, Tree, ndarray
from jaxmle.likelihood.combinators import Fix, Penalize, Pool, Prior, Tie, Weight, WithResponse
from jaxmle.likelihood.contract import as_tree, data_length, handed_on, need_terms, terms_of
from jaxmle.likelihood.derivatives import curvature_along, first_that_exists
from jaxmle.likelihood.designs import gradient
from jaxmle.likelihood.evaluate import embedding, split_rows, sums
from jaxmle.likelihood.regression import Regression
from jaxmle.likelihood.response import Enumeration, Exact, Law, Simulation
from jaxmle.likelihood.structure import roots_of
from jaxmle.likelihood.terms import NO_LAW, expected_information, row_scores
from jaxmle.parameters.arguments import check_choice
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.opaque import LikelihoodTree

# ---------------------------------------------------------------- Jeffreys's penalty


@jax.tree_util.register_static
@dataclass(frozen=True)
class Jeffreys(LikelihoodTree):
    """The prior of ``jeffreys``: half the log determinant of the information of the likelihood
    under it.
    """

    information: str

    def of_likelihood(
        self, loglik: Loglik, layout: Layout, x: Array, data: Tree, weights: Array | None = None
    ) -> Array:
        """½ log|I(x)| over the entries that ``fix`` and ``tie`` inside leave free; NaN where I
        is not positive definite.
        """
        moving = np.flatnonzero(roots_of(loglik, layout) == np.arange(layout.p))
        block = self.information_of(loglik, layout, x, data, weights)[np.ix_(moving, moving)]
        scale = jax.lax.stop_gradient(jnp.sqrt(jnp.abs(jnp.diagonal(block))))
        scale = jnp.where(scale > 0, scale, 1.0)
        sign, log_det = jnp.linalg.slogdet(block / jnp.outer(scale, scale))
        return jnp.where(sign > 0, 0.5 * log_det + jnp.sum(jnp.log(scale)), jnp.nan)

    def information_of(
        self, loglik: Loglik, layout: Layout, x: Array, data: Tree, weights: Array | None = None
    ) -> Array:
        """The information in the penalty, unpenalised, (p, p)."""
        if self.information == "expected":
            return expected_information(loglik, layout, x, data, weights).information
        return -sums(loglik, layout, x, data, weights).hessian


@with_keyword_hints
def jeffreys(loglik: Loglik, *, information: str = "expected") -> Loglik:
    """The likelihood plus ½ log|I(θ)|, Jeffreys's prior: its maximum is finite even if that of the
    likelihood is at infinity.

    For a regression with a canonical link (logit, log for counts, multinomial logit, Cox) it
    removes the first-order bias of the estimates; for other links use ``mean_br``. Standard errors
    of a fit come from the unpenalised information at the estimate; profile intervals are those of
    the penalised likelihood. Unlike a maximum-likelihood estimate, this one depends on the
    parametrisation.

    Args:
        loglik: a likelihood that knows the distribution of its response: a ``regression`` with
            ``response=…``, or ``with_response(loglik, law)``.
        information: ``"expected"``; or ``"observed"`` for a likelihood that does not know the
            distribution of its response, such as Cox's partial likelihood, whose observed
            information is that of the risk sets (Heinze & Schemper 2001, Biometrics 57).

    Returns:
        A penalised likelihood, one scalar. The ``mode`` of its fit is "MPL (Jeffreys)".

    Raises:
        ValueError: for another information; on use, for an expected information if the distribution
            of the response is not known.

    Source: Firth (1993), Biometrika 80, 27–38.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.likelihood.information.bias import jeffreys
    >>> y = np.array([0.0, 0.0, 1.0, 1.0])  # separated at zero
    >>> logit = lambda params, data: (
    ...     data["y"] * params["b"] * data["x"] - jnp.logaddexp(0.0, params["b"] * data["x"])
    ... )
    >>> binary = jm.with_response(logit, jm.enumeration("y", [0.0, 1.0]))
    >>> result = jm.fit(
    ...     jeffreys(binary), {"b": 0.0}, {"y": y, "x": np.array([-2.0, -1.0, 1.0, 2.0])}
    ... )
    >>> bool(result.converged), round(float(result.params["b"]), 4), result.mode
    (True, 1.3828, 'MPL (Jeffreys)')
    """
    check_choice("information", information, ("expected", "observed"))
    return handed_on(loglik, Penalize(as_tree(loglik), cast(Prior, Jeffreys(information))))


# ---------------------------------------------------------------- the adjustment of the score


def inverse_root(information: Array, roots: ndarray) -> Array:
    """U (p, k) with UU' the inverse information on the free entries, with rows of zero elsewhere;
    NaN if it is not positive definite.
    """
    lift = np.eye(len(roots), dtype=information.dtype)[
        :, np.flatnonzero(roots == np.arange(len(roots)))
    ]
    j = lift.T @ information @ lift
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(j)))
    factor = jnp.linalg.cholesky(j / jnp.outer(scale, scale))
    return jnp.asarray(lift) @ (
        jax.scipy.linalg.solve_triangular(factor, jnp.eye(j.shape[0], dtype=j.dtype), lower=True).T
        / scale[:, None]
    )


def adjustment(
    loglik: Loglik, layout: Layout, x: Array, data: Tree, root: Array, weights: Array | None = None
) -> Array:
    """A (p,) at x, for V = UU' with U ``root`` (p, k)."""
    match loglik:
        case Weight():
            w = jnp.asarray(loglik.weights.values).astype(x.dtype)
            return adjustment(
                loglik.loglik, layout, x, data, root, w if weights is None else w * weights
            )
        case Penalize():
            raise ValueError(
                "the bias of a penalised estimate is not defined: give the likelihood without "
                "its penalty"
            )
        case Pool():
            parts = split_rows(weights, [data_length(part) for part in data])
            members = [
                adjustment(m, layout, x, d, root, w)
                for m, d, w in zip(loglik.members, data, parts, strict=True)
            ]
            return jnp.sum(jnp.stack(members), axis=0)
        case Fix() | Tie():
            e = embedding(loglik.roots(layout), x.dtype)
            return (
                adjustment(
                    loglik.loglik,
                    layout,
                    loglik.substitute(layout, x),
                    data,
                    jnp.asarray(e) @ root,
                    weights,
                )
                @ e
            )
        case WithResponse():
            return _by_law(loglik.loglik, loglik.law, layout, x, data, root, weights)
        case Regression() if isinstance(loglik.response, Exact):
            return _by_moments(loglik, loglik.response, layout, x, data, root, weights)
        case Regression() if loglik.response is not None:
            return _by_law(loglik, loglik.response, layout, x, data, root, weights)
    raise ValueError(NO_LAW)


def _row_adjustments(loglik: Loglik, layout: Layout, x: Array, data: Tree, root: Array) -> Array:
    """(s_i'V s_i + tr V ∂²ℓ_i) s_i at the responses in ``data``, (n, p); the trace is a sum of
    second derivatives along the columns of U.
    """
    scores = row_scores(loglik, layout, x, data)

    def terms(x: Array) -> Array:
        return need_terms(terms_of(loglik, layout.unravel(x), data), "the bias")

    trace = curvature_along(terms, x, root.T)
    return (jnp.sum((scores @ root) ** 2, axis=1) + trace)[:, None] * scores


def _by_law(
    loglik: Loglik,
    law: Law,
    layout: Layout,
    x: Array,
    data: Tree,
    root: Array,
    weights: Array | None,
) -> Array:
    """The expectation by enumeration, or as a mean over simulated data sets."""

    def whole(rows: Tree) -> Tree:
        return 0.5 * (jnp.sum(rows, axis=0) if weights is None else weights @ rows)

    if isinstance(law, Enumeration):

        def adjustment_of_value(value: Array) -> tuple[Array, Array]:
            imagined = law.with_response(data, value)
            probability = jnp.exp(
                need_terms(terms_of(loglik, layout.unravel(x), imagined), "enumeration")
            )
            rows = _row_adjustments(loglik, layout, x, imagined, root)
            return whole(
                jnp.where(probability[:, None] > 0, probability[:, None] * rows, 0.0)
            ), probability

        total, mass = law.expectation(adjustment_of_value)
        return jnp.where(jnp.all(jnp.isfinite(law.whole(mass, mass))), total, jnp.nan)
    if isinstance(law, Simulation):
        params = layout.unravel(x)

        def draw(key: jax.Array) -> Tree:
            return whole(_row_adjustments(loglik, layout, x, law.sampler(key, params, data), root))

        return jnp.mean(jax.lax.map(draw, jax.random.split(law.key, law.draws)), axis=0)
    raise ValueError(NO_LAW)


def _slope(information: Callable[[Array], Array], values: Array, c: int) -> Array:
    """The derivative of the information of each row in its own predictor c, (a, b, n), at the
    predictors ``values`` (m, n).
    """

    def moved(step: Array) -> Array:
        return information(jnp.asarray(values).at[c].add(step))

    def total(step: Array) -> Array:
        return jnp.sum(moved(step), axis=-1)

    step = jnp.zeros(values.shape[1], values.dtype)
    by_sums = partial(jax.jacrev(total), step)
    by_forward = lambda: jax.jvp(moved, (step,), (jnp.ones_like(step),))[1]  # noqa: E731
    # Newer versions of jax report a missing forward mode only when compiling.
    return first_that_exists((by_sums, by_forward), moved, step)


def _by_moments(
    loglik: Regression,
    law: Exact,
    layout: Layout,
    x: Array,
    data: Tree,
    root: Array,
    weights: Array | None,
) -> Array:
    """The closed form in the predictors η of a row. With ν_ab,c = E(∂²f/∂η_a∂η_b · ∂f/∂η_c), f the
    log density, and I its expected information,

    E(s_a s_b s_c) = ∂I_ab/∂η_c − ν_ac,b − ν_bc,a, so that A_c = ½ Σ_ab K_ab (∂I_ab/∂η_c − 2ν_ac,b +
    ν_ab,c) with K = X V X'. A predictor that is nonlinear in the parameters adds ½ Σ_a tr(V ∂²η_a)
    I_ac.
    """
    if law.cross is None:
        raise ValueError(
            "the bias needs more about the distribution of the response than its "
            "information: exact(information, cross=…) with E(∂²log f/∂η_a∂η_b · ∂log "
            "f/∂η_c), or with_response(loglik, enumeration(leaf, values)) or "
            "with_response(loglik, simulation(sampler, key=…))"
        )
    values, columns, curved = loglik.predictors(layout, x, data)
    params = layout.unravel(x)
    along = jnp.stack(
        [
            jnp.broadcast_to(root[c.where], (values.shape[1], root.shape[1]))
            if c.design is None
            else c.design @ root[c.where]
            for c in columns
        ]
    )
    spread = jnp.einsum("ank,bnk->abn", along, along)

    def information(values: Tree) -> Array:
        return loglik.expected_curvature(params, values, data)

    slopes = jnp.stack([_slope(information, values, c) for c in range(len(values))], axis=2)
    cross = loglik.cross_moments(params, values, data)
    adjusted = 0.5 * jnp.einsum(
        "abn,abcn->cn", spread, slopes - 2 * jnp.swapaxes(cross, 1, 2) + cross
    )
    if curved:

        def eta(x: Array) -> Array:
            return loglik.predictors(layout, x, data).values

        adjusted += 0.5 * jnp.einsum(
            "an,acn->cn", curvature_along(eta, x, root.T), information(values)
        )
    return gradient(columns, adjusted if weights is None else weights[None, :] * adjusted, layout.p)
