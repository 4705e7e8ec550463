"""Degrees of freedom for t tests and intervals with CR2 (or HC2) standard errors, from few
clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle._types import Array, Clusters, Loglik, Tree, ndarray
from jaxmle.inference.again import again, check_fit, inverse_root, tangent
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.information.covariance import cluster_information, cluster_sums, unlevered
from jaxmle.likelihood.structure import has_law, roots_of
from jaxmle.likelihood.terms import row_information, term_rows
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["estimate", "stderr", "df"],
    meta_fields=["names"],
)
@dataclass(frozen=True, eq=False)
class Satterthwaite:
    """Estimates (q,) with CR2 standard errors and degrees of freedom, for contrasts or for each
    parameter.

    ``df`` is at most the number of clusters; NaN if there is no standard error.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.satterthwaite import satterthwaite
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> result = jm.fit(normal, {"mean": 0.0}, y)
    >>> found = satterthwaite(normal, result, y)
    >>> round(float(found.df[0]), 6), round(float(found.stderr[0]), 6)  # n − 1, √(14/3)/√4
    (3.0, 1.080123)
    >>> found.conf_int()[0].round(4).tolist()  # 3 ± 3.1824·1.0801, the t-interval of a mean
    [-0.4374, 6.4374]
    """

    estimate: Array
    stderr: Array
    df: Array
    names: tuple[str, ...]

    def conf_int(self, level: float = 0.95) -> ndarray:
        """Symmetric intervals estimate ± t·SE, (q, 2)."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level}")
        half = scipy.special.stdtrit(self.df, 0.5 + level / 2) * self.stderr
        return np.stack([self.estimate - half, self.estimate + half], axis=-1)

    @property
    def tvalues(self) -> Array:
        """Estimate over standard error, (q,)."""
        return self.estimate / self.stderr

    @property
    def pvalues(self) -> ndarray:
        """Two-sided p-values of ``tvalues``, (q,)."""
        return 2 * scipy.special.stdtr(self.df, -np.abs(self.tvalues))

    def __repr__(self) -> str:
        rows = zip(self.names, self.estimate, self.stderr, self.df, self.pvalues, strict=True)
        lines = [
            f"{name:<16} {estimate:>12.5g} {se:>12.5g} {df:>8.2f} {p:>9.3g}"
            for name, estimate, se, df, p in rows
        ]
        return "\n".join(
            [f"{'':<16} {'estimate':>12} {'std. error':>12} {'df':>8} {'p':>9}", *lines]
        )


@with_keyword_hints
def satterthwaite(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    clusters: Clusters = None,
    contrasts: Tree = None,
    weights: Weights | None = None,
) -> Satterthwaite:
    """Degrees of freedom of CR2 variances: 2(E V̂)²/Var V̂ if the model is right and clusters are
    independent.

    With c a contrast, ã_g = (I − Ã_g)^(−½)c̃ and b_g = Ã_g ã_g in coordinates in which the
    information is the identity (see ``vcov="CR2"``), the variance is V̂ = Σ q_g², q_g = ã_g's̃_g,
    and under the model Cov(q_g, q_h) = Ω_gh = [g = h] ã_g'b_g − b_g'(2I − ΣÃ)b_h, where the second
    part arises because the scores are taken at the estimate. Then df = (tr Ω)²/tr Ω². For a linear
    model these are the degrees of freedom of Bell & McCaffrey with the identity as working model;
    for other models the scores are treated as normal.

    Args:
        loglik, fit, data: the likelihood with one term per observation, its fit, and the data of
            the fit.
        clusters: labels (n,); None treats each row as a cluster, which gives HC2.
        contrasts: a matrix (q, p) or a vector (p,) in the order of ``fit.names``; None for each
            parameter separately.
        weights: those of the fit; frequency weights need clusters.

    Returns:
        ``Satterthwaite`` with estimate, stderr and df, (q,).

    Raises:
        ValueError: for a batch, data that are not those of the fit, two-way clusters, or frequency
            weights without clusters.

    Source: Bell & McCaffrey (2002), Survey Methodology 28, 169–181; Pustejovsky & Tipton (2018),
    JBES 36, 672–683.

    >>> import numpy as np, jaxmle as jm
    >>> from jaxmle.inference.hypotheses.satterthwaite import satterthwaite
    >>> y = np.array([1.0, 3.0, 2.0, 6.0, 4.0, 5.0])
    >>> normal = lambda params, data: -0.5 * (data - params["mean"]) ** 2
    >>> found = satterthwaite(
    ...     normal, jm.fit(normal, {"mean": 0.0}, y), y, clusters=[0, 0, 1, 1, 2, 2]
    ... )
    >>> round(float(found.df[0]), 6)  # three clusters of equal size: G − 1
    2.0
    """
    check_fit("satterthwaite", fit, alone=True)
    if clusters is None and fit.weighting == "frequency":
        raise ValueError(
            "a row with frequency weight 3 is three units: give clusters, or repeat the rows"
        )
    p = len(fit.names)
    matrix = np.eye(p) if contrasts is None else _contrasts(contrasts, p)
    given = again(loglik, fit, data, weights=weights, clusters=clusters, what="satterthwaite")
    if len(given.aligned[2]) > 1:
        raise ValueError(
            "there are no Satterthwaite degrees of freedom for two-way clusters: give "
            "one label for each row"
        )
    source = "expected" if has_law(as_tree(loglik)) else "observed"
    layout = fit.layout
    variance, df = given.evaluate(
        ("satterthwaite", source),
        lambda ll, x, rows, codes, m: _moments(ll, layout, x, rows, codes, m, source),
        (matrix.astype(fit.dtype),),
    )
    with np.errstate(invalid="ignore"):
        estimate = matrix @ np.where(np.any(matrix != 0, axis=0), fit.x, 0.0)
        stderr = np.sqrt(np.where(variance > 0, variance, np.nan))
    labels = fit.names if contrasts is None else tuple(f"contrast {i}" for i in range(len(matrix)))
    return Satterthwaite(estimate, stderr, np.where(np.isfinite(stderr), df, np.nan), labels)


