"""Functions inside the parameters, such as the activation of an equinox module: they are not
parameters, and are left in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxmle._types import Function, KeyPath, Tree


@jax.tree_util.register_static
@dataclass(frozen=True)
class HeldFunction:
    """A function among the parameters of a module, which can be called as before; jax sees it as
    part of the tree's structure.

    >>> import jax
    >>> jax.tree.leaves({"w": 1.0, "activation": HeldFunction(abs)})
    [1.0]
    """

    function: Function

    def __call__(self, *args: Tree, **kwargs: Tree) -> Tree:
        return self.function(*args, **kwargs)


def is_function_of_module(path: KeyPath, leaf: object) -> bool:
    """Whether a leaf is a function in a field of a class. In a dictionary, a list or a tuple it
    would be a mistake.
    """
    in_field = bool(path) and isinstance(path[-1], jax.tree_util.GetAttrKey)
    return in_field and callable(leaf) and not hasattr(leaf, "shape")


def with_held_functions(params: Tree) -> Tree:
    """The tree, with functions in fields of classes made part of its structure."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: HeldFunction(leaf) if is_function_of_module(path, leaf) else leaf, params
    )
