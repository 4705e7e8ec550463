"""The quantity studied: the parameters, or a function of them, for many refits at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxmle._types import Array, Function, Tree, ndarray
from jaxmle.inference.delta import delta
from jaxmle.parameters.arguments import check_function
from jaxmle.parameters.tree import Layout, layout_of
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.opaque import Opaque


@dataclass(frozen=True)
class Target:
    """The entries of the parameters, or a function of them: values and standard errors for many
    refits at once.
    """

    layout: Layout  # of the parameters
    statistic: Function | None  # a function of the parameters, or None
    outcome: Layout  # of the value

    def values(self, x: Array) -> ndarray:
        """g at each row of x (b, p), a NumPy array, as (b, q)."""
        if self.statistic is None:
            return np.asarray(x)
        layout = self.layout

        def make(portable: Tree) -> Function:
            return jax.vmap(lambda x: ravel_pytree(portable.function(layout.unravel(x)))[0])

        with precision(x.dtype), np.errstate(all="ignore"):
            return np.asarray(compiled(Opaque(self.statistic), ("statistic", layout), make)(x))

    def through(self, rows: ndarray, fit: Fit) -> ndarray:
        """Small changes (b, p) of the estimate as changes of the value, (b, q), by ∂g/∂x."""
        if self.statistic is None:
            return rows
        layout = self.layout

        def make(portable: Tree) -> Function:
            return jax.jacfwd(lambda x: ravel_pytree(portable.function(layout.unravel(x)))[0])

        with precision(fit.dtype):
            return (
                rows
                @ np.asarray(compiled(Opaque(self.statistic), ("slope", layout), make)(fit.x)).T
            )

    def stderr(self, fits: Fit) -> ndarray:
        """Standard errors (b, q) of refits, by the delta method."""
        if self.statistic is None:
            return np.asarray(fits.se)

        def make(portable: Tree) -> Function:
            return jax.vmap(lambda fit: ravel_pytree(delta(portable.function, fit).stderr)[0])

        with precision(fits.dtype):
            plain = replace(fits, n=np.zeros(len(fits)), steps=np.zeros(len(fits)))
            return np.asarray(
                compiled(Opaque(self.statistic), ("stderr", fits.layout, fits.vcov_kind), make)(
                    plain
                )
            )

    @property
    def names(self) -> tuple[str, ...]:
        if self.statistic is None:
            return self.outcome.names
        return tuple(
            name.replace("theta", "statistic", 1) if not leaf.path else name
            for leaf in self.outcome.leaves
            for name in leaf.names
        )


def target_of(fit: Fit, statistic: Callable[[Tree], Tree] | None) -> Target:
    """The quantity studied, with the shape of its value from abstract evaluation."""
    if statistic is None:
        return Target(fit.layout, None, fit.layout)
    check_function("statistic", statistic, "lambda params: params['a'] / params['b']")
    with precision(fit.dtype):
        shape = jax.eval_shape(statistic, jax.tree.map(jnp.asarray, fit.params))
    for leaf in jax.tree.leaves(shape):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"statistic must return floating-point numbers; got dtype {leaf.dtype}")
    return Target(fit.layout, statistic, layout_of(shape))
