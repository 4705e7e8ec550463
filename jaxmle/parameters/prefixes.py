"""Constraints given as a prefix of the tree of parameters: which of them each leaf has."""

from __future__ import annotations

import jax

from jaxmle._types import Tree
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.constraints import CONSTRAINT_KINDS, Constraint, free


def _step(tree: Tree, key: Tree) -> Tree:
    """The subtree of a constraint tree under one key of a path; None if it has none."""
    if isinstance(key, jax.tree_util.DictKey):
        return tree.get(key.key) if isinstance(tree, dict) else None
    if isinstance(key, jax.tree_util.SequenceKey):
        return tree[key.idx] if isinstance(tree, (list, tuple)) and key.idx < len(tree) else None
    name = getattr(key, "name", None)
    return tree.get(name) if isinstance(tree, dict) else getattr(tree, str(name), None)


def constraint_at(tree: Tree, path: tuple[Tree, ...], name: str) -> Constraint:
    """The constraint that a tree of them has for the leaf at a path; none where it says nothing.

    Raises:
        TypeError: it has something else there.
    """
    for key in path:
        if tree is None or isinstance(tree, CONSTRAINT_KINDS):
            break
        tree = _step(tree, key)
    if tree is None:
        return free
    if not isinstance(tree, CONSTRAINT_KINDS):
        raise TypeError(
            f"the constraint for {name or 'theta'} must be one of jaxmle's constraints "
            f"(positive, interval(a, b), simplex, …); got {type(tree).__name__}: {tree!r}"
        )
    return tree


def check_all_used(constraints: Tree, params: Tree) -> None:
    """Raise for a constraint that matches no parameter: it is a misspelling or a tree of a
    different form.
    """
    if constraints is None or isinstance(constraints, CONSTRAINT_KINDS):
        return
    if isinstance(params, list | tuple) and not hasattr(params, "_fields"):
        if not isinstance(constraints, list | tuple) or len(constraints) > len(params):
            raise TypeError(_other_form(constraints, f"a sequence of {len(params)} entries"))
        for sub, inner in zip(constraints, params, strict=False):
            check_all_used(sub, inner)
        return
    fields = vars(params) if hasattr(params, "__dict__") else {}
    known = params if isinstance(params, dict) else {*getattr(params, "_fields", ()), *fields}
    if isinstance(constraints, dict):
        unknown = [key for key in constraints if key not in known]
        if unknown:
            raise ValueError(
                f"constraints name {unknown[0]!r}, but params has no such entry; it has "
                f"{sorted(map(str, known))}"
            )
        for key, sub in constraints.items():
            check_all_used(sub, params[key] if isinstance(params, dict) else getattr(params, key))
    elif isinstance(params, dict) or (known and not isinstance(constraints, type(params))):
        raise TypeError(_other_form(constraints, f"entries {sorted(map(str, known))}"))


def _other_form(constraints: Tree, has: str) -> str:
    return (
        "constraints must be a tree with the structure of params, such as {'sigma': "
        f"jaxmle.positive}}: params has {has}; got {shown(constraints)}"
    )
