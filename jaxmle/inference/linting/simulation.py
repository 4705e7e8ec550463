"""Checks on simulated data: mean scores, a support that depends on parameters, the sign."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from jaxmle._types import Array, Tree, ndarray
from jaxmle.inference.linting.probe import Probe
from jaxmle.inference.linting.report import Finding
from jaxmle.solvers.state import SETTLED, Point
from jaxmle.solvers.trust_region import maximise

LEVEL_OF_SCORE_TEST = 1e-4  # of the test of mean scores
MIN_RELATIVE_VARIANCE = 1e-10  # of a combination of scores, below which it is constant
MIN_SCALED_CURVATURE = 1e-6  # of ℓ in each direction, from which a search has ended at a maximum


class Draws(NamedTuple):
    """Scores (R, k) and the mean Hessian (k, k) on data simulated at z, and a few of the data
    sets.
    """

    z: ndarray
    scores: ndarray
    hessian: ndarray
    data_sets: list[Tree]


def simulate(probe: Probe, fold: int = 0) -> Draws:
    """Scores (R, k) and the mean Hessian (k, k) of data sets from the likelihood's own simulator,
    at least 64 and 4k + 16 of them.

    Args:
        fold: different numbers give different data sets.

    Raises:
        ValueError: if the simulator returns data with a different tree or shapes.
    """
    z = probe.regular_points[0]
    params = jax.tree.map(jnp.asarray, probe.chart.layout.unravel(probe.x(z)))
    shapes = jax.tree.map(jnp.shape, probe.data)
    points: list[Point] = []
    data_sets: list[Tree] = []
    for key in jax.random.split(jax.random.fold_in(probe.key, fold), max(64, 4 * z.size + 16)):
        drawn = probe.sample(key, params, probe.data)
        if jax.tree.map(jnp.shape, drawn) != shapes:
            raise ValueError(
                "sample(key, params, data) must return data of the same structure and "
                "shapes as its input"
            )
        drawn = jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), drawn, probe.data)
        points.append(probe.bare(z, drawn))
        data_sets = [*data_sets, drawn][:8]
    return Draws(
        z,
        np.stack([point.score for point in points]),
        np.mean([point.hessian for point in points], axis=0),
        data_sets,
    )


def check_scores(probe: Probe, draws: Draws | None) -> Finding:
    """Test E[score] = 0 by Hotelling's test. With V = Σ s s'/R about zero, T = R m'V⁻¹m has T/R ~
    Beta(k/2, (R − k)/2) under normal scores.
    """
    if draws is None:
        sentence = "not checked: give its simulator, sample(key, params, data) -> data"
        if probe.obstacle:
            sentence = "not checked: it cannot be differentiated"
        return Finding("scores", None, sentence)
    s = draws.scores
    if not np.all(np.isfinite(s)):
        sentence = (
            "data simulated at some parameters do not have a finite score at the same "
            "parameters: density and simulator disagree"
        )
        return Finding("scores", False, sentence)
    size = np.sqrt(np.mean(s**2, axis=0))
    s = s[:, size > 0] / size[size > 0]
    mean = s.mean(axis=0)
    (r, k) = s.shape
    if not k:
        return Finding("scores", None, "undecided: every score is zero")
    values, vectors = np.linalg.eigh(s.T @ s / r)
    regular = values > MIN_RELATIVE_VARIANCE * values[-1]
    share = min(1.0, float(np.sum((vectors[:, regular].T @ mean) ** 2 / values[regular])))
    p = float(scipy.special.betainc((r - regular.sum()) / 2, regular.sum() / 2, 1.0 - share))
    error = np.sqrt(np.maximum(1 - mean**2, 1e-30) / r)
    j = int(np.flatnonzero(size > 0)[np.argmax(np.abs(mean / error))])
    evidence = {
        "p": p,
        "draws": r,
        "parameter": probe.names(j),
        "z": float(np.max(np.abs(mean / error))),
    }
    if p >= LEVEL_OF_SCORE_TEST:
        sentence = f"scores average to zero on {r} simulated data sets (p = {p:.2g})"
        return Finding("scores", True, sentence, evidence)
    sentence = (
        f"the score in {evidence['parameter']} does not average to zero on its own "
        f"simulated data ({evidence['z']:.1f} Monte Carlo errors): density and simulator "
        "differ, or a part of the density that depends on a parameter is missing or "
        "wrong"
    )
    return Finding("scores", False, sentence, evidence)


def check_support(probe: Probe, draws: Draws | None, mass: Finding) -> Finding:
    """Check that a row that is possible at one point is possible at its neighbours."""
    start = probe.rows(probe.z)
    for z in probe.near:
        for k, terms in enumerate(probe.rows(z)):
            lost = np.atleast_1d(np.isneginf(terms) & np.isfinite(start[k]))
            if np.any(lost):
                return _moving(
                    probe,
                    probe.place(k, int(np.flatnonzero(lost)[0])) if terms.ndim else "the data",
                    z,
                )
    if draws is not None:
        for z in (probe.z, *probe.near):
            if any(
                np.isneginf(probe.bare(z, drawn).value)
                and np.isfinite(probe.bare(draws.z, drawn).value)
                for drawn in draws.data_sets
            ):
                return _moving(probe, "data simulated near the start", z)
    if mass.evidence.get("moves"):
        return _moving(probe, "some response", probe.near[0])
    return Finding("support", True, "no row becomes impossible near the start")


def _moving(probe: Probe, what: str, z: ndarray) -> Finding:
    sentence = (
        f"{what} can have density zero at parameters close to the start: either the "
        "support depends on the parameters, and the usual standard errors are not valid, "
        "or a density underflows before its log is taken (use log densities and "
        "logsumexp)"
    )
    return Finding("support", False, sentence, {"params": probe.x(z)})


def check_sign(probe: Probe, draws: Draws | None, mass: Finding) -> Finding:
    """Check that the function is ℓ and not −ℓ: by its integral, by the mean Hessian at the
    parameters of the simulation, or by whether it has an interior maximum or minimum.
    """
    wrong = "wrong sign: this is a negative log-likelihood; return +ℓ, because jaxmle maximises"
    if mass.evidence.get("turned"):
        return Finding("sign", False, wrong, {"by": "exp(-term) integrates to one"})
    if mass.passed:
        return Finding("sign", True, "exp(term) is a density", {"by": "mass"})
    if probe.obstacle:
        return Finding("sign", None, "not checked: it cannot be differentiated")
    if draws is not None and np.all(np.isfinite(draws.hessian)):
        low, high = _curvatures(draws.hessian)
        if low >= -0.05 and high > 0.1:
            return Finding(
                "sign",
                False,
                wrong,
                {"by": "the mean Hessian at the parameters of the simulation is positive definite"},
            )
        if high <= 0.05 and low < -0.1:
            return Finding(
                "sign",
                True,
                "the mean Hessian at the parameters of the simulation is negative definite",
                {"by": "simulation"},
            )
    if _has_inner_maximum(probe, 1.0):
        return Finding("sign", True, "it has an interior maximum", {"by": "climbing"})
    if _has_inner_maximum(probe, -1.0):
        return Finding("sign", False, wrong, {"by": "it has an interior minimum and no maximum"})
    return Finding(
        "sign",
        None,
        "undecided: no interior maximum or minimum was found from this start; give "
        "response and support, or sample",
    )


def _curvatures(hessian: Array) -> tuple[float, float]:
    """The extreme eigenvalues of a Hessian scaled to a unit diagonal."""
    scale = np.sqrt(np.abs(np.diagonal(hessian)))
    scale = np.where(scale > 0, scale, 1.0)
    values = np.linalg.eigvalsh(0.5 * (hessian + hessian.T) / np.outer(scale, scale))
    return float(values[0]), float(values[-1])


def _has_inner_maximum(probe: Probe, sign: float) -> bool:
    def evaluate(z: Array) -> Point:
        point = probe.bare(np.asarray(z), probe.data)
        return Point(
            z, sign * point.value, point.absolute, sign * point.score, sign * point.hessian
        )

    state = maximise(evaluate, probe.z, 100)
    return (
        int(state.outcome) == SETTLED
        and bool(np.all(np.isfinite(state.point.hessian)))
        and _curvatures(state.point.hessian)[1] < -MIN_SCALED_CURVATURE
    )
