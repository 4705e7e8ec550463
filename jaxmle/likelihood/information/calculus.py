"""The calculus of a log-likelihood: each function takes ``loglik`` and returns a function of
``(params, data)``.

Under a trace they are plain JAX, ready for ``jit``, ``vmap``, ``grad`` and any optax loop. On the
host they run in float64 and return NumPy. Integers of the data are computed as int64 on the host,
and in the default width of the trace inside one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Clusters, Function, Loglik, Tree
from jaxmle.likelihood.checks import check_coding, host_data, host_params, traced_data
from jaxmle.likelihood.contract import as_tree, need_terms, rows_of, terms_of
from jaxmle.likelihood.derivatives import gradient
from jaxmle.likelihood.discovery.derivative_rules import check_rules
from jaxmle.likelihood.discovery.ready_calls import check_calls
from jaxmle.likelihood.discovery.row_independence import check_blocks, check_traced
from jaxmle.likelihood.evaluate import Sums, sums
from jaxmle.likelihood.information.bias import adjustment, inverse_root
from jaxmle.likelihood.information.covariance import (
    Kind,
    check_kind,
    check_order,
    cluster_codes,
    sandwich,
)
from jaxmle.likelihood.information.hac import check_bandwidth, hac
from jaxmle.likelihood.structure import roots_of, weighting_of
from jaxmle.likelihood.terms import expected_information, term_rows
from jaxmle.parameters.arguments import check_choice, check_count
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.runtime.compile import compiled, precision, to_numpy, tracing
from jaxmle.runtime.jax_state import exact_products

Quantity = Callable[[Tree, Tree], Tree]


def _traced_or_compiled(
    loglik: Loglik,
    key: Hashable,
    quantity: Function,
    codes: Callable[[Tree], Tree] = lambda data: (),
    *,
    second: bool = False,
) -> Quantity:
    """``quantity(loglik, params, data, codes)`` as a function of (params, data), both on the host
    and under a trace; ``second`` if it takes second derivatives.
    """
    loglik = as_tree(loglik)

    def quantity_at(params: Tree, data: Tree = None) -> Tree:
        if tracing():
            check_coding(loglik, data)
            with exact_products():
                return quantity(loglik, params, traced_data(data), codes(data))
        params = host_params(params, np.float64)
        data = host_data(data, np.float64)
        check_coding(loglik, data)
        with precision(np.float64):
            if second:
                layout = layout_of(params)
                x = layout.ravel(params)
                check_calls(loglik, layout, x, data)
                check_rules(loglik, layout, [x], data)
            piece = compiled(loglik, key, lambda ll: lambda *args: quantity(ll, *args))
            return to_numpy(piece(params, jax.tree.map(jnp.asarray, data), codes(data)))

    return quantity_at


def _flat(params: Tree) -> tuple[Layout, Array]:
    layout = layout_of(params)
    return layout, layout.ravel(jax.tree.map(jnp.asarray, params))


@with_keyword_hints
def nll(loglik: Loglik, *, reduction: str = "sum") -> Quantity:
    """The negative log-likelihood −Σ ℓ_i, a scalar; for example as a loss for optax.

    ``params`` may be any tree, also that of a network. Under ``jit`` or ``grad`` the function is
    plain JAX in the dtype of the trace. A Gaussian with fixed σ gives the squared error, a Laplace
    the absolute error, and a Bernoulli or categorical with logits the cross-entropy.

    Args:
        loglik: any log-likelihood.
        reduction: ``"sum"``, or ``"mean"`` for −Σ ℓ_i/n over the given rows, which does not grow
            with the size of a mini-batch. ``"mean"`` is not for a likelihood with a prior, which
            counts once and not once per row.

    Returns:
        A function of (params, data) that returns a number, in nats.

    Raises:
        ValueError: for an unknown reduction; on use, for the mean of a likelihood without terms.

    >>> import jax.numpy as jnp
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> round(float(nll(exponential)({"rate": 2.0}, jnp.array([1.0, 1.0]))), 6)
    2.613706
    """
    check_choice("reduction", reduction, ("sum", "mean"))

    def loss(ll: Loglik, params: Tree, data: Tree, _: Tree) -> Array:
        terms = terms_of(ll, params, data)
        return (
            -jnp.sum(terms)
            if reduction == "sum"
            else -jnp.mean(need_terms(terms, "reduction='mean'"))
        )

    return _traced_or_compiled(loglik, ("nll", reduction), loss)


@with_keyword_hints
def score(loglik: Loglik) -> Quantity:
    """The score ∂ℓ/∂θ of a log-likelihood.

    Returns:
        A function of (params, data) that returns a tree like the parameters, in units of
        1/parameter.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> round(float(jm.score(exponential)({"rate": 0.5}, y)["rate"]), 6)  # n/rate − Σy
    -4.0
    """
    return _traced_or_compiled(
        loglik,
        "score",
        lambda ll, params, data, _: gradient(lambda p: jnp.sum(terms_of(ll, p, data)))(params),
    )


@with_keyword_hints
def scores(loglik: Loglik) -> Quantity:
    """The score ∂ℓ_i/∂θ of each term, weighted if the likelihood is weighted.

    Returns:
        A function of (params, data) that returns (n, p), columns in the order of the parameter
        names.

    Raises:
        ValueError: for a log-likelihood of one scalar, which has no terms.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> jm.scores(exponential)({"rate": 0.5}, y).tolist()  # 1/rate − y
    [[1.0], [-1.0], [0.0], [-4.0]]
    """

    def rows(ll: Loglik, params: Tree, data: Tree, _: Tree) -> Array:
        layout, x = _flat(params)
        each = term_rows(ll, layout, x, data)
        return each.weight[:, None] * each.scores

    return _traced_or_compiled(loglik, "scores", rows)


@with_keyword_hints
def hessian(loglik: Loglik) -> Quantity:
    """The Hessian ∂²ℓ/∂θ∂θ' of the log-likelihood ℓ itself, not of its negative.

    Returns:
        A function of (params, data) that returns (p, p), in the order of the parameter names.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> jm.hessian(exponential)({"rate": 0.5}, np.array([1.0, 3.0, 2.0, 6.0])).tolist()  # −n/rate²
    [[-16.0]]
    """
    return _traced_or_compiled(
        loglik,
        "hessian",
        lambda ll, params, data, _: sums(ll, *_flat(params), data).hessian,
        second=True,
    )


@with_keyword_hints
def evaluate(
    loglik: Loglik, params: Tree, data: Tree = None, *, block_rows: int | None = None
) -> Sums:
    """Log-likelihood, score and Hessian in one pass over the data.

    Args:
        loglik: any log-likelihood.
        params: the parameter tree.
        data: tree of arrays sharing the leading axis n.
        block_rows: rows per block; the working memory is then that of one block. Each term must
            depend only on its own row.

    Returns:
        ``Sums`` with score (p,) and Hessian (p, p) in the order of the parameter names.

    Raises:
        ValueError: with ``block_rows`` on the host, if terms depend on other rows.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> sums = jm.evaluate(exponential, {"rate": 0.5}, np.array([1.0, 3.0, 2.0, 6.0]))
    >>> round(float(sums.value), 6), sums.score.tolist(), sums.hessian.tolist()
    (-8.772589, [-4.0], [[-16.0]])
    """
    block_rows = None if block_rows is None else check_count("block_rows", block_rows, 1)
    tracing_of_caller = tracing()
    if block_rows is not None and not tracing_of_caller:
        known = host_params(params, np.float64)
        rows = host_data(data, np.float64)
        with precision(np.float64):
            layout = layout_of(known)
            check_blocks(as_tree(loglik), layout, layout.ravel(known), rows, block_rows)

    def whole(ll: Loglik, params: Tree, data: Tree, _: Tree) -> Sums:
        if tracing_of_caller:
            check_traced(ll, *_flat(params), data, block_rows)
        total = sums(ll, *_flat(params), data, block_rows=block_rows)
        return Sums(total.value, total.absolute, total.score, total.hessian)

    return _traced_or_compiled(
        loglik,
        ("evaluate", block_rows),
        whole,
        second=True,
    )(params, data)


@with_keyword_hints
def information(loglik: Loglik, kind: str = "observed") -> Quantity:
    """The Fisher information of a log-likelihood.

    Args:
        kind: ``"observed"`` −∂²ℓ/∂θ∂θ'; ``"expected"`` its mean over the distribution of the
            response that the likelihood knows; ``"opg"`` the sum of the outer products of scores, Σ
            s_i s_i'.

    Returns:
        A function of (params, data) that returns (p, p), in the order of the parameter names.

    Raises:
        ValueError: for an unknown kind; for ``"expected"`` if the distribution of the response is
            not known; for ``"opg"`` if the likelihood is one scalar.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> at, y = {"rate": 0.5}, np.array([1.0, 3.0, 2.0, 6.0])
    >>> jm.information(exponential)(at, y).tolist()  # n/rate²
    [[16.0]]
    >>> jm.information(exponential, "opg")(at, y).tolist()  # Σ (1/rate − y)²
    [[18.0]]
    """
    check_choice("kind", kind, ("observed", "expected", "opg"))
    return _traced_or_compiled(
        loglik,
        ("information", kind),
        lambda ll, params, data, _: _information(ll, *_flat(params), data, kind),
        second=kind == "observed",
    )


def _information(ll: Loglik, layout: Layout, x: Array, data: Tree, kind: str) -> Array:
    if kind == "observed":
        return -sums(ll, layout, x, data).hessian
    if kind == "expected":
        return expected_information(ll, layout, x, data).information
    rows = term_rows(ll, layout, x, data)
    return rows.scores.T @ (rows.meat[:, None] * rows.scores)


@with_keyword_hints
def information_error(loglik: Loglik) -> Quantity:
    """The Monte Carlo standard error of each entry of a simulated expected information.

    Returns:
        A function of (params, data) that returns (p, p), in the order of the parameter names; zeros
        if the information is exact.

    Raises:
        ValueError: if the likelihood does not know the distribution of its response.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> normal = lambda p, d: -0.5 * jnp.log(p["variance"]) - 0.5 * d["y"] ** 2 / p["variance"]
    >>> noise = lambda key, d: jax.random.normal(key, d["y"].shape)
    >>> draw = lambda key, p, d: {"y": jnp.sqrt(p["variance"]) * noise(key, d)}
    >>> simulated = jm.with_response(normal, jm.simulation(draw, key=0, draws=400))
    >>> error = jm.information_error(simulated)({"variance": 1.0}, {"y": np.zeros(8)})
    >>> bool(abs(error[0, 0] - 0.2) < 0.03)  # √(2n/draws) at variance 1
    True
    """

    def error(ll: Loglik, params: Tree, data: Tree, _: Tree) -> Array:
        draws = expected_information(ll, *_flat(params), data).draws
        if not draws.shape[0]:
            return jnp.zeros(draws.shape[1:])
        return jnp.std(draws, axis=0, ddof=1) / jnp.sqrt(draws.shape[0])

    return _traced_or_compiled(loglik, "information_error", error)


@with_keyword_hints
def vcov(
    loglik: Loglik, kind: Kind = "observed", *, bread: str = "observed", clusters: Clusters = None
) -> Quantity:
    """Asymptotic covariance of the estimate, (p, p), at any parameters.

    Args:
        kind: ``"observed"``, ``"expected"``, ``"opg"`` (the inverse of that information), ``"HC0"``
            J⁻¹(Σ s s')J⁻¹, ``"HC1"`` = HC0·n/(n − k) with k the number of parameters,
            ``"HC2"``/``"HC3"`` with the leverages of a likelihood, ``"CR0"`` with cluster sums,
            ``"CR1"`` (also ``"cluster"``) with the factor G/(G − 1), ``"CR1S"`` with the additional
            factor (n − 1)/(n − k), ``"CR2"``/``"CR3"`` with the leverage of a cluster; ``"hac"`` or
            a record of ``hac(…)`` for rows in time order.
        bread: the information J in a sandwich: ``"observed"`` or ``"expected"``.
        clusters: labels (n,), or (n, 2) for two-way.

    Returns:
        A function of (params, data) that returns (p, p), in the order of the parameter names. NaN
        if J is not positive definite.

    Raises:
        ValueError: for an unknown kind, a clustered kind without ``clusters``, or ``clusters``
            without such a kind.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> exponential = lambda params, y: jnp.log(params["rate"]) - params["rate"] * y
    >>> estimate, y = {"rate": 1 / 3}, np.array([1.0, 3.0, 2.0, 6.0])
    >>> round(float(jm.vcov(exponential)(estimate, y)[0, 0]), 6)  # rate²/n
    0.027778
    >>> round(float(jm.vcov(exponential, "HC0")(estimate, y)[0, 0]), 6)  # times var(y)/mean(y)²
    0.010802
    """
    check_kind(kind, clusters)
    check_choice("bread", bread, ("observed", "expected"))
    if kind is None or kind == "auto":
        raise ValueError(f"name the kind, such as 'observed' or 'HC0'; got kind={kind!r}")
    kind = "CR1" if kind == "cluster" else hac() if kind == "hac" else kind
    check_order(kind, weighting_of(as_tree(loglik)))
    base = kind if isinstance(kind, str) and kind in ("observed", "expected") else bread

    def covariance(ll: Loglik, params: Tree, data: Tree, codes: tuple[Array, ...]) -> Array:
        layout, x = _flat(params)
        roots = roots_of(ll, layout)
        # The entries that fix and tie leave free.
        moving = np.flatnonzero(roots == np.arange(layout.p))
        lift = np.eye(layout.p, dtype=x.dtype)[:, moving]
        j = lift.T @ _information(ll, layout, x, data, base) @ lift
        scale = jnp.sqrt(jnp.abs(jnp.diagonal(j)))
        factor = jnp.linalg.cholesky(j / jnp.outer(scale, scale))
        root = (
            jax.scipy.linalg.solve_triangular(
                factor, jnp.eye(j.shape[0], dtype=x.dtype), lower=True
            ).T
            / scale[:, None]
        )
        full = lift @ root
        plain = kind in ("observed", "expected")
        v = (
            full @ full.T
            if plain
            else sandwich(ll, layout, x, data, root, jnp.asarray(lift), kind, codes).vcov
        )
        fixed = roots < 0
        follow = np.maximum(roots, 0)
        return jnp.where(fixed[:, None] | fixed[None, :], jnp.nan, v[follow][:, follow])

    def labels(data: Tree) -> Tree:
        check_bandwidth(kind, rows_of(as_tree(loglik), data))
        return () if clusters is None else cluster_codes(clusters, rows_of(as_tree(loglik), data))

    return _traced_or_compiled(
        loglik, ("vcov", kind, bread), covariance, labels, second=base == "observed"
    )


@with_keyword_hints
def cox_snell(loglik: Loglik) -> Quantity:
    """The first-order bias of the maximum-likelihood estimate, E(θ̂) − θ up to O(n⁻²), in a tree
    like the parameters; 0 for entries held by ``fix``.

    It is −V A with V the inverse expected information, A = ½ tr{V (P + Q)}, P_t = E(U U' U_t), Q_t
    = E(∂²ℓ U_t) and U the score. The bias depends on the parametrisation: that of a standard
    deviation differs from that of its logarithm.

    Returns:
        A function of (params, data) that returns a tree like the parameters, in their units.

    Raises:
        ValueError: if the likelihood does not know the distribution of its response.

    Source: Cox & Snell (1968), JRSS B 30, 248–275, eq. 20; Cordeiro & McCullagh (1991), JRSS B 53,
    for regressions.

    >>> import jax.numpy as jnp, jaxmle as jm
    >>> bernoulli = lambda params, data: data * params["odds"] - jnp.logaddexp(0.0, params["odds"])
    >>> logit = jm.with_response(lambda p, d: bernoulli(p, d["y"]), jm.enumeration("y", [0.0, 1.0]))
    >>> round(
    ...     float(cox_snell(logit)({"odds": 1.0}, {"y": jnp.ones(10)})["odds"]), 6
    ... )  # (2p − 1)/(2np(1 − p))
    0.11752
    """

    def bias(ll: Loglik, params: Tree, data: Tree, _: Tree) -> Tree:
        layout, x = _flat(params)
        roots = roots_of(ll, layout)
        root = inverse_root(expected_information(ll, layout, x, data).information, roots)
        bias_x = -root @ (root.T @ adjustment(ll, layout, x, data, root))
        return layout.unravel(jnp.where(roots >= 0, bias_x[np.maximum(roots, 0)], 0.0))

    return _traced_or_compiled(loglik, "cox_snell", bias)
