"""Small likelihoods and data that the tests of fitting share, so that few shapes are compiled."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

N = 60
TRUE = np.array([0.3, 1.0, -0.5])


BETA = {"beta": np.zeros(3)}
BETA_SIGMA = {"beta": np.zeros(3), "sigma": 1.0}


class Line(NamedTuple):
    slope: object
    level: object


@partial(jax.tree_util.register_dataclass, data_fields=["beta", "scale"], meta_fields=["label"])
@dataclasses.dataclass(frozen=True)
class Curve:
    beta: object
    scale: object
    label: str = "curve"


def design(seed, b=None):
    """An intercept and two standard normal columns, (n, 3) or (b, n, 3)."""
    shape = (N, 2) if b is None else (b, N, 2)
    columns = np.random.default_rng(seed).normal(size=shape)
    return np.concatenate([np.ones((*shape[:-1], 1)), columns], axis=-1)


def logistic_data(seed, b=None):
    x = design(seed, b)
    rng = np.random.default_rng(seed + 1)
    return {"x": x, "y": (rng.random(x.shape[:-1]) < 1 / (1 + np.exp(-x @ TRUE))).astype(float)}


def linear_data(seed, b=None):
    x = design(seed, b)
    return {"x": x, "y": x @ TRUE + np.random.default_rng(seed + 1).normal(size=x.shape[:-1])}


def stack(*members):
    """Data sets of one shape as a batch of them."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def under_trace(transform, function, *args):
    """``transform(function)(*args)`` in float64, as NumPy arrays."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, transform(function)(*args))
