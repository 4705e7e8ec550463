"""The structure of a parameter tree as JSON, and back."""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Tree, TreeDef
from jaxmle.parameters.held_functions import with_held_functions
from jaxmle.parameters.tree import Leaf, path_name

LEAF = "*"
CLASSES = object()  # stands for a tree that cannot be rebuilt without its classes


def tree_words(treedef: TreeDef) -> Tree:
    """The structure of a tree as JSON: dictionaries, lists and tuples as such, any other node by
    its name.
    """
    node = treedef.node_data()
    if node is None:
        return LEAF
    kind, data = node
    if kind is type(None):
        return None
    words: Tree = {
        "kind": kind.__name__,
        "children": [tree_words(child) for child in treedef.children()],
    }
    if kind is dict and all(type(key) in (str, int) for key in data):
        return words | {"keys": list(data)}
    return words if kind in (list, tuple) else words | {"kind": "class", "name": kind.__name__}


def skeleton(words: Tree) -> Tree:
    """A tree with that structure and zeros as leaves, or CLASSES."""
    if words is None or words == LEAF:
        return None if words is None else 0
    children = [skeleton(child) for child in words["children"]]
    if words["kind"] == "class" or any(child is CLASSES for child in children):
        return CLASSES
    makers: dict[str, Tree] = {
        "list": list,
        "tuple": tuple,
        "dict": lambda values: dict(zip(words["keys"], values, strict=True)),
    }
    return makers[words["kind"]](children)


def structure_of(words: Tree, plain: Tree, leaves: tuple[Leaf, ...], like: Tree) -> Tree:
    """The structure of the parameters: that of ``like`` if it is given and agrees with the file,
    otherwise that of the file.

    Args:
        words: the tree, as ``tree_words`` describes it.
        plain: its structure; None if it holds classes.
        leaves: the leaves of the layout in the file.
    """
    if like is None and plain is not None:
        return plain
    saved = _described(words, [(leaf.path, leaf.shape) for leaf in leaves])
    if like is None:
        raise ValueError(
            f"its parameters are {saved}. A file does not store classes: pass like= with "
            "parameters of that structure, such as the start values"
        )
    with_path, treedef = jax.tree_util.tree_flatten_with_path(with_held_functions(like))
    given = [(path_name(path), tuple(np.shape(leaf))) for path, leaf in with_path]
    if tree_words(treedef) != words or given != [(leaf.path, leaf.shape) for leaf in leaves]:
        raise ValueError(
            f"like= must be parameters of the structure that was saved, {saved}; got "
            f"{_described(tree_words(treedef), given)}"
        )
    return treedef


def _described(words: Tree, leaves: list[tuple[str, tuple[int, ...]]]) -> str:
    """A tree for a message: its nodes, and its leaves with their shapes."""
    listed = ", ".join(f"{path or 'theta'} {shape}" for path, shape in leaves[:8])
    return f"{_drawn(words)[:300]} with leaves {listed}{', …' if len(leaves) > 8 else ''}"


def _drawn(words: Tree) -> str:
    if words is None or words == LEAF:
        return str(words)
    parts = [_drawn(child) for child in words["children"]]
    if words["kind"] == "dict":
        return (
            "{"
            + ", ".join(f"{key!r}: {part}" for key, part in zip(words["keys"], parts, strict=True))
            + "}"
        )
    inside = ", ".join(parts)
    if words["kind"] == "list":
        return f"[{inside}]"
    if words["kind"] == "tuple":
        return f"({inside}{',' if len(parts) == 1 else ''})"
    return f"{words['name']}({inside})"
