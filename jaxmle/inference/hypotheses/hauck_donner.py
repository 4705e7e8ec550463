"""The Hauck-Donner effect: a Wald statistic falls although the estimate moves away from the value
under H0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced, namespace
from jaxmle._types import Array, Axes, Loglik, Tree
from jaxmle.inference.again import again, inverse_root, tangent
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.structure import has_law
from jaxmle.likelihood.terms import expected_information
from jaxmle.parameters.arguments import check_number
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import tracing


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["slope", "flag", "zvalues"],
    meta_fields=["names"],
)
@dataclass(frozen=True, eq=False)
class HauckDonner:
    """Whether each Wald statistic falls as its estimate moves away from the value under H0.

    Arrays have one entry per parameter, in the order of ``names``.

    ``slope`` (..., p) is ∂z/∂θ̂ in units of 1/SE, 1 if the variance does not change with the
    estimate; ``flag`` says whether it is negative; ``zvalues`` are the Wald statistics z. Entries
    without a test have NaN and no flag.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.hauck_donner import hauck_donner
    >>> logit = lambda params, y: y * params["a"] - jnp.logaddexp(0.0, params["a"])
    >>> y = np.array([1.0, 1.0, 0.0, 1.0])
    >>> found = hauck_donner(logit, jm.fit(logit, {"a": 0.0}, y), y)
    >>> round(float(found.slope[0]), 6), bool(found.flag[0])  # 1 + a(1 − 2p)/2, a = log 3
    (0.725347, False)
    """

    slope: Array
    flag: Array
    zvalues: Array
    names: tuple[str, ...]

    def __repr__(self) -> str:
        if np.ndim(self.slope) > 1 or is_traced(self.slope):
            return f"HauckDonner({', '.join(self.names[:6])}; shape {np.shape(self.slope)})"
        from jaxmle.tables.layout import Grid, Page, text
        from jaxmle.tables.numerals import significant, z_value

        flagged = [name for name, flag in zip(self.names, self.flag.tolist(), strict=True) if flag]
        rows = tuple(
            zip(
                self.names,
                map(z_value, self.zvalues.tolist()),
                map(significant, self.slope.tolist()),
                ["falls" if f else "" for f in self.flag.tolist()],
                strict=True,
            )
        )
        notes = (
            (
                "Where z falls, its p-value is too large; use a likelihood-ratio test of "
                f"{', '.join(flagged)} instead.",
            )
            if flagged
            else ()
        )
        head = (
            f"Hauck-Donner effect in {', '.join(flagged)}" if flagged else "no Hauck-Donner effect"
        )
        return text(
            Page(head, not flagged, (), (Grid(("", "z", "slope", ""), rows, words=(0, 3)),), notes)
        )

    __str__ = __repr__


@with_keyword_hints
def hauck_donner(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    value: float = 0.0,
    weights: Weights | None = None,
    in_axes: Axes = 0,
) -> HauckDonner:
    """Whether the Wald statistic of each parameter falls as its estimate moves away from ``value``.

    The statistic z = (θ̂_j − θ⁰)/√v_jj, with v the inverse information, is differentiated with
    respect to θ̂_j with the other estimates held fixed:

        √v_jj ∂z/∂θ̂_j = 1 − ½ (θ̂_j − θ⁰) (∂v_jj/∂θ_j)/v_jj,

    which is negative under the Hauck-Donner effect (Hauck & Donner 1977, JASA 72, 851–853; Yee
    2022, JASA 117, 1763–1774, equation 4). The information is the expected one if the likelihood
    knows the distribution of its response, as in Yee's definition, and otherwise the observed one.

    Args:
        loglik, fit, data: the likelihood, its fit (one or a batch), and the data of the fit.
        value: the value under H0.
        weights: those of the fit.
        in_axes: as in ``score_test``.

    Returns:
        ``HauckDonner`` with ``flag`` (..., p).

    Raises:
        ValueError: for data or weights that are not those of the fit.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.hauck_donner import hauck_donner
    >>> logit = lambda p, d: d * p["a"] - jnp.logaddexp(0.0, p["a"])
    >>> trials = np.repeat([1.0, 0.0], [23, 2])
    >>> print(hauck_donner(logit, jm.fit(logit, {"a": 0.0}, trials), trials))
    Hauck-Donner effect in a
    <BLANKLINE>
          z    slope
    a  3.31  -0.0257  falls
    <BLANKLINE>
    Where z falls, its p-value is too large; use a likelihood-ratio test of a instead.
    """
    value = check_number("value", value)
    given = again(loglik, fit, data, weights=weights, in_axes=in_axes, what="hauck_donner")
    layout = fit.layout
    slope, z = given.evaluate(
        ("hauck donner",),
        lambda ll, x, rows, codes, value: _slopes(ll, layout, x, rows, value),
        (_null_value(fit, value),),
    )
    xp = namespace(fit.loglik)
    inside = (
        np.array([low < value < high for low, high in fit.bounds])
        & xp.isfinite(fit.se)
        & xp.asarray(fit.converged)[..., None]
    )
    slope = xp.where(inside, slope, xp.nan)
    z = xp.where(inside, z, xp.nan)
    return HauckDonner(slope, slope < 0, z, fit.names)


def _null_value(fit: Fit, value: float) -> Array:
    """The value under H0, with the leading axes of the fit."""
    return (jnp if tracing() else np).full(fit.batch_shape, value, dtype=fit.dtype)


def _slopes(
    loglik: Loglik, layout: Layout, x: Array, data: Tree, value: Array
) -> tuple[Array, Array]:
    """The scaled slope and z of each entry, (p,): ∂v = −v (∂J) v along each coordinate."""
    lift, places = tangent(loglik, layout)
    basis = jnp.asarray(lift, x.dtype)

    def information(move: Array) -> Array:
        point = x + basis @ move
        matrix = (
            expected_information(loglik, layout, point, data).information
            if has_law(loglik)
            else -sums(loglik, layout, point, data).hessian
        )
        return basis.T @ matrix @ basis

    zero = jnp.zeros(len(places), x.dtype)
    root = inverse_root(information(zero))
    v = root @ root.T
    # (k, k, k): the last axis is the coordinate of differentiation.
    derivative = jax.jacfwd(information)(zero)
    change = -jnp.einsum("ja,abj,bj->j", v, derivative, v)
    variance = jnp.diagonal(v)
    away = x[places] - value
    nothing = jnp.full(layout.p, jnp.nan, x.dtype)
    return nothing.at[places].set(1 - 0.5 * away * change / variance), nothing.at[places].set(
        away / jnp.sqrt(variance)
    )
