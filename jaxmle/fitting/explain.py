"""The sentence of a verdict, formed from the witness and the parameter names when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmle.solvers.status import MEANING, Status

if TYPE_CHECKING:
    from jaxmle.fitting.record import Fit


def explain(fit: Fit) -> str:
    """One sentence for the status of one fit, with the parameters concerned and what to do about it."""
    status, w = fit.verdict, fit.witness
    words = {
        "along": f"along {combination(fit.names, w.direction)}" if np.any(w.direction) else "",
        "bound": _bounds(fit),
        "free": _free(fit),
        "place": f"row {int(w.row)} of the data" if int(w.row) >= 0 else "the start values",
        "distance": f"{float(w.distance):.2g}" if np.isfinite(w.distance) else "an unknown number of",
        "digits": f"{max(float(w.digits), 0):.0f}",
        "dtype": str(fit.dtype),
    }
    sentence = MEANING[status].format(**words)
    sentence = _infinite(fit) + sentence if status == Status.SEPARATED else sentence
    if not sentence.startswith(fit.names):
        sentence = sentence[0].upper() + sentence[1:]
    if status == Status.CONVERGED and int(w.row) >= 0:
        sentence += f" Row {int(w.row)} has leverage one, so {fit.vcov_kind} does not exist."
    return sentence.replace("  ", " ").replace(" ;", ";").replace(" .", ".")


def combination(names: tuple[str, ...], direction: Any, limit: int = 4) -> str:
    """A direction as a readable sum: ``a - b``, ``0.5*a + b``; its largest coefficient is one, small ones are left out."""
    d = np.asarray(direction, dtype=float)
    d = d / d[np.argmax(np.abs(d))]
    chosen = [j for j in np.argsort(-np.abs(d), kind="stable") if abs(d[j]) > 1e-6]
    text = ""
    for j in sorted(chosen[:limit]):
        size = abs(d[j])
        term = names[j] if abs(size - 1) < 5e-4 else f"{size:.3g}*{names[j]}"
        text += (" - " if d[j] < 0 else " + ") + term if text else ("-" if d[j] < 0 else "") + term
    return text + (" + …" if len(chosen) > limit else "")


def _bounds(fit: Fit) -> str:
    told = []
    for name, code, (low, high) in zip(fit.names, np.asarray(fit.witness.bound), fit.bounds, strict=True):
        if code:
            told.append(f"{name} = {low if code < 0 else high:g}")
    return ", ".join(told)


def _free(fit: Fit) -> str:
    """The parameters that a flat direction moves."""
    share = np.diagonal(np.asarray(fit.witness.projector))
    moved = [name for name, s in zip(fit.names, share, strict=True) if s > 1e-6]
    told = ", ".join(moved[:6]) + (", …" if len(moved) > 6 else "")
    return f"{told} (the combination {combination(fit.names, fit.witness.direction)} is free)" if np.any(fit.witness.direction) else told


def _infinite(fit: Fit) -> str:
    told = [f"{name} → {'+' if s > 0 else '−'}∞" for name, s in zip(fit.names, np.asarray(fit.witness.sign), strict=True) if s]
    return ", ".join(told[:6]) + "; " if told else ""
