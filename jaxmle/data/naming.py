"""Readable names: coefficients called by the columns of their design, classes by their levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxmle._types import Loglik
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.structure import parts_of
from jaxmle.parameters.tree import Layout, Leaf
from jaxmle.record.fit import Fit

CUT_NAME = "cut"  # the thresholds of an ordinal model


def designs_of(loglik: Loglik, leaves: tuple[str, ...]) -> dict[str, str]:
    """From each coefficient leaf of the parameters to its design: as a regression declares it,
    else beta to the first, gamma to the second.
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
    levels: tuple[Any, ...] | None,
) -> Fit:
    """The fit, of one data set or of a batch, with readable names: ``beta[age]``,
    ``beta[age,high]`` for a class, ``cut[low|mid]`` for a threshold.

    Args:
        designs: from a parameter leaf to the design leaf it belongs to.
        columns: from a design leaf to the names of its columns.
        levels: of a response that is a category.
    """
    leaves = tuple(
        replace(
            leaf,
            labels=tuple(_names(leaf, columns.get(designs.get(leaf.path, ""), ()), levels or ())),
        )
        for leaf in fit.layout.leaves
    )
    layout = Layout(fit.layout.treedef, leaves)
    return replace(fit, names=layout.names, layout=layout)


def _names(leaf: Leaf, columns: tuple[str, ...], levels: tuple[Any, ...]) -> list[str]:
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
