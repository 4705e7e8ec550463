"""Checks by differences: score and Hessian against finite differences, and parameters without an
effect.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmle._types import Tree, ndarray
from jaxmle.inference.linting.probe import Probe, is_finite
from jaxmle.inference.linting.report import Finding
from jaxmle.solvers.state import Point


def _slopes(probe: Probe, z: ndarray, j: int, h: float) -> tuple[Tree, Tree, Tree, Tree]:
    """Central differences of ℓ and of the score in coordinate j, by Richardson extrapolation, each
    with the change in its last refinement.
    """
    step = np.zeros_like(z)
    step[j] = h
    ends = [
        (probe.whole(z + scale * step, probe.data), probe.whole(z - scale * step, probe.data))
        for scale in (1.0, 0.5)
    ]
    out = []
    for part in ("value", "score"):
        coarse, fine = (
            (getattr(up, part) - getattr(down, part)) / (2 * scale * h)
            for (up, down), scale in zip(ends, (1.0, 0.5), strict=True)
        )
        best = (4 * fine - coarse) / 3
        out += [best, np.abs(best - fine)]
    return out[0], out[1], out[2], out[3]


class _Errors(NamedTuple):
    """The errors of one coordinate at one point, as multiples of their tolerances, with the
    evidence for each.
    """

    score: float
    hessian: float
    evidence: tuple[dict[str, Tree], dict[str, Tree]]


def _compared(probe: Probe, z: ndarray, point: Point, j: int) -> _Errors:
    """The score in coordinate j, and column j of the Hessian, against differences. Errors are
    measured in row units.
    """
    unit = probe.unit
    # 100 times the noise, divided by the step of 1e-3 row units.
    rounding_of_change = 1e5 * (probe.noise + 1e-15) * (probe.n + float(point.absolute))
    slope, slope_error, curvature, curvature_error = _slopes(probe, z, j, 1e-3 * unit[j])
    off = abs(slope - point.score[j]) * unit[j]
    allowed = (
        slope_error * unit[j]
        + rounding_of_change
        + 1e-7 * (abs(point.score[j]) * unit[j] + probe.n)
    )
    curve = np.abs(curvature - point.hessian[:, j]) * unit[j] * unit
    room = (
        curvature_error * unit[j] * unit
        + rounding_of_change
        + 1e-6 * (np.abs(point.hessian[:, j]) * unit[j] * unit + probe.n)
    )
    i = int(np.argmax(curve / room))
    score = {
        "quantity": "score",
        "parameter": probe.names(j),
        "given": float(point.score[j]),
        "differences": float(slope),
    }
    names = f"{probe.names(i)} and {probe.names(j)}"
    hessian = {
        "quantity": "Hessian",
        "parameter": names,
        "given": float(point.hessian[i, j]),
        "differences": float(curvature[i]),
    }
    return _Errors(off / allowed, curve[i] / room[i], (score, hessian))


def check_derivatives(probe: Probe) -> Finding:
    """Compare score and Hessian with central differences, in row units, at two points: a kink
    within one step of one point is not within one step of the other.
    """
    if probe.obstacle:
        sentence = (
            f"it cannot be differentiated twice ({probe.obstacle}): use jax functions, or "
            "jax.custom_jvp for your own rules"
        )
        return Finding("derivatives", False, sentence, {"error": probe.obstacle})
    points = [z for z in probe.regular_points if is_finite(probe.whole(z, probe.data))][:2]
    if not points:
        return Finding("derivatives", None, "not checked: the score or the Hessian is not finite")
    k = probe.z.size
    columns = np.arange(k) if k <= 30 else np.sort(probe.rng.choice(k, 30, replace=False))
    errors = [
        [_compared(probe, z, probe.whole(z, probe.data), int(j)) for j in columns] for z in points
    ]
    excess = np.array([[error[:2] for error in row] for row in errors])
    if not np.any(np.all(excess > 1, axis=0)):
        return Finding(
            "derivatives",
            True,
            "score and Hessian agree with finite differences",
            {"largest": float(excess.max())},
        )
    each = [error for row in errors for error in row]
    worst = (
        [error.evidence[0] for error in reversed(each) if error.score > 1]
        + [error.evidence[1] for error in each if error.hessian > 1]
    )[0]
    sentence = (
        f"the {worst['quantity']} in {worst['parameter']} is {worst['given']:.6g}, finite "
        f"differences give {worst['differences']:.6g} (free scale): look for stop_gradient, a "
        "custom rule, a cast to integers, or a special function without that derivative"
    )
    return Finding("derivatives", False, sentence, worst)


def check_parameters(probe: Probe) -> Finding:
    """Check that no coordinate has a score of exactly zero everywhere."""
    if probe.obstacle:
        return Finding("parameters", None, "not checked: it cannot be differentiated")
    points = [probe.bare(z, probe.data) for z in (probe.z, *probe.regular_points)]
    z = probe.z

    def moved(j: int, size: float) -> bool:
        """Whether ℓ changes if only coordinate j changes by ``size``, in either direction."""
        step = np.where(np.arange(z.size) == j, size * max(1.0, abs(z[j])), 0.0)
        values = [float(probe.bare(z + sign * step, probe.data).value) for sign in (1.0, -1.0)]
        return any(np.isfinite(value) and value != float(points[0].value) for value in values)

    flat = [int(j) for j in np.flatnonzero(np.all([point.score == 0 for point in points], axis=0))]
    moves = [any(moved(j, size) for size in (0.1, 0.3, 1.0)) for j in flat]
    unused = [probe.names(j) for j, does in zip(flat, moves, strict=True) if not does]
    jumps = [
        probe.names(j) for j, does in zip(flat, moves, strict=True) if does and not moved(j, 1e-6)
    ]
    evidence = {"unused": unused, "jumps": jumps}
    if unused:
        sentence = (
            f"{', '.join(unused)} has no effect on these data: leave it out, hold it with "
            "fix, or check whether the likelihood should use it"
        )
        return Finding("parameters", False, sentence, evidence)
    if jumps:
        sentence = (
            f"the value changes with {', '.join(jumps)} in jumps, and its score is zero: "
            "there is a cast to integers, round or floor inside, and no maximum can be "
            "found"
        )
        return Finding("parameters", False, sentence, evidence)
    return Finding("parameters", True, "every parameter has an effect", evidence)
