"""Which array module a value belongs to: code that runs on both roads asks here."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmle._types import Namespace


def namespace(x: object) -> Namespace:
    """NumPy for what is NumPy's, on the host; jax.numpy for the rest, under a trace."""
    return np if isinstance(x, np.ndarray | np.generic) else jnp


def is_traced(value: object) -> bool:
    """Whether a value is an array of somebody's ``jit``, ``vmap`` or ``grad``: it has a shape and
    no numbers yet.
    """
    return isinstance(value, Tracer)


def is_nowhere(condition: object) -> bool:
    """Whether a condition is known, on the host, to hold for nobody: what follows from it need not
    be computed then.
    """
    return isinstance(condition, np.ndarray | np.generic) and not np.any(condition)
