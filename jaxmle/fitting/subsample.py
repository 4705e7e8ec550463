"""Where to start a climb over very many rows: at the maximum of a few of them.

The maximum over m of n independent rows is about √(n/m) standard errors from that over all; from there Newton's steps take two passes
over the data fewer than from a start by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmle.fitting.engine import Problem
from jaxmle.likelihood.combinators import WithResponse
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.regression import Regression
from jaxmle.solvers.loop import SETTLED, Point, maximise
from jaxmle.solvers.methods import Newton

Array = Any
Tree = Any

MANY = 2**19  # rows from which two passes saved are worth another program
FEW = 2**15  # rows of the sample, and at least
ROWS_EACH = 256  # for each parameter
STEPS = 30


def head_start(problem: Problem, data: Tree, z: Array, evaluate_on: Callable[[Tree], Callable[[Array], Point]]) -> Array:
    """The maximum (k,) over evenly spaced rows, by a climb from z; z itself where there are few rows or that climb does not arrive.

    Args:
        problem: only a declared regression has a head start: its rows are independent by declaration.
        data: on the host.
        evaluate_on: the passes over other data.
    """
    core = problem.loglik.loglik if isinstance(problem.loglik, WithResponse) else problem.loglik
    if not isinstance(core, Regression) or jax.tree.leaves(problem.loglik) or not isinstance(problem.solver, Newton):
        return z
    n, few = data_length(data) or 0, max(FEW, ROWS_EACH * problem.chart.k)
    if n < max(MANY, 8 * few):
        return z
    stride = n // few
    sample = jax.tree.map(lambda leaf: jax.device_put(np.ascontiguousarray(leaf[: stride * few : stride])), data)
    state = maximise(evaluate_on(sample), z, STEPS)
    return state.point.z if state.outcome == SETTLED and state.newton.definite and state.newton.convex else z