def _contrasts(contrasts: Tree, p: int) -> ndarray:
    """Contrasts as a matrix (q, p) of real numbers."""
    array = np.asarray(contrasts)
    if array.dtype.kind not in "fiu" or isinstance(contrasts, np.ma.MaskedArray):
        raise TypeError(f"contrasts must be a matrix of finite numbers; got {shown(contrasts)}")
    matrix = np.atleast_2d(array.astype(float))
    if matrix.ndim != 2 or matrix.shape[1] != p or not np.all(np.isfinite(matrix)):
        raise ValueError(
            f"contrasts must be finite numbers (q, {p}), in the order of names; got shape "
            f"{array.shape}"
        )
    return matrix


def _moments(
    loglik: Loglik,
    layout: Layout,
    x: Array,
    data: Tree,
    codes: tuple[Array, ...],
    contrasts: Array,
    source: str,
) -> tuple[Array, Array]:
    """The CR2 variance of each contrast and its degrees of freedom, (q,)."""
    lift = jnp.asarray(tangent(loglik, layout).lift, x.dtype)
    root = lift @ inverse_root(-(lift.T @ sums(loglik, layout, x, data).hessian @ lift))
    rows = term_rows(loglik, layout, x, data)
    rows = rows._replace(scores=rows.scores @ root)
    each = jnp.einsum(
        "ja,nij,ib->nab", root, row_information(loglik, layout, x, data, source), root
    )
    code = codes[0] if codes else jnp.arange(rows.weight.shape[0])
    information = cluster_information(rows, code, each)
    (scores, counted) = cluster_sums(rows, code)
    roots = roots_of(loglik, layout)
    moved = contrasts @ jnp.asarray(
        (np.maximum(roots, 0)[:, None] == np.arange(layout.p)[None, :]) & (roots >= 0)[:, None],
        x.dtype,
    )

    def of_contrast(c: Array) -> tuple[Array, Array]:
        along, _ = unlevered(jnp.broadcast_to(c @ root, scores.shape), information, "CR2", counted)
        b = jnp.einsum("gab,gb->ga", information, along)
        separate = jnp.sum(along * b, axis=1)
        second_part = 2 * jnp.eye(root.shape[1], dtype=x.dtype) - jnp.sum(information, axis=0)
        shared = jnp.einsum("ga,ab,gb->g", b, second_part, b)
        inner = b.T @ b @ second_part
        mean = jnp.sum(separate - shared)
        square = jnp.sum(separate**2 - 2 * separate * shared) + jnp.sum(inner * inner.T)
        return jnp.sum(jnp.sum(along * scores, axis=1) ** 2), mean**2 / square

    return jax.vmap(of_contrast)(moved)
