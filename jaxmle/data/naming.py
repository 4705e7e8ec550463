"""Readable names: coefficients named by the columns of their design, classes by their levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from jaxmle._types import Label, Loglik, Tree
from jaxmle.data.table import NAMES_LISTED
from jaxmle.likelihood.combinators import Fix, Pool, Tie
from jaxmle.likelihood.contract import as_tree, handed_on
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.structure import has, parts_of
from jaxmle.parameters.tree import Layout, Leaf
from jaxmle.record.fit import Fit

CUT_NAME = "cut"  # the thresholds of an ordinal model


def designs_of(loglik: Loglik, leaves: tuple[str, ...]) -> dict[str, str]:
    """From each coefficient leaf of the parameters to its design: as declared by a regression,
    otherwise beta for the first and gamma for the second.
    """
    tree = as_tree(loglik)
    declared = (
        {form.param: form.x for form in getattr(tree, "forms", ()) if isinstance(form, Linear)}
        if isinstance(tree, Regression)
        else {}
    )
    for part in parts_of(tree):
        declared |= designs_of(part, leaves)
    return declared or dict(zip(("beta", "gamma"), leaves, strict=False))


def renamed(
    fit: Fit,
    designs: Mapping[str, str],
    columns: Mapping[str, tuple[str, ...]],
    levels: tuple[Label, ...] | None,
) -> Fit:
    """The fit, of one data set or of a batch, with readable names: ``age``,
    ``age,high`` for a class, ``low|mid`` for a threshold.

    Args:
        designs: from a parameter leaf to the design leaf it belongs to.
        columns: from a design leaf to the names of its columns.
        levels: of a categorical response.
    """
    layout = _labelled(fit.layout, designs, columns, levels)
    return replace(fit, names=layout.names, layout=layout)


def _labelled(
    layout: Layout,
    designs: Mapping[str, str],
    columns: Mapping[str, tuple[str, ...]],
    levels: tuple[Label, ...] | None,
) -> Layout:
    leaves = tuple(
        replace(
            leaf,
            labels=tuple(_names(leaf, columns.get(designs.get(leaf.path, ""), ()), levels or ())),
        )
        for leaf in layout.leaves
    )
    return Layout(layout.treedef, leaves)


def check_coded(
    fit: Fit,
    model: Loglik,
    columns: Mapping[str, tuple[str, ...]],
    levels: tuple[Label, ...] | None,
    what: str,
) -> None:
    """Raise if the coefficients of a fit are not those of these columns; of a fit without readable
    names there have to be as many.

    Args:
        columns: from a design leaf to the names of its columns.
        what: the caller's name, for messages.
    """
    designs = designs_of(model, tuple(columns))
    coded = _labelled(fit.layout, designs, columns, levels).leaves
    for leaf, coded_leaf in zip(fit.layout.leaves, coded, strict=True):
        present = columns.get(designs.get(leaf.path, ""))
        if present is None:
            continue
        is_named = leaf.labels is not None and list(leaf.labels) != list(leaf.places)
        if leaf.shape[:1] != (len(present),) or (is_named and leaf.names != coded_leaf.names):
            known = [name.removeprefix(f"{leaf.path}[").removesuffix("]") for name in leaf.names]
            raise ValueError(
                f"{what} needs the frame that was fitted: the coefficients of the fit are "
                f"{_listed(known)}; the columns of this frame are {_listed(present)}"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_LISTED]) + (", …" if len(names) > NAMES_LISTED else "")


def placed(
    model: Loglik,
    layout: Layout,
    columns: Mapping[str, tuple[str, ...]],
    levels: tuple[Label, ...] | None,
) -> Tree:
    """The model with the names in every ``fix`` and ``tie`` replaced by positions in the tree."""
    tree = as_tree(model)
    if not has(tree, Fix) and not has(tree, Tie):
        return model
    names = _labelled(layout, designs_of(tree, tuple(columns)), columns, levels)
    return handed_on(model, _placed(tree, names))


def _placed(tree: Tree, layout: Layout) -> Tree:
    if isinstance(tree, Pool):
        return replace(tree, members=tuple(_placed(member, layout) for member in tree.members))
    if not parts_of(tree):
        return tree
    tree = replace(tree, loglik=_placed(tree.loglik, layout))
    if isinstance(tree, Tie):
        groups = tuple(tuple(_place(name, layout) for name in group) for group in tree.groups)
        return replace(tree, groups=groups)
    if not isinstance(tree, Fix):
        return tree
    held = [
        (layout.places[j], value if np.size(value) == 1 else np.ravel(value)[i])
        for name, value in zip(tree.names, tree.values, strict=True)
        for i, j in enumerate(_positions(name, value, layout))
    ]
    return replace(tree, names=tuple(n for n, _ in held), values=tuple(v for _, v in held))


def _positions(name: str, value: Tree, layout: Layout) -> list[int]:
    where = layout.find(name)
    if np.size(value) not in (1, len(where)):
        raise ValueError(f"fix gives {name!r} {np.size(value)} values; it has {len(where)} entries")
    return where


def _place(name: str, layout: Layout) -> str:
    """One name as a position; the name of a whole leaf as it is."""
    if name in {leaf.path for leaf in layout.leaves}:
        return name
    where = layout.find(name)
    if len(where) > 1:
        raise ValueError(f"tie joins single parameters; {name!r} has {len(where)} entries")
    return layout.places[where[0]]


def _names(leaf: Leaf, columns: tuple[str, ...], levels: tuple[Label, ...]) -> list[str]:
    if leaf.path == CUT_NAME and leaf.shape == (len(levels) - 1,):
        return [
            f"{CUT_NAME}[{low}|{high}]" for low, high in zip(levels[:-1], levels[1:], strict=True)
        ]
    if not leaf.shape or leaf.shape[0] != len(columns):
        return leaf.names
    if len(leaf.shape) == 1:
        return [f"{leaf.path}[{columns[i]}]" for (i,) in leaf.entries]
    if len(leaf.shape) == 2:
        classes = (
            [str(level) for level in levels[1:]]
            if len(levels) - 1 == leaf.shape[1]
            else [str(k) for k in range(leaf.shape[1])]
        )
        return [f"{leaf.path}[{columns[i]},{classes[k]}]" for i, k in leaf.entries]
    return leaf.names
