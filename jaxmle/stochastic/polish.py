"""The polish after mini-batches: an exact fit from their end, of all parameters or of some."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxmle._types import Array, Loglik, Tree
from jaxmle.fitting.fit import fit_with
from jaxmle.fitting.options import Options, constraints_of
from jaxmle.likelihood.checks import host_params
from jaxmle.likelihood.combinators import Penalize, Weight
from jaxmle.likelihood.contract import as_tree
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.runtime.opaque import Opaque


def checked_names(over: Any, polish: Any, loglik: Loglik, params: Tree) -> tuple[str, ...] | None:
    """``polish_over`` as a tuple of keys of ``params``, checked; None where it is not given."""
    if over is None:
        return None
    over = (over,) if isinstance(over, str) else over
    if not isinstance(over, list | tuple) or not all(isinstance(name, str) for name in over):
        raise TypeError(f"polish_over is a key of params0, or a list of them; got {shown(over)}")
    over = tuple(over)
    if polish is None:
        raise ValueError("polish_over says what a polish moves: give polish='newton' too")
    if not isinstance(params, dict) or not over or not set(over) <= set(params):
        raise ValueError(
            "polish_over must be keys of params0, which has "
            f"{sorted(map(str, params)) if isinstance(params, dict) else type(params).__name__}; "
            f"got {over}"
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


def _over(loglik: Loglik, held: dict[str, Any], params: dict[str, Any], data: Tree) -> Array:
    return loglik({**held, **params}, data)


def _prior_over(prior: Any, held: dict[str, Any], params: dict[str, Any]) -> Array:
    return prior({**held, **params})


def _narrowed(loglik: Any, held: dict[str, Any]) -> Any:
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
    held = {name: exact[name] for name in params if name not in names}
    moving = {name: exact[name] for name in names}
    constraints = constraints_of(loglik, options.constraints)
    if isinstance(constraints, dict):
        constraints = {name: value for name, value in constraints.items() if name in names}
    options = replace(options, constraints=constraints)
    return fit_with(_narrowed(as_tree(loglik), held), moving, data, options)
