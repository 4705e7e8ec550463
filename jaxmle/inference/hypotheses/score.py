"""The score test: whether the slope of the full likelihood at the restricted estimate is larger
than by chance.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import namespace
from jaxmle._types import Array, Axes, Clusters, Loglik, Tree
from jaxmle.inference.again import again, inverse_root, tangent
from jaxmle.inference.hypotheses.record import Reason, Test, outcome
from jaxmle.likelihood.combinators import Penalize, Weights
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.information.covariance import check_kind, sandwich
from jaxmle.likelihood.structure import has, has_law, weighting_of
from jaxmle.likelihood.terms import NO_LAW, expected_information, term_rows
from jaxmle.parameters.arguments import check_function
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import precision, to_numpy, tracing
from jaxmle.solvers.status import Status


@with_keyword_hints
def score_test(
    loglik: Loglik,
    restricted: Fit,
    data: Tree = None,
    *,
    params: Callable[[Tree], Tree] | None = None,
    vcov: str = "auto",
    clusters: Clusters = None,
    weights: Weights | None = None,
    in_axes: Axes = 0,
    constraints: Tree = None,
) -> Test:
    """Score test (Rao's test, the Lagrange-multiplier test) of a restricted model against a full
    one; only the restricted model is fitted.

        S = s(θ̃)' I(θ̃)⁻¹ s(θ̃),  χ² with as many degrees of freedom as restrictions under H0,

    with s and I the score and the information of the full likelihood at the restricted estimate θ̃.
    The robust form takes the step I⁻¹s and tests its restricted directions A with their sandwich V:
    (A I⁻¹ s)'(A V A')⁻¹(A I⁻¹ s) (White 1982, Econometrica 50, theorem 3.5; Boos 1992, The American
    Statistician 46, 327–333). This is the Wald test after one Newton step from θ̃.

    Args:
        loglik: the full log-likelihood.
        restricted: the fit under H0 to the same data: of ``fix(loglik, …)`` or ``tie(loglik, …)``;
            or of any smaller likelihood, if ``params`` maps its parameters to those of the full
            one. One fit, or a batch.
        data: the data of the fit; for a batch stacked as in ``fit_batch``.
        params: a function from the parameters of the restricted fit to those of ``loglik``, such as
            ``lambda p: {**p, "shape": 0.0}``.
        vcov: the information, ``"expected"``, ``"observed"`` or ``"opg"``; or a robust covariance,
            ``"HC0"`` … ``"HC3"``, ``"cluster"``. ``"auto"``: expected if the likelihood knows the
            distribution of its response, otherwise observed; cluster with clusters, HC0 with
            sampling weights.
        clusters, weights: as in ``fit``; for a batch (n,) or (b, n).
        in_axes: for a batch, 0 for the leaves of data with a leading axis over members and None for
            shared leaves.
        constraints: of the full parameters if ``params`` is given; only ``simplex`` matters.

    Returns:
        A ``Test``. NaN with a ``reason`` if the restricted fit did not converge or the information
        is not positive definite.

    Raises:
        ValueError: for data that are not those of the fit, a penalised likelihood, or a likelihood
            with no more free parameters than the fit.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.score import score_test
    >>> data = {"y": np.array([0.0, 1.0, 3.0, 4.0]), "x": np.array([0.0, 1.0, 2.0, 3.0])}
    >>> def poisson(params, data):
    ...     eta = params["a"] + params["b"] * data["x"]
    ...     return data["y"] * eta - jnp.exp(eta)
    >>> null = jm.fit(jm.fix(poisson, {"b": 0.0}), {"a": 0.0, "b": 0.0}, data)
    >>> score_test(poisson, null, data)
    Score test of 1 restriction
    chi2(1) = 4.900, p = 0.027
    """
    _check_arguments(vcov, clusters, params, constraints)
    given = again(
        loglik,
        restricted,
        data,
        weights=weights,
        clusters=clusters,
        in_axes=in_axes,
        check_loglik=params is None,
        what="score_test",
    )
    layout = restricted.layout if params is None else _full_layout(restricted, params, constraints)
    weighting = given.weight_kind or weighting_of(given.loglik)
    if has(given.loglik, Penalize):
        raise ValueError(
            "there is no score test for a penalised likelihood: give the likelihood "
            "without its prior"
        )
    kind = _kind(vcov, given.loglik, clusters, weighting)
    robust = kind.startswith(("HC", "CR"))
    if robust and restricted.vcov_kind == "none":
        raise ValueError(
            "a robust score test needs the covariance of the restricted fit, which has "
            "none (vcov=None): refit with one"
        )
    k = len(tangent(given.loglik, layout).places)
    q = k - restricted.df
    if q < 1:
        raise ValueError(
            f"the likelihood has {k} free parameters, but the fit has {restricted.df}: "
            "give the full likelihood and the restricted fit"
        )
    place = (restricted.x,) if params is None else _full_point(restricted, params, layout)
    extra = (*place, *((restricted.witness.vcov,) if robust else ()))
    statistic = given.evaluate(
        ("score test", kind, layout, q),
        lambda ll, x, rows, codes, *args: _statistic(ll, layout, kind, q, rows, codes, *args),
        extra,
    )
    code = _reason(statistic, restricted, robust)
    return outcome(statistic, q, code, "Score", _hypothesis(q, kind), broken=code != 0)


def _check_arguments(vcov: Tree, clusters: Clusters, params: Tree, constraints: Tree) -> None:
    """Raise for mistakes that can be seen without the likelihood."""
    check_kind(vcov, clusters)
    if constraints is not None and params is None:
        raise ValueError("constraints go with params: the fit already has its own")
    if params is not None:
        check_function("params", params, "lambda p: {**p, 'shape': 0.0}")
    if vcov is None:
        raise ValueError(
            "a score test needs a covariance: give 'auto', 'expected', 'observed', 'opg' "
            "or a robust kind"
        )


def _hypothesis(q: int, kind: str) -> str:
    """The number of restrictions in words, with the covariance if it is not the model's."""
    words = f"{q} restriction{'s' if q > 1 else ''}"
    return words if kind in ("expected", "observed") else f"{words} ({kind})"


