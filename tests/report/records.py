"""Records to print: the fields that the tables read, with numbers chosen by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from jaxmle.parameters.constraints import Interval
from jaxmle.parameters.tree import Layout, Leaf
from jaxmle.record.fit import Fit, Witness
from jaxmle.solvers.status import Status

FREE = (-np.inf, np.inf)
POSITIVE = (0.0, np.inf)
COPIED = (
    "loglik",
    "decrement",
    "n",
    "status",
    "steps",
    "names",
    "bounds",
    "df",
    "vcov_kind",
    "mode",
    "weighting",
)


def record(x: ArrayLike, se: ArrayLike, names: tuple[str, ...], **fields: Any) -> SimpleNamespace:
    """A record of one fit, or of a batch if `x` has a leading axis; `fields` replace its defaults."""
    x, se = np.asarray(x, dtype=float), np.asarray(se, dtype=float)
    batch = x.shape[:-1]
    bounds = fields.get("bounds", (FREE,) * len(names))
    inside = np.array([low < 0.0 < high for low, high in bounds])
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(inside, x / se, np.nan)
    defaults = {
        "x": x,
        "se": se,
        "names": names,
        "bounds": bounds,
        "zvalues": z,
        "pvalues": 2.0 * ndtr(-np.abs(z)),
        "interval": lambda level: _interval(x, se, level),
        "batch_shape": batch,
        "status": np.full(batch, Status.CONVERGED, dtype=np.int32),
        "loglik": np.full(batch, -224.747),
        "aic": np.full(batch, 455.494),
        "bic": np.full(batch, 465.2),
        "decrement": np.full(batch, 1e-22),
        "steps": np.full(batch, 6),
        "n": np.full(batch, 189.0),
        "df": len(names),
        "vcov_kind": "observed",
        "mode": "ML",
        "weighting": "none",
        "witness": SimpleNamespace(row=-1, stderr_error=np.zeros(x.shape), certificate=0),
        "dtype": np.dtype("float64"),
        "explain": lambda: "CONVERGED: the maximum was found.",
    }
    fit = SimpleNamespace(**(defaults | fields))
    fit.converged = fit.status == Status.CONVERGED
    fit.verdict = Status(int(fit.status)) if batch == () else None
    return fit


def _interval(x: np.ndarray, se: np.ndarray, level: float) -> np.ndarray:
    half = ndtri((1.0 + level) / 2.0) * se
    return np.stack([x - half, x + half], axis=-1)


def admissions(**fields: Any) -> SimpleNamespace:
    """Six coefficients of R's well-known logistic regression of graduate admissions."""
    return record(
        [-3.989979, 0.002264, 0.804038, -0.675443, -1.340204, -1.551464],
        [1.139951, 0.001094, 0.331819, 0.316490, 0.345306, 0.417832],
        ("intercept", "gre", "gpa", "rank[0]", "rank[1]", "rank[2]"),
        **fields,
    )


def batch(
    b: int = 10_000, p: int = 5, failures: dict[int, Status] | None = None
) -> SimpleNamespace:
    """A batch of `b` fits of `p` parameters; `failures` gives members a status and NaN standard errors."""
    draws = np.random.default_rng(20).normal(size=(b, p))
    scale = 0.1 * 4.0 ** (np.arange(p) % 6)
    x, se = 1.0 + scale * draws, np.broadcast_to(scale, (b, p)).copy()
    status = np.full(b, Status.CONVERGED, dtype=np.int32)
    decrement = np.full(b, 1e-22)
    for member, failed in (failures or {}).items():
        status[member], se[member], x[member], decrement[member] = failed, np.nan, 1e6, 0.5 * member
    return record(x, se, tuple(f"beta[{j}]" for j in range(p)), status=status, decrement=decrement)


def genuine(fit: SimpleNamespace) -> Fit:
    """The `Fit` that holds what the record says, one scalar leaf per name."""
    p, lead = len(fit.names), fit.batch_shape
    layout = Layout(
        jax.tree.structure([0.0] * p),
        tuple(
            Leaf(name, (), Interval(*bound))
            for name, bound in zip(fit.names, fit.bounds, strict=True)
        ),
    )
    scalars = dict.fromkeys(("curvature", "digits", "gain", "distance"), np.full(lead, np.nan))
    integers = dict.fromkeys(("row", "term"), np.full(lead, -1)) | {
        "certificate": np.zeros(lead, int)
    }
    vectors = dict.fromkeys(("direction", "stderr_error"), np.zeros((*lead, p))) | dict.fromkeys(
        ("sign", "bound"), np.zeros((*lead, p), int)
    )
    matrix = np.zeros((*lead, p, p), dtype=fit.dtype)
    return Fit(
        params=[fit.x[..., j] for j in range(p)],
        stderr=[fit.se[..., j] for j in range(p)],
        vcov=matrix,
        hessian=matrix,
        score=np.zeros((*lead, p)),
        witness=Witness(**scalars, **integers, **vectors, projector=matrix, vcov=matrix),
        data_id=np.zeros((*lead, 2), dtype=np.uint32),
        layout=layout,
        **{name: getattr(fit, name) for name in COPIED},
    )
