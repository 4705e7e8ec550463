"""Checks of a user's derivative rules (``custom_vjp``, ``custom_jvp``, a call of ``stop_gradient``)
against the functions that they differentiate.

jax takes a second derivative of such a function by differentiating its rule. If the rule hides a
dependence (the root that a solver returned, a residual under ``stop_gradient``), the score is right
but the Hessian is wrong, and neither shows it. A product of the Hessian with a direction is
therefore compared with a difference of the score; in the same way, the likelihood at a few nearby
points shows whether the score is its derivative. Only programs with rules from outside jax and this
package are checked.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxmle._types import Array, Loglik, Tree
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.derivatives import central_differences
from jaxmle.likelihood.evaluate import Accumulated, sums
from jaxmle.likelihood.structure import shapes_of
from jaxmle.parameters.tree import Layout
from jaxmle.runtime.calls import opened, programs_in
from jaxmle.runtime.compile import compiled, contradict, remembered, tracing

# Folders whose rules are trusted.
TRUSTED = (
    os.path.dirname(os.path.abspath(jax.__file__)) + os.sep,
    str(Path(__file__).resolve().parents[2]) + os.sep,
)
# A relative error in curvature changes a standard error by half of it; below this it does not
# matter. Differences are good to 1e-11, and their own error is added.
SHARE_OF_CURVATURE = 1e-6
ERRORS_ALLOWED = 4.0  # of the differences, which may be a few times larger than they measure
STEP_OF_THE_VALUES = 0.1  # in standard errors along the direction: ℓ falls by 0.005
# of the fall that the score predicts; Simpson's rule is accurate to 1e-6 here, and an adjoint
# solved with a loose tolerance is not a wrong rule
SHARE_OF_FALL = 0.01
ROUNDING_FACTOR = 64.0  # of Σ|terms|, sixteen times the noise of ℓ assumed elsewhere


class Comparison(NamedTuple):
    """What the derivatives of a likelihood are off from differences, beyond their error."""

    hessian: Array  # (p,)  along one direction, in units of each coordinate's curvature
    score: Array  # () the fraction of the fall of ℓ that the score does not predict


class Verdict(NamedTuple):
    """Whether jax's second derivatives contradict the score, or the score contradicts the
    likelihood.
    """

    hessian: bool
    score: bool
    names: tuple[str, ...]  # of the functions with a rule


def written_rules(loglik: Loglik, layout: Layout, base: Array, data: Tree) -> tuple[str, ...]:
    """The names of the functions in a likelihood's program that have a rule written by a user."""

    def find(loglik: Loglik) -> tuple[str, ...]:
        program = jax.make_jaxpr(lambda x, rows: terms_of(loglik, layout.unravel(x), rows))(
            base, data
        )
        return tuple(sorted(set(_rules(program.jaxpr, {program.jaxpr.invars[0]}))))

    if tracing():
        return find(loglik)
    return remembered(loglik, ("written rules", layout, *shapes_of(data)), find)


def _rules(jaxpr: Jaxpr, moving: set[Tree]) -> Iterator[str]:
    """The names of the user's rules that act on anything that depends on ``moving``; if one input
    of an inner program does, all are taken to.
    """
    moving = set(moving)
    for equation in jaxpr.eqns:
        if not any(not isinstance(atom, Literal) and atom in moving for atom in equation.invars):
            continue
        moving.update(equation.outvars)
        name = equation.primitive.name
        if name.startswith(("custom_vjp_call", "custom_jvp_call")):
            rule = _user_rule(equation)
            if rule is None:
                continue  # what it calls has rules of its own only inside it
            yield rule
        elif name == "stop_gradient" and (caller := _caller_of_stop(equation)) is not None:
            yield caller
        for program in programs_in(equation):
            yield from _rules(program, set(program.invars))


def _user_rule(equation: JaxprEqn) -> str | None:
    """The name of the function with the rule; None if it belongs to jax or this package."""
    program = equation.params.get("call_jaxpr") or equation.params.get("fun_jaxpr")
    source = getattr(opened(program), "debug_info", None)
    place = getattr(source, "func_filename", None) or ""
    if place.startswith(TRUSTED):
        return None
    return getattr(source, "func_name", None) or "a function"


def _caller_of_stop(equation: JaxprEqn) -> str | None:
    """The function that called ``stop_gradient``; None if it belongs to jax or this package, such
    as ``softmax``, in which the stopped part cancels.

    Transformations call it again from jax's own rules: the caller is above the last of these.
    """
    frames = getattr(equation.source_info.traceback, "frames", ())
    for frame, caller in itertools.pairwise(frames):
        is_stop = frame.function_name == "stop_gradient" and frame.file_name.startswith(TRUSTED)
        if is_stop and not caller.function_name.startswith("_stop_gradient"):
            trusted = caller.file_name.startswith(TRUSTED)
            return None if trusted else f"stop_gradient in {caller.function_name}"
    return "stop_gradient"


