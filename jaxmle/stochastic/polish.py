"""The polish after mini-batches: an exact fit from their end, of all parameters or of some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np

from jaxmle._types import Array, Function, Loglik, Tree, TreeDef
from jaxmle.fitting.fit import fit_with
from jaxmle.fitting.options import Options, constraints_of
from jaxmle.likelihood.checks import host_params
from jaxmle.likelihood.combinators import Penalize, Weight
from jaxmle.likelihood.contract import as_tree
from jaxmle.parameters.arguments import shown
from jaxmle.parameters.tree import layout_of, path_name
from jaxmle.record.fit import Fit
from jaxmle.runtime.opaque import Opaque


def checked_names(
    over: object, polish: object, loglik: Loglik, params: Tree
) -> tuple[str, ...] | None:
    """``polish_over`` as a tuple of keys of ``params``, checked; None where it is not given."""
    if over is None:
        return None
    over = (over,) if isinstance(over, str) else over
    if not isinstance(over, list | tuple) or not all(isinstance(name, str) for name in over):
        raise TypeError(
            f"polish_over must be a key of params0, or a list of keys; got {shown(over)}"
        )
    over = tuple(over)
    if polish is None:
        raise ValueError("polish_over selects the parameters to polish: give polish='newton' too")
    paths = _paths(params)
    known = set(params) if isinstance(params, dict) else set(paths)
    missing = [name for name in over if not any(_is_under(path, name) for path in paths)]
    if not over or missing or (isinstance(params, dict) and not set(over) <= known):
        raise ValueError(
            f"polish_over must be keys of params0, which has {sorted(map(str, known))}; got {over}"
        )
    core = as_tree(loglik)
    while isinstance(core, Weight | Penalize):
        core = core.loglik
    if not isinstance(core, Opaque):
        raise ValueError(
            "polish_over needs a plain function loglik(params, data), weighted or penalised; "
            f"got {type(core).__name__.lower()}"
        )
    return over


@partial(jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["treedef", "paths"])
@dataclass(frozen=True)
class _Module:
    """Parameters that are no dictionary, such as a module's, with some leaves to be put in by the
    names of their places.
    """

    leaves: list[Tree]
    treedef: TreeDef
    paths: tuple[str, ...]

    def filled(self, params: dict[str, Tree]) -> Tree:
        values = zip(self.paths, self.leaves, strict=True)
        return self.treedef.unflatten([params.get(path, leaf) for path, leaf in values])


def _paths(params: Tree) -> list[str]:
    """The names of the leaves by their places, such as ``layers[1].weight``."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _is_under(path: str, name: str) -> bool:
    """Whether a leaf is the one that is named, or inside it."""
    return path == name or path.startswith((f"{name}[", f"{name}."))


def _filled(held: Tree, params: dict[str, Tree]) -> Tree:
    return held.filled(params) if isinstance(held, _Module) else {**held, **params}


def _over(loglik: Loglik, held: Tree, params: dict[str, Tree], data: Tree) -> Array:
    return loglik(_filled(held, params), data)


def _prior_over(prior: Function, held: Tree, params: dict[str, Tree]) -> Array:
    return prior(_filled(held, params))


def _narrowed(loglik: Tree, held: Tree) -> Tree:
    """The likelihood, and its priors, as functions of the parameters that are not held."""
    if isinstance(loglik, Weight):
        return replace(loglik, loglik=_narrowed(loglik.loglik, held))
    if isinstance(loglik, Penalize):
        return Penalize(
            _narrowed(loglik.loglik, held), jax.tree_util.Partial(_prior_over, loglik.prior, held)
        )
    return Opaque(partial(_over, loglik.function, held), loglik.discover)


def polished(
    loglik: Loglik, params: Tree, data: Tree, names: tuple[str, ...] | None, options: Options
) -> Fit:
    """``fit`` from the end of the mini-batches, of all parameters or of those named."""
    if names is None:
        return fit_with(loglik, params, data, options)
    exact = host_params(params, np.float64)
    constraints = constraints_of(loglik, options.constraints)
    if not isinstance(params, dict):
        leaves, treedef = jax.tree.flatten(exact)
        module = _Module(leaves, treedef, tuple(_paths(exact)))
        layout = layout_of(exact, constraints)
        chosen = {
            leaf.path: (value, leaf.constraint)
            for leaf, value in zip(layout.leaves, leaves, strict=True)
            if any(_is_under(leaf.path, name) for name in names)
        }
        moving = {path: value for path, (value, _) in chosen.items()}
        bounds = {path: constraint for path, (_, constraint) in chosen.items()}
        narrow = _narrowed(as_tree(loglik), module)
        return fit_with(narrow, moving, data, replace(options, constraints=bounds))
    held = {name: exact[name] for name in params if name not in names}
    moving = {name: exact[name] for name in names}
    if isinstance(constraints, dict):
        constraints = {name: value for name, value in constraints.items() if name in names}
    options = replace(options, constraints=constraints)
    return fit_with(_narrowed(as_tree(loglik), held), moving, data, options)
