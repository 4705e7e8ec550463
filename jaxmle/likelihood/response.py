"""Distributions of the response: how an expectation over y given the parameters is computed, for
the expected information.

There are three methods: exactly, in closed form; exactly, by summing over a finite support; or by
simulation with a given key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Key, Tree
from jaxmle.parameters.arguments import check_count, check_function, shown
from jaxmle.parameters.keywords import with_keyword_hints
from jaxmle.runtime.keys import typed_key
from jaxmle.runtime.opaque import LikelihoodTree

TOLERANCE_OF_TOTAL_MASS = 1e-4  # of the total probability, which should be one


@jax.tree_util.register_static
@dataclass(frozen=True)
class Exact(LikelihoodTree):
    """``information(eta, row)`` is the expected information of one row in its predictors, (m, m),
    or a scalar if m is 1.

    ``cross(eta, row)``, (m, m, m), is E(∂²log f/∂η_a∂η_b · ∂log f/∂η_c); only the bias of the
    estimate needs it.
    """

    information: Callable[[Tree, Tree], Array]
    cross: Callable[[Tree, Tree], Array] | None = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Enumeration(LikelihoodTree):
    """The response leaf takes one of finitely many values, the same for every row."""

    leaf: str
    values: tuple[Tree, ...]

    def with_response(self, data: Tree, value: Tree) -> Tree:
        """``data`` (or one row of it) with its response set to ``value``."""
        old = data[self.leaf]
        return {
            **data,
            self.leaf: jnp.broadcast_to(jnp.asarray(value, dtype=old.dtype), jnp.shape(old)),
        }

    def expectation(self, of: Callable[[Array], tuple[Array, Array]]) -> tuple[Array, Array]:
        """Σ_v f(v) and Σ_v P(v), where ``of(v)`` gives both for one value; a single compiled loop
        for any number of values.
        """
        values = jnp.asarray(self.values)
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of, values[0]))
        return jax.lax.scan(
            lambda total, value: (jax.tree.map(jnp.add, total, of(value)), None), zero, values
        )[0]

    def whole(self, total: Array, mass: Array) -> Array:
        """``total`` if the values are the whole support of the response, otherwise NaN, because the
        number would be wrong.
        """
        return jnp.where(
            jnp.broadcast_to(jnp.abs(mass - 1) < TOLERANCE_OF_TOTAL_MASS, total.shape),
            total,
            jnp.nan,
        )


@partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["sampler", "draws"])
@dataclass(frozen=True)
class Simulation(LikelihoodTree):
    """``sampler(key, params, data)`` returns data with a new response; ``draws`` data sets are
    averaged.
    """

    sampler: Callable[[jax.Array, Tree, Tree], Tree]
    key: Array
    draws: int


Law = Exact | Enumeration | Simulation


@with_keyword_hints
def exact(
    information: Callable[[Tree, Tree], Array], cross: Callable[[Tree, Tree], Array] | None = None
) -> Exact:
    """The expected information of one row in closed form, for ``regression`` only.

    Args:
        information: a function of the predictors ``eta`` and the row: E(−∂²log f/∂η∂η'), (m, m),
            or a scalar if there is one scalar predictor.
        cross: E(∂²log f/∂η_a∂η_b · ∂log f/∂η_c), (m, m, m) or a scalar, for ``mean_br`` and
            ``cox_snell``; 0 for a canonical link, because its second derivative does not depend on
            the response.

    Returns:
        A distribution of the response, for ``regression(…, response=…)``.

    Raises:
        TypeError: for anything but functions.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> density = lambda eta, row: row["y"] * jnp.log(eta["mean"]) - eta["mean"]
    >>> law = jm.exact(lambda eta, row: 1 / eta["mean"])  # Poisson
    >>> poisson = jm.regression(density, {"mean": "rate"}, response=law)
    >>> data = {"y": np.array([1.0, 0.0, 2.0, 5.0])}
    >>> jm.information(poisson, "expected")({"rate": 4.0}, data).tolist()  # n/rate
    [[1.0]]
    """
    check_function("information", information, "lambda eta, row: …")
    if cross is not None:
        check_function("cross", cross, "lambda eta, row: …")
    return Exact(information, cross)


@with_keyword_hints
def enumeration(leaf: str, values: Tree) -> Enumeration:
    """The distribution of a response with finitely many values: expectations are sums over
    ``values``.

    Args:
        leaf: name of the response in the data.
        values: all values that ``data[leaf]`` can take, (v,), such as ``[0, 1]``.

    Returns:
        A distribution of the response, for ``with_response`` and ``regression(…, response=…)``. If
        the probabilities of the values do not sum to one, expectations are NaN.

    Raises:
        TypeError: if the leaf is not a name, or the values are not a list of numbers.
        ValueError: for values that are not finite or occur twice.

    >>> import numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> def binomial(params, data):  # two trials
    ...     y, p = data["y"], params["p"]
    ...     return jnp.log(2.0) * (y == 1) + y * jnp.log(p) + (2 - y) * jnp.log1p(-p)
    >>> model = jm.with_response(binomial, jm.enumeration("y", [0, 1, 2]))
    >>> data = {"y": np.array([0.0, 2.0, 2.0])}
    >>> information = jm.information(model, "expected")({"p": 0.5}, data)
    >>> round(float(information[0, 0]), 6)  # 2n/p(1 − p)
    24.0
    """
    if not isinstance(leaf, str):
        raise TypeError(f"leaf must be the name of the response in the data; got {shown(leaf)}")
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiub":
        raise TypeError(
            "values must be the values that the response can take, such as [0, 1]; got "
            f"{shown(values)}"
        )
    if not np.all(np.isfinite(array)) or len(np.unique(array)) < array.size:
        raise ValueError(f"values must be finite and distinct; got {shown(values)}")
    return Enumeration(leaf, tuple(float(v) for v in array))


@with_keyword_hints
def simulation(
    sampler: Callable[[jax.Array, Tree, Tree], Tree], *, key: Key, draws: int = 200
) -> Simulation:
    """The distribution of a response that can be simulated: expectations are means over ``draws``
    data sets.

    Their Monte Carlo error shrinks as 1/√draws; ``information_error`` gives it.

    Args:
        sampler: ``sampler(key, params, data)``, which returns the data with a new response.
        key: an integer or a jax key; the same key gives the same expectation.
        draws: number of simulated data sets, 2 or more.

    Returns:
        A distribution of the response, for ``with_response`` and ``regression(…, response=…)``.

    Raises:
        TypeError: if the sampler is not a function, or the key is not a key.
        ValueError: for fewer than two draws.

    >>> import jax, numpy as np, jax.numpy as jnp, jaxmle as jm
    >>> normal = lambda p, d: -0.5 * jnp.log(p["variance"]) - 0.5 * d["y"] ** 2 / p["variance"]
    >>> noise = lambda key, d: jax.random.normal(key, d["y"].shape)
    >>> draw = lambda key, p, d: {"y": jnp.sqrt(p["variance"]) * noise(key, d)}
    >>> simulated = jm.with_response(normal, jm.simulation(draw, key=0, draws=400))
    >>> information = jm.information(simulated, "expected")({"variance": 1.0}, {"y": np.zeros(8)})
    >>> bool(abs(information[0, 0] - 4.0) < 4 * 0.2)  # n/2 at variance 1, within four of its errors
    True
    """
    check_function("sampler", sampler, "lambda key, params, data: {**data, 'y': …}")
    check_count("draws", draws, 2)  # two, for an error estimate
    if not isinstance(key, jax.Array | np.ndarray):
        key = typed_key(key)
    return Simulation(sampler, key, int(draws))
