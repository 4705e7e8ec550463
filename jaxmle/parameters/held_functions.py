"""Functions inside the parameters, such as the activation of an equinox module: they are no
parameters, and stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxmle._types import Function, KeyPath, Tree


@jax.tree_util.register_static
@dataclass(frozen=True)
class HeldFunction:
    """A function that stands among the parameters of a module, called as itself; to jax a part of
    the tree's structure.

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
    """The tree with functions in fields of classes as parts of its structure."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: HeldFunction(leaf) if is_function_of_module(path, leaf) else leaf, params
    )
