"""Data sets simulated from a fitted model, many at once, with unchanged leaves shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Function, Loglik, Tree, ndarray
from jaxmle.parameters.arguments import check_function
from jaxmle.runtime.compile import compiled, precision
from jaxmle.runtime.opaque import Opaque

Sample = Callable[[jax.Array, Tree, Tree], Tree]


@dataclass(frozen=True)
class Simulator:
    """``sample(key, params, data)`` for many keys. Data set i uses ``fold_in(key, i)`` and
    nothing else.
    """

    sample: Function  # Sample
    params: Tree
    data: Tree
    fresh: tuple[bool, ...]  # for each leaf whether the simulation changes it
    bytes_each: float

    @property
    def in_axes(self) -> Tree:
        """The axes of the leaves, for ``fit_batch``."""
        return jax.tree.unflatten(
            jax.tree.structure(self.data), [0 if fresh else None for fresh in self.fresh]
        )

    def __call__(self, key: Array, index: ndarray) -> Tree:
        """The data sets ``index`` (b,): simulated leaves (b, n, ...), the others as they are."""
        fresh = self.fresh

        def make(portable: Tree) -> Function:
            def draw(params: Tree, data: Tree, key: Array, i: Array) -> list[Array]:
                leaves = jax.tree.leaves(
                    portable.function(jax.random.fold_in(key, i), params, data)
                )
                return [leaf for leaf, new in zip(leaves, fresh, strict=True) if new]

            return jax.vmap(draw, in_axes=(None, None, None, 0))

        program = compiled(Opaque(self.sample), ("sample", fresh), make)
        with precision(np.float64):
            new = iter(
                [
                    np.asarray(leaf)
                    for leaf in program(self.params, self.data, key, jnp.asarray(index, jnp.uint32))
                ]
            )
        old = jax.tree.leaves(self.data)
        leaves = [
            _alike(next(new), leaf) if fresh else leaf
            for leaf, fresh in zip(old, self.fresh, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(self.data), leaves)


def _alike(new: ndarray, old: Tree) -> ndarray:
    """Simulated values, in the dtype of the data if the data are floats and draws are counts."""
    return (
        new.astype(old.dtype)
        if np.dtype(old.dtype).kind == "f" and new.dtype.kind in "iub"
        else new
    )


def simulator_of(
    what: str, loglik: Loglik, sample: Sample | None, params: Tree, data: Tree
) -> Simulator:
    """The simulator, checked by abstract evaluation. A leaf that ``sample`` returns unchanged is
    shared by all data sets.
    """
    sample = getattr(loglik, "sample", None) if sample is None else sample
    if sample is None:
        raise ValueError(
            f"{what} needs sample(key, params, data), which returns data with a new "
            "response, such as lambda key, params, data: {**data, 'y': …}"
        )
    check_function("sample", sample, "lambda key, params, data: {**data, 'y': …}")
    flags: list[bool] = []

    def look(params: Tree, data: Tree, key: jax.Array) -> Tree:
        out = sample(key, params, data)
        if str(jax.tree.structure(out)) != str(jax.tree.structure(data)):
            raise ValueError(
                f"sample must return a tree like the data, {jax.tree.structure(data)}; got "
                f"{jax.tree.structure(out)}"
            )
        flags.extend(
            new is not old
            for new, old in zip(jax.tree.leaves(out), jax.tree.leaves(data), strict=True)
        )
        return out

    with precision(np.float64):
        shapes = jax.eval_shape(
            look,
            jax.tree.map(jnp.asarray, params),
            jax.tree.map(jnp.asarray, data),
            jax.random.key(0),
        )
    _check_shapes(shapes, data)
    if not any(flags):
        raise ValueError(
            "sample returned the data unchanged: it must draw a new response from the key"
        )
    size = sum(
        float(np.prod(new.shape)) * new.dtype.itemsize
        for new, fresh in zip(jax.tree.leaves(shapes), flags, strict=True)
        if fresh
    )
    return Simulator(sample, params, data, tuple(flags), size)


def _check_shapes(shapes: Tree, data: Tree) -> None:
    """Raise if simulated leaves do not have the shapes of the data."""
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(shapes), jax.tree.leaves(data), strict=True
    ):
        if new.shape != np.shape(old):
            raise ValueError(
                f"sample returns data{jax.tree_util.keystr(path)} of shape {new.shape}; the data "
                f"have {np.shape(old)}"
            )
