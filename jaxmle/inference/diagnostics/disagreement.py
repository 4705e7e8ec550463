"""Three covariances that agree when the model is right: the inverse Hessian, the inverse outer
product of scores, and the sandwich.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Axes, Loglik, Tree
from jaxmle.inference.again import again, inverse_root, tangent
from jaxmle.likelihood.combinators import Weights
from jaxmle.likelihood.evaluate import sums
from jaxmle.likelihood.structure import roots_of
from jaxmle.likelihood.terms import term_rows
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["observed", "opg", "sandwich", "ratios"],
    meta_fields=["names"],
)
@dataclass(frozen=True, eq=False)
class Disagreement:
    """Standard errors (p,) from J⁻¹ (``observed``), K⁻¹ (``opg``) and J⁻¹KJ⁻¹ (``sandwich``), where
    J is the observed information and K = Σ s_i s_i'.

    ``ratios`` (k,) are the eigenvalues of J⁻¹K, ascending: sandwich variance over model variance
    along the directions in which they differ least and most. They do not depend on the
    parametrisation and are about 1 when the model is right. The information-matrix test
    (``information_matrix_test``) tests whether they differ from 1 by more than chance.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.diagnostics.disagreement import disagreement
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> found = disagreement(exponential, result, y)
    >>> [round(float(se[0]), 4) for se in (found.observed, found.opg, found.sandwich)]
    [0.1667, 0.2673, 0.1039]
    >>> [round(value, 4) for value in (1 / 36**0.5, 1 / 14**0.5, 14**0.5 / 36)]  # J = 36, K = 14
    [0.1667, 0.2673, 0.1039]
    """

    observed: Array
    opg: Array
    sandwich: Array
    ratios: Array
    names: tuple[str, ...]

    def __repr__(self) -> str:
        if np.ndim(self.observed) > 1:
            return f"Disagreement({', '.join(self.names[:6])}; a batch of {len(self.observed)})"
        lines = [
            f"{name:<16} {a:>12.5g} {b:>12.5g} {c:>12.5g} {c / a:>10.3f}"
            for name, a, b, c in zip(
                self.names, self.observed, self.opg, self.sandwich, strict=True
            )
        ]
        head = f"{'std. error':<16} {'observed':>12} {'opg':>12} {'sandwich':>12} {'ratio':>10}"
        return "\n".join(
            [
                head,
                *lines,
                f"sandwich over model variance: from {self.ratios[0]:.3f} to "
                f"{self.ratios[-1]:.3f} in all directions",
            ]
        )


@with_keyword_hints
def disagreement(
    loglik: Loglik,
    fit: Fit,
    data: Tree = None,
    *,
    weights: Weights | None = None,
    in_axes: Axes = 0,
) -> Disagreement:
    """Standard errors from the Hessian, the outer product of scores and the sandwich side by side.

    Args:
        loglik, fit, data: a likelihood with one term per observation, its fit (one or a batch), and
            the data of the fit.
        weights: those of the fit.
        in_axes: for a batch, as in ``score_test``.

    Returns:
        ``Disagreement``; NaN if an information matrix is not positive definite.

    Raises:
        ValueError: for data or weights that are not those of the fit, or a likelihood without
            terms.

    Source: White (1982), Econometrica 50, 1–25.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.diagnostics.disagreement import disagreement
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> found = disagreement(
    ...     exponential, jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive}), y
    ... )
    >>> found.ratios.round(4).tolist()  # for an exponential, var(y)/mean(y)²
    [0.3889]
    """
    given = again(loglik, fit, data, weights=weights, in_axes=in_axes, what="disagreement")
    layout = fit.layout
    observed, opg, sandwich, ratios = given.evaluate(
        "disagreement", lambda ll, x, rows, codes: _three(ll, layout, x, rows)
    )
    return Disagreement(observed, opg, sandwich, ratios, fit.names)


def _three(
    loglik: Loglik, layout: Layout, x: Array, data: Tree
) -> tuple[Array, Array, Array, Array]:
    lift = jnp.asarray(tangent(loglik, layout).lift, x.dtype)
    rows = term_rows(loglik, layout, x, data)
    root = inverse_root(-(lift.T @ sums(loglik, layout, x, data).hessian @ lift))
    scaled = rows.scores @ lift @ root
    k = scaled.T @ (rows.meat[:, None] * scaled)  # in coordinates in which J is the identity
    full = lift @ root
    roots = roots_of(loglik, layout)

    def stderr(half: Array) -> Array:
        variance = jnp.sum(half**2, axis=1)[np.maximum(roots, 0)]
        return jnp.where(roots >= 0, jnp.sqrt(variance), jnp.nan)

    factor = jnp.linalg.cholesky(k)
    return (
        stderr(full),
        stderr(full @ inverse_root(k)),
        stderr(full @ factor),
        jnp.linalg.eigvalsh(k),
    )