def _reason(statistic: Array, restricted: Fit, robust: bool) -> Array:
    """The code of the reason why a test has no p-value, (...); 0 if it has one."""
    xp = namespace(statistic)
    odd = xp.where(
        xp.isnan(statistic), int(Reason.INDEFINITE if not robust else Reason.SINGULAR), 0
    )
    stopped = restricted.status != int(Status.CONVERGED)
    code = xp.where(
        restricted.mode != "ML",
        int(Reason.PENALISED),
        xp.where(stopped, int(Reason.NOT_CONVERGED), odd),
    )
    return code.astype(xp.int32)


def _full_layout(restricted: Fit, params: Callable[[Tree], Tree], constraints: Tree) -> Layout:
    """The layout of the full parameters, from shapes alone."""
    example = restricted.layout.unravel(np.zeros(len(restricted.names), restricted.dtype))
    try:
        full = jax.eval_shape(lambda tree: jax.tree.map(jnp.asarray, params(tree)), example)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "params must map the parameters of the restricted fit to those of the full "
            f"likelihood: {error!r}"
        ) from None
    return layout_of(jax.tree.map(lambda leaf: np.zeros(leaf.shape), full), constraints)


def _kind(vcov: str, loglik: Loglik, clusters: Clusters, weighting: str) -> str:
    if vcov == "expected" and not has_law(loglik):
        raise ValueError(NO_LAW)
    if vcov == "auto":
        plain = "expected" if has_law(loglik) else "observed"
        vcov = "cluster" if clusters is not None else "HC0" if weighting == "sampling" else plain
    if weighting == "sampling" and vcov in ("expected", "observed", "opg"):
        raise ValueError(
            "with sampling weights the information is not the variance of the score: use "
            f"vcov='HC0' or clusters; got {vcov!r}"
        )
    return "CR1" if vcov == "cluster" else vcov


def _full_point(
    restricted: Fit, params: Callable[[Tree], Tree], layout: Layout
) -> tuple[Array, ...]:
    """The restricted estimate in the full parameters, (..., p), and their derivative with respect
    to the restricted ones, (..., p, m).
    """

    def full_point(x: Array) -> tuple[Array, Array]:
        def full(x: Array) -> Array:
            return layout.ravel(
                jax.tree.map(
                    lambda leaf: jnp.asarray(leaf, x.dtype), params(restricted.layout.unravel(x))
                )
            )

        return full(x), jax.jacfwd(full)(x)

    for _ in restricted.batch_shape:
        full_point = jax.vmap(full_point)
    if tracing():
        return full_point(restricted.x)
    with precision(restricted.dtype):
        return to_numpy(full_point(jnp.asarray(restricted.x)))


def _statistic(
    loglik: Loglik,
    layout: Layout,
    kind: str,
    q: int,
    data: Tree,
    codes: tuple[Array, ...],
    x: Array,
    *robust: Array,
) -> Array:
    """The score statistic at the restricted estimate ``x`` (p,); NaN if a matrix is not positive
    definite.

    Args:
        robust: for the robust form, the covariance of the restricted fit, and before it the
            derivative of x with respect to the restricted parameters if these differ.
    """
    basis, places = tangent(loglik, layout)
    lift = jnp.asarray(basis, x.dtype)
    point = sums(loglik, layout, x, data)
    score = point.score @ lift
    if kind == "expected":
        information = expected_information(loglik, layout, x, data).information
    elif kind == "opg":
        rows = term_rows(loglik, layout, x, data)
        information = rows.scores.T @ (rows.meat[:, None] * rows.scores)
    else:
        information = -point.hessian
    root = inverse_root(lift.T @ information @ lift)
    if not kind.startswith(("HC", "CR")):
        return jnp.sum((score @ root) ** 2)
    *slope, cov = robust
    cov = slope[0] @ cov @ slope[0].T if slope else cov
    tested = _complement(cov[jnp.ix_(places, places)], q)
    meat = sandwich(loglik, layout, x, data, root, lift, kind, codes).vcov[jnp.ix_(places, places)]
    step = root @ (score @ root)
    return jnp.sum(((step @ tested) @ inverse_root(tested.T @ meat @ tested)) ** 2)


def _complement(covariance: Array, q: int) -> Array:
    """A' (k, q): a basis of the directions that are fixed in the restricted fit, the null space of
    the covariance (k, k) of its estimate.
    """
    variance = jnp.diagonal(covariance)
    scale = jnp.where(variance > 0, 1 / jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 1.0)
    _, axes = jnp.linalg.eigh(covariance * scale[:, None] * scale[None, :])
    return scale[:, None] * axes[:, :q]
