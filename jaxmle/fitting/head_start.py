"""The start of an ascent over very many rows: the maximum over a sample of them.

The maximum over m of n independent rows is about √(n/m) standard errors from that over all, and
their information, n/m times, is that of all to within √(k/m). From there, passes for the score
alone come so close to the maximum that one Hessian over all rows is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxmle._types import Array, Data, Tree
from jaxmle.fitting.passes import Passes
from jaxmle.likelihood.combinators import WithResponse
from jaxmle.likelihood.contract import data_length
from jaxmle.likelihood.regression import Regression
from jaxmle.solvers.first_order import DECREMENT_OF_QUADRATIC_RANGE
from jaxmle.solvers.linalg import cholesky, eigh, solve_lower
from jaxmle.solvers.methods import LBFGS, Newton
from jaxmle.solvers.state import Point, State
from jaxmle.solvers.tails import RECEDING_INFORMATION
from jaxmle.solvers.trust_region import begin, is_running, step

# rows from which the passes that are saved are worth two programs more
MIN_ROWS_FOR_HEAD_START = 2**19
# n k² from which they are at fewer rows: a Hessian then takes 0.05 s
MIN_WORK_FOR_HEAD_START = 2e9
MIN_SAMPLE_ROWS = 2**15
SAMPLE_ROWS_A_PARAMETER = 256
MIN_ROWS_A_SAMPLE_ROW = 8  # the sample is at most this part of all rows
# below this the sample's information is too rough a metric
MIN_SAMPLE_ROWS_A_PARAMETER = 32
MAX_SAMPLE_STEPS = 30


class Head(NamedTuple):
    """The maximum of the sample."""

    z: Array  # (k,)
    information: Array  # (k, k) of all rows, as the sample has it
    # relative change of the information over one standard error of all rows, as the last step over
    # the sample has it
    turn: Array


class Sampler(NamedTuple):
    """Where a sample of the rows comes from."""

    n: int  # rows in all
    sample: Callable[[int], Data]  # from a number of rows to about so many, evenly spaced


def sampler_of(data: Data, n: int) -> Sampler:
    """The sampler of data of n rows in memory."""

    def sample(few: int) -> Data:
        stride = n // few
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: stride * few : stride], data)

    return Sampler(n, sample)


def head_start(passes: Passes, z: Array, sampler: Sampler) -> Head | None:
    """The maximum over evenly spaced rows, by an ascent from z (k,); None if there are few rows or
    if that ascent does not converge.

    Only a declared regression has a head start: its rows are independent by declaration.
    """
    problem = passes.problem
    core = problem.loglik.loglik if isinstance(problem.loglik, WithResponse) else problem.loglik
    if (
        not isinstance(core, Regression)
        or jax.tree.leaves(problem.loglik)
        or not isinstance(problem.solver, Newton | LBFGS)
    ):
        return None
    n = sampler.n
    k = problem.chart.k
    few = min(max(MIN_SAMPLE_ROWS, SAMPLE_ROWS_A_PARAMETER * k), n // MIN_ROWS_A_SAMPLE_ROW)
    if (
        n < MIN_ROWS_FOR_HEAD_START and n * k**2 < MIN_WORK_FOR_HEAD_START
    ) or few < MIN_SAMPLE_ROWS_A_PARAMETER * k:
        return None
    sample = sampler.sample(few)
    few = data_length(sample) or few
    before, state = _ascend(passes.on(sample).evaluate, z)
    if not _is_near(state):
        return None
    return Head(
        state.point.z + state.newton.step,
        n / few * _information(state),
        _turn(before, state) * np.sqrt(few / n),
    )


def _ascend(evaluate: Callable[[Array], Point], z: Array) -> tuple[State, State]:
    """The last two states of an ascent that stops at a seventh of a standard error of the sample,
    because the maximum of the sample is many standard errors (of all rows) away from that of all
    rows.
    """
    before = state = begin(evaluate, z)
    while is_running(state, MAX_SAMPLE_STEPS) and not _is_near(state):
        before = state
        state = step(evaluate, state)
    return before, state


def _information(state: State) -> Array:
    return -0.5 * (state.point.hessian + state.point.hessian.T)


def _turn(before: State, state: State) -> Tree:
    """max |u'(J₁ − J₀)u| / u'J₁u over u, per unit of the distance √(d'J₁d) between two states;
    infinite if the distance is zero.
    """
    now = _information(state)
    path = state.point.z - before.point.z
    scale = np.sqrt(np.diagonal(now))
    root = cholesky(now / np.outer(scale, scale))
    half = solve_lower(root, (now - _information(before)) / np.outer(scale, scale))
    change = solve_lower(root, half.T)
    length = np.sqrt(path @ now @ path)
    known = length > 0 and np.all(np.isfinite(change))
    return (
        np.max(np.abs(eigh(0.5 * (change + change.T))[0])) / length if known else np.float64(np.inf)
    )


def _is_near(state: State) -> bool:
    newton = state.newton
    return bool(
        newton.definite
        & newton.convex
        & (newton.decrement <= DECREMENT_OF_QUADRATIC_RANGE)
        & (state.signature.information >= RECEDING_INFORMATION)
    )
