"""The cone of recession of a separated fit, on the host: asked for where every term of the
likelihood is known to be concave, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmle._types import Array, Data, Loglik
from jaxmle.likelihood.discovery.concavity import is_concave
from jaxmle.likelihood.histogram import uncounted
from jaxmle.likelihood.recession import Ways, is_exact, scores_at, straight, ways
from jaxmle.likelihood.structure import term_shape
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.runtime.compile import compiled, to_numpy
from jaxmle.verdict.separation import wants_cone, with_recession_cone

POINTS_AT_ONCE = 16  # at which the gradients of all terms are held together


def with_cone(
    fit: Fit,
    loglik: Loglik,
    roots: tuple[int, ...],
    base: Array,
    data: Data,
    rows: int | None,
) -> Fit:
    """The record of one fit with the cone of its recession, where it is separated and has one.

    Args:
        roots: for each printed entry the one it follows; −1 where fixed.
        base: (p,) the start; what does not move has its value.
        data: as the passes read them.
        rows: how many there are; None where that is not known.
    """
    layout = fit.layout
    loglik = uncounted(loglik)
    if not wants_cone(fit, roots, rows) or not term_shape(loglik, layout, base, data):
        return fit
    free = straight(layout) & (np.asarray(roots) == np.arange(layout.p))
    point = np.asarray(fit.witness.point)
    # what is held is held at its limit
    held = np.where(free | ~np.isfinite(point), base, point).astype(base.dtype)
    exact = is_exact(loglik)
    concave = is_concave(loglik, layout, held, free, data)
    if not (concave or exact):
        return fit
    gradients = _ways(loglik, layout, held, data)
    if not (concave or bool(gradients.concave)):
        return fit

    def further(points: np.ndarray) -> np.ndarray:
        return _scores_at(loglik, layout, points.astype(base.dtype), data)

    return with_recession_cone(fit, roots, gradients, exact, further)


def _ways(loglik: Loglik, layout: Layout, x: Array, data: Data) -> Ways:
    def make(loglik: Loglik) -> Callable[..., Any]:
        return lambda x, data: ways(loglik, layout, x, data)

    return to_numpy(compiled(loglik, ("ways", layout), make)(x, data))


def _scores_at(loglik: Loglik, layout: Layout, points: np.ndarray, data: Data) -> np.ndarray:
    """The score of each term at the points (q, p), (q, n, p), some points at a time."""

    def make(loglik: Loglik) -> Callable[..., Any]:
        return lambda points, data: scores_at(loglik, layout, points, data)

    program = compiled(loglik, ("scores at", layout), make)
    scores = []
    for first in range(0, len(points), POINTS_AT_ONCE):
        part = points[first : first + POINTS_AT_ONCE]
        whole = np.pad(part, ((0, POINTS_AT_ONCE - len(part)), (0, 0)), mode="edge")
        scores.append(np.asarray(program(whole, data), float)[: len(part)])
    return np.concatenate(scores)
