"""A family at given parameters, as one distribution to compare with another."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, FunctionTo, NamedParams, Tree, ndarray
from jaxmle.families.family import Family
from jaxmle.runtime.compile import precision
from jaxmle.runtime.jax_state import host_only

VALUES_AT_ONCE = 512  # at which a density is evaluated in one call


@dataclass(frozen=True, eq=False)
class Distribution:
    """A family at one value of its parameters."""

    family: Family
    values: NamedParams

    @property
    def name(self) -> str:
        return self.family.name

    def log_prob(self, y: Array) -> ndarray:
        """The log density at y, in chunks of one length so that it is compiled once."""
        if np.ndim(y) != 1:
            return np.asarray(self.family.log_prob(self.values, jnp.asarray(y)))
        program = program_of(self.family, "log_prob")
        padded = np.concatenate([y, np.full(-len(y) % VALUES_AT_ONCE, y[0])])
        return np.concatenate(
            [np.asarray(program(self.values, part)) for part in padded.reshape(-1, VALUES_AT_ONCE)]
        )[: len(y)]

    def support(self) -> tuple[float, float]:
        low, high = self.family.support(self.values)
        return float(np.min(low)), float(np.max(high))


@functools.lru_cache(maxsize=64)
def program_of(family: Family, what: str) -> FunctionTo[Array]:
    """A compiled function of a family, cached for the families used last."""
    return jax.jit(getattr(family, what))


def is_pair(p: Tree) -> bool:
    """Whether ``p`` is a tuple of two elements, a family and its parameters."""
    return isinstance(p, tuple) and len(p) == 2 and callable(p[0])


def check_host() -> None:
    """Raise under a trace, and say what to do instead."""
    host_only("information", "; inside a trace, average family.log_prob over family.sample")


def distribution_of(p: Tree, what: str) -> Distribution:
    """The distribution that a family and its parameters make, the parameters in float64.

    Raises:
        TypeError: ``p`` is not such a pair; ``what`` is its name in the message.
        ValueError: a parameter is not finite.
    """
    check_host()
    if not is_pair(p) or not isinstance(p[0], Family):
        raise TypeError(
            f"{what} must be a family and its parameters, such as "
            "(jaxmle.families.normal, {'loc': 0.0, 'scale': 1.0}); got "
            f"{type(p).__name__}"
        )
    family, params = p
    with precision(np.float64):
        values = jax.tree.map(lambda leaf: np.asarray(leaf, float), family.read(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        if not np.all(np.isfinite(leaf)):
            raise ValueError(
                f"{what} has the parameter {jax.tree_util.keystr(path)} = {leaf}; parameters "
                "must be finite"
            )
    return Distribution(family, values)


def check_comparable(p: Distribution, q: Distribution) -> None:
    """Raise ``ValueError`` where one distribution is discrete and the other has a density."""
    if p.family.discrete != q.family.discrete:
        raise ValueError(
            f"{p.name} and {q.name} cannot be compared: one is discrete and the other has a density"
        )


def is_vector(law: Distribution) -> bool:
    """Whether its values are vectors."""
    return law.name.startswith("multivariate")


def outside_support(p: Distribution, q: Distribution) -> bool:
    """Whether p has probability outside the support of q."""
    if is_vector(p):
        return False
    (low, high) = p.support()
    (q_low, q_high) = q.support()
    return (low < q_low and _mass(p, "log_cdf", q_low)) or (
        high > q_high and _mass(p, "log_sf", q_high)
    )


def _mass(p: Distribution, tail: str, end: float) -> bool:
    """Whether the tail beyond an end has probability; discrete families only at integers."""
    if getattr(p.family.law, tail) is None:
        return True
    end = np.ceil(end) - 1 if tail == "log_cdf" and p.family.discrete else end
    return bool(np.asarray(getattr(p.family, tail)(p.values, jnp.asarray(end))) > -np.inf)
