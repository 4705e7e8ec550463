"""The types that every room shares: what an array is, what a tree is, and what a log-likelihood
is called with.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

# What a computation is given and returns: a jax.Array under a trace or on the device, a NumPy array
# on the host.
Array: TypeAlias = jax.Array | np.ndarray
# A pytree, whose leaves are arrays or whatever a function wants of one value a leaf; Python has no
# type for it.
Tree: TypeAlias = Any
# The tree of the parameters of a model, on their own scale.
Params: TypeAlias = Tree
# The tree of the data, whose leaves have one row an observation; None where a likelihood has none.
Data: TypeAlias = Tree
# The lengths of the axes of an array.
Shape: TypeAlias = tuple[int, ...]


class Loglik(Protocol):
    """A log-likelihood: the terms of the rows, or their sum, at the parameters."""

    def __call__(self, params: Params, data: Data, /) -> Array: ...
