"""What is looked at where an ascent has ended: its mirror image, if coordinates have changed their
sign (``even_coordinates``), and information that the ascent took for rounding error
(``faint_information``).
"""

from __future__ import annotations

from collections.abc import Callable

from jaxmle._namespace import is_nowhere, namespace
from jaxmle._types import Array
from jaxmle.solvers.even_coordinates import mirror, mirroring_move, needs_mirror
from jaxmle.solvers.faint_information import needs_verification, verify
from jaxmle.solvers.state import (
    DONE,
    MIRRORING,
    SETTLED,
    STUCK,
    VERIFYING,
    Point,
    State,
    select_lazily,
)
from jaxmle.solvers.trust_region import is_running, step


def to_examine(state: State) -> State:
    """The state, about to evaluate what is to be looked at next, if there is anything."""
    xp = namespace(state.point.z)
    settled = (state.phase == DONE) & ((state.outcome == SETTLED) | (state.outcome == STUCK))
    if is_nowhere(settled):
        return state
    mirrors = settled & needs_mirror(state)
    verifies = settled & ~mirrors & needs_verification(state)
    if is_nowhere(mirrors | verifies):
        return state
    phase = xp.where(mirrors, MIRRORING, xp.where(verifies, VERIFYING, state.phase))
    move = xp.where(verifies, 0.0, state.move)
    return state._replace(
        phase=phase.astype(state.phase.dtype),
        move=xp.where(mirrors, mirroring_move(state), move),
    )


def is_examined(state: State) -> Array:
    """Whether the end of an ascent is being looked at."""
    return (state.phase == MIRRORING) | (state.phase == VERIFYING)


def examine(state: State, point: Point) -> State:
    """What follows from one evaluation."""
    verifies = state.phase == VERIFYING
    return select_lazily(verifies, lambda: verify(state, point), lambda: mirror(state, point))


def examined(evaluate: Callable[[Array], Point], state: State, max_steps: int) -> State:
    """The end of one ascent on the host after it was looked at, and after the ascent went on if
    that showed more.
    """
    state = to_examine(state)
    while is_examined(state):
        state = to_examine(examine(state, evaluate(state.point.z + state.move)))
    while is_running(state, max_steps):
        state = step(evaluate, state)
    return state
