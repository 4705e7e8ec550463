"""The delta method: functions of the estimate and their covariance, by exact derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree

from jaxmle._types import Array, Tree
from jaxmle.inference.again import check_fit
from jaxmle.parameters.arguments import check_function, check_level
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point, propagated
from jaxmle.runtime.compile import portable_copy, precision, to_numpy, tracing


@partial(
    jax.tree_util.register_dataclass, data_fields=["estimate", "stderr", "vcov"], meta_fields=[]
)
@dataclass(frozen=True)
class Delta:
    """A function of the estimates, with its standard errors by the delta method.

    ``estimate`` and ``stderr`` are in the tree of the function's value; ``vcov`` is (q, q).

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.delta import delta
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> exponential = lambda params, data: jnp.log(params["rate"]) - params["rate"] * data
    >>> result = jm.fit(exponential, {"rate": 1.0}, y, constraints={"rate": jm.positive})
    >>> mean = delta(lambda params: 1 / params["rate"], result)
    >>> mean.conf_int(0.95).round(4).tolist()  # 3 ± 1.96·1.5
    [0.0601, 5.9399]
    """

    estimate: Tree
    stderr: Tree
    vcov: Array

    def conf_int(self, level: float = 0.95) -> Tree:
        """Symmetric intervals estimate ± z·SE, a last axis (lower, upper) on every leaf."""
        level = check_level(level)
        z = float(scipy.special.ndtri(0.5 + level / 2))
        xp = np if isinstance(self.vcov, np.ndarray) else jnp
        return jax.tree.map(
            lambda e, s: xp.stack([e - z * s, e + z * s], axis=-1), self.estimate, self.stderr
        )


def delta(g: Callable[[Tree], Tree], fit: Fit) -> Delta:
    """Estimate and covariance of ``g(params)``: G V G', G the Jacobian of ``g`` at the estimate.

    Where some parameters have no estimate of their own, a function that the data do determine keeps
    its standard error; one that leaves the estimable space gets NaN.

    Args:
        g: a function of the parameters to a number, an array or a tree of them.
        fit: one fit or a batch.

    Returns:
        A ``Delta``: ``estimate`` and ``stderr`` in the tree of ``g(params)``, ``vcov`` (q, q).

    Raises:
        TypeError: for a ``g`` that is no function, or whose value is not real.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> from jaxmle.inference.delta import delta
    >>> y = np.array([1.0, 3.0, 2.0, 6.0])
    >>> result = jm.fit(
    ...     lambda p, d: jnp.log(p["rate"]) - p["rate"] * d,
    ...     {"rate": 1.0},
    ...     y,
    ...     constraints={"rate": jm.positive},
    ... )
    >>> mean = delta(lambda params: 1 / params["rate"], result)
    >>> round(float(mean.estimate), 6), round(float(mean.stderr), 6)
    (3.0, 1.5)
    """
    check_fit("delta", fit)
    check_function("g", g, "lambda params: params['a'] / params['b']")
    if fit.batch_shape:
        return (
            _stack([delta(g, fit[i]) for i in range(fit.batch_shape[0])])
            if not tracing()
            else jax.vmap(partial(delta, g))(fit)
        )
    if tracing():
        return _delta(g, fit)
    with precision(fit.dtype):
        return to_numpy(_delta(g, fit))


def _delta(g: Callable[[Tree], Tree], fit: Fit) -> Delta:
    g = portable_copy(g)

    def flat_g(x: Any) -> Any:
        return ravel_pytree(g(fit.layout.unravel(x)))[0]

    x = jnp.asarray(finite_point(fit))
    value = real_value("g", g(fit.layout.unravel(x)))
    flat, unravel = ravel_pytree(value)
    moved = propagated(fit, jax.jacfwd(flat_g)(x))
    # What leaves the estimable space has the value at the estimate itself, which may be infinite.
    away = moved.leaks & jnp.any(x != jnp.asarray(fit.x))
    value = unravel(jnp.where(away, flat_g(jnp.asarray(fit.x)), flat).astype(flat.dtype))
    return Delta(value, unravel(moved.stderr.astype(flat.dtype)), moved.vcov)


def real_value(name: str, value: Tree) -> Tree:
    """The value of a user's function of the parameters: numbers, at least one, that can be
    differentiated.
    """
    leaves = jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None)
    if not leaves:
        raise ValueError(f"{name} returns no numbers")
    if not all(_is_real(leaf) for leaf in leaves):
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise TypeError(
            f"{name} must return floating-point numbers, an array or a tree of them; got "
            f"{', '.join(kinds)}"
        )
    return jax.tree.map(jnp.asarray, value)


def _is_real(leaf: Any) -> bool:
    plain = isinstance(leaf, int | float) and not isinstance(leaf, bool)
    return plain or (
        isinstance(leaf, np.ndarray | np.generic | jax.Array)
        and (jnp.issubdtype(leaf.dtype, jnp.floating) or jnp.issubdtype(leaf.dtype, jnp.integer))
    )


def _stack(parts: list[Delta]) -> Delta:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