def compared(loglik: Loglik, layout: Layout, x: Array, data: Tree) -> Comparison:
    """The comparison at x (p,); no error if the Hessian is already computed by differences."""
    point = sums(loglik, layout, x, data)
    curvature = jnp.abs(jnp.diagonal(point.hessian))
    unit = jnp.where(curvature > 0, jax.lax.rsqrt(curvature), jnp.maximum(jnp.abs(x), 1.0))
    direction = unit * _spread(layout.p).astype(x.dtype)

    def pass_at(t: Array) -> Accumulated:
        return sums(loglik, layout, x + t * direction, data)

    def slope(t: Array) -> tuple[Array, tuple[()]]:
        return pass_at(t[0]).score, ()

    def along(score: Array) -> Array:
        return jnp.vdot(score, direction)[None]

    _, (column,), (error,) = central_differences(slope, jnp.zeros(1, x.dtype), along)
    gap = unit * jnp.abs(point.hessian @ direction - column)
    off = jnp.maximum(gap - ERRORS_ALLOWED * unit * error - SHARE_OF_CURVATURE, 0.0)
    if point.hessian_by is not None and point.hessian_by.error is not None:
        off = jnp.zeros_like(off)
    step = STEP_OF_THE_VALUES * jax.lax.rsqrt(jnp.abs(jnp.vdot(column, direction)))
    return Comparison(off, _unforeseen(pass_at, direction, step))


def _unforeseen(pass_at: Tree, direction: Array, step: Array) -> Array:
    """The fraction of the change of ℓ on both sides of a point that Simpson's rule over the score
    does not predict, beyond rounding.
    """
    places = step * jnp.array([-1.0, -0.5, 0.0, 0.5, 1.0], direction.dtype)

    def measured(t: Array) -> tuple[Array, Array, Array]:
        point = pass_at(t)
        return point.value, jnp.vdot(point.score, direction), point.absolute

    value, slope, absolute = jax.lax.map(measured, places)
    before, after = (slope[i] + 4 * slope[i + 1] + slope[i + 2] for i in (0, 2))
    foreseen = step / 6 * jnp.stack([before, after])
    change = jnp.stack([value[2] - value[0], value[4] - value[2]])
    noise = ROUNDING_FACTOR * jnp.finfo(value.dtype).eps * jnp.max(absolute)
    size = jnp.maximum(jnp.abs(change), jnp.abs(foreseen))
    off = jnp.maximum(jnp.abs(change - foreseen) - noise, 0.0)
    return jnp.max(off / jnp.maximum(size, jnp.finfo(value.dtype).tiny))


def _spread(p: int) -> Array:
    """A direction (p,) with no entry near zero and no two alike, so that no structure of a
    likelihood cancels along it.
    """
    draw = np.random.default_rng(17)
    return jnp.asarray(draw.uniform(0.5, 1.5, p) * draw.choice([-1.0, 1.0], p))


def check_rules(loglik: Loglik, layout: Layout, points: Tree, data: Tree) -> Verdict:
    """Compare the derivatives of a likelihood on the host at ``points``, each (p,); if the Hessian
    is contradicted, everything compiled from then on uses differences of the score.
    """
    names = written_rules(loglik, layout, points[0], data)
    if not names:
        return Verdict(False, False, ())

    def make(loglik: Loglik) -> Tree:
        return lambda x, data: compared(loglik, layout, x, data)

    piece = compiled(loglik, ("rules compared", layout), make)
    comparisons = [piece(np.asarray(x), data) for x in points]
    finite = [
        np.isfinite(comparison.hessian).all() and np.isfinite(comparison.score)
        for comparison in comparisons
    ]
    known = [comparison for comparison, good in zip(comparisons, finite, strict=True) if good]
    verdict = Verdict(
        any(bool(np.any(comparison.hessian > 0)) for comparison in known),
        any(bool(comparison.score > SHARE_OF_FALL) for comparison in known),
        names,
    )
    if verdict.hessian:
        contradict(loglik)
    return verdict


def error_of_hessian(off: Array, hessian: Array) -> Array:
    """A bound (p, p) on the error of a Hessian that is ``off`` along one direction (p,)."""
    scale = jnp.sqrt(jnp.abs(jnp.diagonal(hessian)))
    return scale[:, None] * scale[None, :] * jnp.maximum(off[:, None], off[None, :])
