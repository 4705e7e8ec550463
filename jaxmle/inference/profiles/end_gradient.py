"""The end of a profile interval as a differentiable function of data, weights, or anything else
that the likelihood depends on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle._types import Array, Loglik, Tree
from jaxmle.inference.again import again, check_fit
from jaxmle.inference.profiles.profile import Profile
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.derivatives import (
    DIFFERENCES,
    FORWARD_OVER_FORWARD,
    first_that_exists,
    matrix_of,
)
from jaxmle.likelihood.structure import chart_of, roots_of
from jaxmle.parameters.arguments import check_choice, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Chart
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import portable_copy
from jaxmle.runtime.opaque import map_functions


@with_keyword_hints
def profile_end(
    loglik: Loglik,
    fit: Fit,
    found: Profile,
    data: Tree,
    name: str,
    side: str = "upper",
    *,
    weights: Weights | None = None,
) -> jax.Array:
    """An end found by ``profile``, differentiable with respect to everything that is traced in
    ``loglik`` and ``data``.

    The maximum θ̂, the end θ and the multiplier λ are the joint root of s(θ̂) = 0, s(θ) = λ ∂ψ/∂θ,
    ℓ(θ̂) − ℓ(θ) = χ²/2, so the derivatives come from the implicit function theorem. The value is
    the end that was found: call this at the data and weights of the fit, inside ``jax.grad``,
    ``jax.jacfwd`` or ``jax.hessian``, with float64 on. If data go through a ``while_loop``, which
    has no reverse mode, use ``jax.jacfwd``; parameters may go through one.

    Args:
        loglik, fit, data: those of ``profile``, one fit; arrays in them may be traced.
        found: its ``Profile``.
        name: a parameter among ``found.names``.
        side: ``"lower"`` or ``"upper"``.
        weights: those of the fit.

    Returns:
        The end, a scalar; NaN if it is not FOUND.

    Raises:
        ValueError: for a batch, a function instead of a parameter, or an unknown name.
        TypeError: if the Hessian of the fit was computed by differences of the score.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.profiles.profile import profile
    >>> from jaxmle.inference.profiles.end_gradient import profile_end
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> found = profile(exponential, result, y)
    >>> with jax.enable_x64(True):  # the end is proportional to 1/Σy, so each derivative is −end/Σy
    ...     slope = jax.grad(lambda y: profile_end(exponential, result, found, y, "rate"))(y)
    >>> np.allclose(slope, -found.upper[0] / 12, rtol=1e-6)
    True
    """
    check_fit("profile_end", fit, alone=True)
    if not hasattr(found, "at_ends"):
        raise TypeError(f"found must be the result of profile; got {shown(found)}")
    if found.batch_shape:
        raise ValueError("profile_end takes one fit and its profile: index the batch first")
    check_choice("side", side, ("lower", "upper"))
    name = _plain_name(fit, name)
    if name not in found.names or name not in fit.names:
        raise ValueError(
            f"{name!r} is not a parameter of this profile; it has "
            f"{', '.join(n for n in found.names if n in fit.names)}"
        )
    if fit.hessian_by == DIFFERENCES:
        raise TypeError(
            "the Hessian of this fit was computed by differences of the score: a part of "
            "its likelihood has a derivative rule that jax cannot differentiate again, "
            "so the end of a profile has no derivative. Write that rule with functions "
            "that jax can differentiate, or take differences of whole profiles"
        )
    given = again(loglik, fit, data, weights=weights, what="profile_end")
    tree = map_functions(given.weighted, portable_copy)
    layout = fit.layout
    roots = roots_of(tree, layout)
    entry = int(roots[layout.names.index(name)])
    if entry < 0:
        raise ValueError(f"{name!r} is held by fix and has no interval")
    chart = chart_of(tree, layout)
    end = found.at_ends[found.names.index(name), int(side == "upper")]
    return _end(
        tree,
        chart,
        np.asarray(fit.x),
        end,
        entry,
        given.data,
        float(scipy.special.ndtri(0.5 + found.level / 2)) ** 2,
        fit.hessian_by,
    )


def _plain_name(fit: Fit, name: object) -> str:
    """The printed name of one entry, from any of its names; any other text as it is."""
    if not isinstance(name, str):
        raise TypeError(f"a parameter is named by a string such as 'beta[1]'; got {shown(name)}")
    try:
        places = fit.layout.find(name)
    except ValueError:  # the caller lists the names
        return name
    return fit.names[places[0]] if len(places) == 1 else name


def _end(
    tree: Loglik,
    chart: Chart,
    top: Array,
    end_point: Array,
    entry: int,
    data: Tree,
    cut: float,
    method: str,
) -> jax.Array:
    if not np.all(np.isfinite(np.concatenate([top, end_point]))):
        return jnp.asarray(jnp.nan)
    base = jnp.asarray(top)

    def loglik(z: Array) -> Array:
        return jnp.sum(terms_of(tree, chart.layout.unravel(chart.to_user(z, base)), data))

    def psi(z: Array) -> Tree:
        return chart.to_user(z, base)[entry]

    k = chart.k
    best = jnp.asarray(chart.to_free(top))
    end = jnp.asarray(chart.to_free(end_point))
    score = jax.jacfwd(loglik) if method == FORWARD_OVER_FORWARD else jax.grad(loglik)
    slope = jax.lax.stop_gradient(score(end))
    psi_gradient = jax.grad(psi)(end)
    multiplier = slope @ psi_gradient / (psi_gradient @ psi_gradient)
    start = jnp.concatenate([best, end, jnp.atleast_1d(multiplier)])

    def conditions(u: Array) -> Array:
        best = u[:k]
        end = u[k : 2 * k]
        fall = loglik(best) - loglik(end) - 0.5 * cut
        along = score(end) - u[2 * k] * jax.grad(psi)(end)
        return jnp.concatenate([score(best), along, jnp.atleast_1d(fall)])

    def solve_linear(g: Tree, y: Array) -> Array:
        return jnp.linalg.solve(matrix_of(g, y, method), y)

    def solved() -> Array:
        return jax.lax.custom_root(conditions, start, lambda f, u: u, solve_linear)

    root = first_that_exists((solved,), loglik, end)
    return psi(root[k : 2 * k])
