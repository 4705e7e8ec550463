"""Laws of the response: how an expectation over y given the parameters is taken, for the expected information.

Three ways: exactly, by a closed form; exactly, by summing over a finite support; or by simulation from a stated key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Tree
from jaxmle.parameters.arguments import check_count, check_function, shown


@jax.tree_util.register_static
@dataclass(frozen=True)
class Exact:
    """``information(eta, row)`` is the expected information of one row in its predictors, (m, m), or a scalar where m is 1.

    ``cross(eta, row)``, (m, m, m), is E(∂²log f/∂η_a∂η_b · ∂log f/∂η_c); only the bias of the estimate asks for it.
    """

    information: Callable[[Any, Tree], Array]
    cross: Callable[[Any, Tree], Array] | None = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Enumeration:
    """The response leaf takes one of finitely many values, the same for every row."""

    leaf: str
    values: tuple[Any, ...]

    def with_response(self, data: Tree, value: Any) -> Tree:
        """``data`` (or one row of it) with its response set to ``value``."""
        old = data[self.leaf]
        return {
            **data,
            self.leaf: jnp.broadcast_to(jnp.asarray(value, dtype=old.dtype), jnp.shape(old)),
        }

    def expectation(self, of: Callable[[Array], tuple[Array, Array]]) -> tuple[Array, Array]:
        """Σ_v f(v) and Σ_v P(v), where ``of(v)`` gives both for one value; one compiled loop however many values there are."""
        values = jnp.asarray(self.values)
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of, values[0]))
        return jax.lax.scan(
            lambda total, value: (jax.tree.map(jnp.add, total, of(value)), None), zero, values
        )[0]

    def whole(self, total: Array, mass: Array) -> Array:
        """``total`` where the values exhaust the response, NaN where part of its support is missing: such a number only looks like one."""
        return jnp.where(jnp.broadcast_to(jnp.abs(mass - 1) < 1e-4, total.shape), total, jnp.nan)


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["sampler", "draws"])
@dataclass(frozen=True)
class Simulation:
    """``sampler(key, params, data)`` returns data with a fresh response; ``draws`` whole data sets are averaged."""

    sampler: Callable[[jax.Array, Tree, Tree], Tree]
    key: Array
    draws: int


Law = Exact | Enumeration | Simulation


def exact(
    information: Callable[[Any, Tree], Array], cross: Callable[[Any, Tree], Array] | None = None
) -> Exact:
    """Closed expected information of one row, as a function of its predictors ``eta`` and the row; for ``regression`` only.

    Args:
        information: E(−∂²log f/∂η∂η'), (m, m), or a scalar where there is one scalar predictor.
        cross: E(∂²log f/∂η_a∂η_b · ∂log f/∂η_c), (m, m, m) or a scalar, for ``mean_br`` and ``cox_snell``; 0 for a canonical link, whose second
            derivative does not contain the response.
    """
    check_function("information", information, "lambda eta, row: …")
    if cross is not None:
        check_function("cross", cross, "lambda eta, row: …")
    return Exact(information, cross)


def enumeration(leaf: str, values: Any) -> Enumeration:
    """Expectation by summing over the values that the response ``data[leaf]`` can take, such as ``[0, 1]``."""
    if not isinstance(leaf, str):
        raise TypeError(f"leaf is the name of the response in the data; got {shown(leaf)}")
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiub":
        raise TypeError(
            f"values are those that the response can take, such as [0, 1]; got {shown(values)}"
        )
    if not np.all(np.isfinite(array)) or len(np.unique(array)) < array.size:
        raise ValueError(f"values must be finite and each given once; got {shown(values)}")
    return Enumeration(leaf, tuple(float(v) for v in array))


def simulation(
    sampler: Callable[[jax.Array, Tree, Tree], Tree], *, key: Array, draws: int = 200
) -> Simulation:
    """Expectation as the mean over ``draws`` simulated data sets, with a Monte-Carlo error that shrinks as 1/√draws."""
    check_function("sampler", sampler, "lambda key, params, data: {**data, 'y': …}")
    check_count("draws", draws, 2)  # two, to know their own error
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"key is a jax key, such as jax.random.key(0); got {shown(key)}")
    return Simulation(sampler, key, int(draws))
