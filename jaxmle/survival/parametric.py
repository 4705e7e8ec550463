"""Curves of accelerated failure time models with standard errors by the delta method, at every row
and time separately.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from jaxmle._types import Array, Foreign, FunctionTo, Tree, ndarray
from jaxmle.inference.again import check_fit
from jaxmle.likelihood.checks import host_data, host_params
from jaxmle.likelihood.contract import as_tree
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point, propagated_rows
from jaxmle.runtime.compile import compiled, precision

ROWS_OF_GRADIENTS = 1024  # rows whose derivatives are in memory together


def values_of(
    model: Foreign, fit: Fit, data: Tree, quantity: str, grid: ndarray
) -> tuple[ndarray, ndarray]:
    """A quantity of each row at each time or level of ``grid``, (n, m), and its standard errors.

    Var g = ∇g' V ∇g for each entry; NaN if the data do not determine the value, or if parameters
    were given instead of a fit.
    """
    curve = partial(CURVE_OF[quantity], model)
    with precision(np.float64):
        rows = jax.tree.map(np.asarray, host_data(data, np.float64))
        if not isinstance(fit, Fit):
            value = np.asarray(curve(host_params(fit, np.float64), rows, grid))
            return value, np.full_like(value, np.nan)
        check_fit(quantity, fit, alone=True)
        layout = fit.layout

        def both(x: Array, rows: Tree, grid: Array) -> tuple[Array, Array]:
            def of_x(x: Array) -> Array:
                return curve(layout.unravel(x), rows, grid)

            return of_x(x), jax.jacfwd(of_x)(x)

        key = ("survival curve", quantity, layout)
        program = compiled(as_tree(model), key, lambda _: both)
        x = np.asarray(finite_point(fit), np.float64)
        parts = [
            _with_stderr(fit, *map(np.asarray, program(x, part, grid))) for part in _blocks(rows)
        ]
    values, errors = zip(*parts, strict=True)
    return np.concatenate(values), np.concatenate(errors)


def _blocks(rows: Tree) -> list[Tree]:
    """Blocks of rows whose derivatives are in memory together."""
    n = len(jax.tree.leaves(rows)[0])
    cuts = [slice(low, low + ROWS_OF_GRADIENTS) for low in range(0, n, ROWS_OF_GRADIENTS)]
    return [{name: leaf[cut] for name, leaf in rows.items()} for cut in cuts]


def _with_stderr(fit: Fit, value: ndarray, gradient: ndarray) -> tuple[ndarray, ndarray]:
    """Values (n, m) and, from their gradients (n, m, p), standard errors (n, m)."""
    rows = gradient.reshape(-1, gradient.shape[-1])
    stderr = propagated_rows(fit, rows).stderr.reshape(value.shape)
    # A value that does not depend on the parameters, such as S at 0, has standard error 0.
    return value, np.where(np.any(gradient != 0, axis=-1), stderr, 0.0)


def _on_grid(quantity: str, model: Foreign, params: Tree, rows: Tree, grid: Array) -> Array:
    return model.law.function(quantity, model.name)(grid, *model.natural(params, rows))


def _quantiles(model: Foreign, params: Tree, rows: Tree, grid: Array) -> Array:
    natural = (value[:, None] for value in model.natural(params, rows))
    return model.law.quantile(grid[None, :], *natural)


CURVE_OF: dict[str, FunctionTo[Array]] = {
    "survival": partial(_on_grid, "survival"),
    "cumulative_hazard": partial(_on_grid, "cumulative_hazard"),
    "hazard": partial(_on_grid, "hazard"),
    "quantile": _quantiles,
}
