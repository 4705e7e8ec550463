"""Residuals of a response that is known to lie in an interval only: censored times, values
recorded at a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmle._namespace import is_traced
from jaxmle._types import Array, Tree
from jaxmle.models.common.response_laws import uniform
from jaxmle.special.normal import ndtri


class Censoring(NamedTuple):
    """What a model knows of responses that are not observed exactly.

    ``ends(params, data)``: log P(Y > a) and log P(Y > b), each (n,), where the response is known to
    lie in (a, b], equal where it is known exactly; given survival to entry where there is one.
    ``inexact(data)``: in which rows the two differ. ``unlike(data)``: in which rows the law's mean
    and variance are not those of what is recorded; None where they are.
    """

    ends: Callable[[Tree, Tree], tuple[Array, Array]]
    inexact: Callable[[Tree], Array]
    unlike: Callable[[Tree], Array] | None = None

    def residual(self, key: Array | None, params: Tree, data: Tree) -> Array:
        """Φ⁻¹ of a draw from the law between the ends: standard normal if the model is right (Dunn
        & Smyth 1996).

        The smaller of F and 1 − F keeps the digits of either tail.
        """
        first, last = self.ends(params, data)
        share = 0.5 if key is None else uniform(key, first)
        above = jnp.exp(last) + share * (jnp.exp(first) - jnp.exp(last))
        below = -jnp.expm1(first) + (1 - share) * (jnp.expm1(first) - jnp.expm1(last))
        low = below < 0.5
        return jnp.where(low, ndtri(jnp.where(low, below, 0.5)), -ndtri(jnp.where(low, 0.5, above)))

    def refuse(self, kind: str, data: Tree, key: Array | None) -> None:
        """Raise where residuals of this kind say nothing of these rows, or are drawn at random
        and have no key.
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
