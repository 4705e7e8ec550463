"""Residuals of a response known only to lie in an interval: censored times, values recorded at a
limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, Tree
from jaxmle.models.common.response_laws import normal_score, uniform


class Censoring(NamedTuple):
    """What a model knows about responses that are not observed exactly.

    ``ends(params, data)``: log P(Y > a) and log P(Y > b), each (n,), where the response is known to
    lie in (a, b], and equal where it is known exactly; conditional on survival to entry where there
    is one. ``inexact(data)``: the rows in which the two differ. ``unlike(data)``: the rows in which
    the mean and variance of the distribution are not those of the recorded values; None if there
    are no such rows.
    """

    ends: Callable[[Tree, Tree], tuple[Array, Array]]
    inexact: Callable[[Tree], Array]
    unlike: Callable[[Tree], Array] | None = None

    def residual(self, key: Array | None, params: Tree, data: Tree) -> Array:
        """Φ⁻¹ of a draw from the distribution between the ends: standard normal if the model is
        correct (Dunn & Smyth 1996).
        """
        first, last = self.ends(params, data)
        share = 0.5 if key is None else uniform(key, first)
        above = jnp.exp(last) + share * (jnp.exp(first) - jnp.exp(last))
        below = -jnp.expm1(first) + (1 - share) * (jnp.expm1(first) - jnp.expm1(last))
        return normal_score(below, above)

    def refuse(self, kind: str, data: Tree, key: Array | None) -> None:
        """Raise if residuals of this kind are not defined for these rows, or need a random key and
        have none.
        """
        if kind == "quantile":
            number = 0 if key is not None else _number(self.inexact, data)
            if number:
                raise ValueError(
                    f"{number} rows are censored, that is known only to lie in an "
                    "interval: their quantile residuals are drawn at random within it, "
                    "so give key=0"
                )
        elif self.unlike is not None and (number := _number(self.unlike, data)):
            raise ValueError(
                f"{kind} residuals compare a response with its mean, but {number} rows "
                "are censored or entered late, so their responses are not draws from the "
                "whole distribution. Use kind='quantile', with key=0"
            )


def _number(rows: Callable[[Tree], Array], data: Tree) -> int:
    """The number of responses known only up to an interval; 0 under a trace, which hides them."""
    censored = rows(data)
    return 0 if is_traced(censored) else int(np.sum(np.asarray(censored)))
