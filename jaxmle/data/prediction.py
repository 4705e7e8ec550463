"""Quantities that a fit predicts for each row: as functions of parameters and data, with the scale
of their intervals and their standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.flatten_util import ravel_pytree

from jaxmle._types import Array, Foreign, Function, Label, Loglik, Tree, ndarray
from jaxmle.data.naming import check_coded
from jaxmle.fitting.recession import MAX_ASKED, recession_rays
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import weight
from jaxmle.likelihood.contract import as_tree
from jaxmle.likelihood.regression import Linear
from jaxmle.likelihood.structure import core_of
from jaxmle.models.common.predictors import eta_of
from jaxmle.models.made_again import made_again
from jaxmle.parameters.arguments import check_choice, check_level, check_number, shown
from jaxmle.parameters.tree import Layout
from jaxmle.record.fit import Fit
from jaxmle.record.propagation import finite_point, propagated_rows
from jaxmle.record.scales import interval_on
from jaxmle.runtime.compile import compiled, precision
from jaxmle.solvers.status import Status

KINDS = ("mean", "link", "quantile", "probability")
# The scale on which a mean is linear; the identity for models that are not listed.
MEAN_LINKS = {
    "logistic": "logit", "probit": "probit", "cloglog": "cloglog", "beta": "logit",
    "multinomial": "logit", "ordinal": "logit", "poisson": "log", "negative_binomial": "log",
    "zero_inflated": "log", "hurdle": "log", "gamma": "log", "inverse_gaussian": "log",
    "aft": "log", "cox": "log",
}  # fmt: skip
CATEGORIES = ("multinomial", "ordinal")
BINARY = ("logistic", "probit", "cloglog", "binomial")
IS_LIMIT = "limit of a separated fit, without an interval"
NOT_DETERMINED = "not determined by a separated fit"
# Distances from the point of the verdict, in units of the fastest term.
LIMIT_DISTANCES = (1e5, 1e7)
SHARE_OF_EDGE = 1e4  # of an edge of the cone, relative to the interior direction
LIMIT_TOLERANCE = 1e-6  # two values far out that differ by less are the same limit
POSITIVE = ("gamma", "inverse_gaussian", "aft")  # models of a positive, continuous response


Rays = Callable[[ndarray], ndarray | None]


class Quantity(NamedTuple):
    """A function of parameters and data that returns (n,) or (n, K), its key for compiled programs,
    the scale of its intervals, and the likelihood that stores its programs.
    """

    function: Callable[[Tree, Tree], Array]
    key: Hashable
    scale: str
    loglik: Loglik


def ready_model(fitted: Fit, model: Foreign, what: str, frame: Foreign = None) -> Tree:
    """The built-in model of one fit: the given one, or the one recorded in the fit, checked against
    the ``Frame`` that is to be predicted.
    """
    if not isinstance(fitted, Fit):
        hint = "frame.predict(fit, new)" if what == "predict" else f"jaxmle.{what}(fit, frame)"
        raise TypeError(f"{what} takes the fit as its first argument, {hint}; got {shown(fitted)}")
    if fitted.batch_shape:
        raise ValueError(
            f"{what} takes a single fit; this is a batch of {fitted.batch_shape[0]}: give fits[i]"
        )
    ready = made_again(fitted.model) if model is None else model
    if ready is None:
        raise ValueError(
            "the fit does not record its model: pass the model that was fitted, "
            f"{what}(…, model=models.poisson())"
        )
    if not hasattr(ready, "natural") or not hasattr(ready, "law"):
        raise TypeError(
            f"{what} needs a built-in model, such as models.poisson(); got {type(ready).__name__}"
        )
    if frame is not None:
        columns = {leaf: design.names for leaf, design in frame.designs.items()}
        check_coded(fitted, ready, columns, frame.levels, what)
    return ready


def quantity_of(
    model: Foreign, kind: str, level: float | None = None, value: float | None = None
) -> Quantity:
    """The quantity for a kind of prediction of a built-in model.

    Raises:
        ValueError, TypeError: for a level or value that is missing or not needed; for a quantity
            that the model does not have.
    """
    check_choice("kind", kind, KINDS)
    if (level is not None) != (kind == "quantile"):
        raise ValueError(
            "kind='quantile' needs level, such as level=0.9"
            if level is None
            else f"level is only for kind='quantile'; got kind={kind!r}"
        )
    if value is not None and kind != "probability":
        raise ValueError(f"value is only for kind='probability'; got kind={kind!r}")
    if model.name == "cox" and kind in ("quantile", "probability"):
        curve = "quantile" if kind == "quantile" else "survival"
        raise ValueError(
            "a Cox model predicts the relative hazard (kind='mean') and the link; "
            f"jaxmle.survival.{curve}(model, fit, frame, …, new=rows) estimates "
            "everything else from the baseline"
        )
    tree = as_tree(model.likelihood)
    if kind == "link":
        return Quantity(predictor_of(model), (kind, model.natural), "identity", tree)
    if kind == "quantile":
        return _quantile(model, check_level(level), tree)
    if kind == "probability" and value is not None:
        return _at_most(model, check_number("value", value), tree)
    if kind == "probability" and model.name not in (*BINARY, *CATEGORIES):
        raise ValueError(
            f"{model!r} has no classes: give value=, and kind='probability' is the "
            "probability that the response is at most that value"
        )
    mean = model.law.function("mean", model.name)
    link = MEAN_LINKS.get(model.name, "identity")
    if model.name == "binomial":
        link = model.options.get("link", "logit")

    def mean_of(params: Tree, data: Tree) -> Array:
        return mean(*model.natural(params, data))

    return Quantity(mean_of, ("mean", model.natural, mean), link, tree)


def _quantile(model: Foreign, level: float, tree: Tree) -> Quantity:
    if model.law.discrete:
        raise ValueError(
            f"a quantile of {model!r} jumps from one count or class to the next, so it "
            "has no standard error; model.quantile(fit.params, frame.recode(new), "
            f"{level:g}) gives the number"
        )
    quantile = model.law.function("quantile", model.name)

    def quantile_of(params: Tree, data: Tree) -> Array:
        return quantile(jnp.asarray(level), *model.natural(params, data))

    scale = "log" if model.name in POSITIVE else "logit" if model.name == "beta" else "identity"
    return Quantity(quantile_of, ("quantile", level, model.natural, quantile), scale, tree)


def _at_most(model: Foreign, value: float, tree: Tree) -> Quantity:
    cdf = model.law.function("cdf", model.name)

    def probability_of(params: Tree, data: Tree) -> Array:
        natural = model.natural(params, data)
        rows = natural[0].shape[0]
        return cdf(jnp.full((rows,), value, natural[0].dtype), *natural)

    return Quantity(probability_of, ("at most", value, model.natural, cdf), "logit", tree)


def predictor_of(model: Foreign) -> Callable[[Tree, Tree], Array]:
    """The first linear predictor of a model with its offset, and the log of its exposure."""
    forms = getattr(core_of(as_tree(model.likelihood)), "forms", ())
    linear = [form for form in forms if isinstance(form, Linear)]
    first = linear[0] if linear else Linear("x", "beta", model.options.get("offset"))
    exposure = model.options.get("exposure")

    def predictor(params: Tree, data: Tree) -> Array:
        eta = eta_of(params, data, first.offset, first.x, first.param)
        return eta if exposure is None else eta + jnp.log(jnp.asarray(data[exposure]))

    return predictor


def predicted(
    fitted: Fit,
    quantity: Quantity,
    leaves: Tree,
    interval: float | None,
    rays: Rays,
) -> dict[str, ndarray]:
    """Estimates (n,) or (n, K) with standard errors and intervals, by column names; with a reason
    if a separated fit leaves some without an interval.

    Args:
        rays: a function of rows of ``leaves`` (n,) that returns the directions (q, p) along which a
            separated fit recedes, or None if not known.
    """
    if interval is not None:
        interval = check_level(interval)
        if fitted.vcov_kind == "none":
            raise ValueError(
                "the fit has no covariance (vcov=None), so there is no interval: give "
                "interval=None, or refit with a covariance"
            )
    with precision(fitted.dtype), np.errstate(all="ignore"):
        data = host_data(leaves, fitted.dtype, nan=True)
        run = _with_jacobian(quantity, fitted.layout)
        x = finite_point(fitted)
        value, jacobian = map(np.asarray, run(x, data))
        moved = propagated_rows(fitted, jacobian)
        reason = {}
        if fitted.verdict == Status.SEPARATED:
            saturated = np.linalg.norm(jacobian, axis=1) == 0.0  # at its limit, to the last digit
            lost = (moved.leaks | saturated).reshape(value.shape)
            lost &= ~np.isnan(value)  # NaN at a finite point means a missing value in the row
            limit = limits(lambda x: np.asarray(run(x, data)[0]), fitted, rays, lost)
            value = np.where(lost, limit, value)
            reason = _reasons(value, lost)
    if interval is None:
        return {"estimate": value, **reason}
    stderr = np.asarray(moved.stderr).reshape(value.shape)
    z = float(scipy.special.ndtri(0.5 + interval / 2))
    ends = np.asarray(interval_on(quantity.scale, value, stderr, z))
    return {
        "estimate": value,
        "std_error": stderr,
        "conf_low": ends[..., 0],
        "conf_high": ends[..., 1],
        **reason,
    }


def _with_jacobian(quantity: Quantity, layout: Layout) -> Function:
    """(x (p,), data) → the quantity, (n,) or (n, K), and its Jacobian in x, compiled."""

    def make(_: Tree) -> Function:
        def flat(x: Array, data: Tree) -> Array:
            return ravel_pytree(quantity.function(layout.unravel(x), data))[0]

        def run(x: Array, data: Tree) -> tuple[Array, Array]:
            return quantity.function(layout.unravel(x), data), jax.jacfwd(flat)(x, data)

        return run

    return compiled(quantity.loglik, ("predicted", quantity.key, layout), make)


def limits(evaluate: Callable[[Array], ndarray], fitted: Fit, rays: Rays, lost: ndarray) -> ndarray:
    """The limit of a quantity as a separated fit recedes, with the shape of ``evaluate(x)``; NaN if
    it depends on how the fit recedes.

    It is the value at the infinite estimates; if that is ∞ − ∞ or 0·∞, it is the value far out, if
    that is the same along every edge of the cone of recession.
    """
    at_estimate = evaluate(fitted.x)
    is_open = lost & np.isnan(at_estimate)
    if not is_open.any():
        return at_estimate
    of_row = is_open.reshape(len(is_open), -1)
    known = rays(np.asarray(np.any(of_row, axis=1)))
    if known is None or not len(known):
        return at_estimate
    inside = known[0] + np.concatenate([np.zeros_like(known[:1]), SHARE_OF_EDGE * known[1:]])
    near, far = (
        np.stack([evaluate(fitted.witness.point + t * d) for d in inside]) for t in LIMIT_DISTANCES
    )
    grows = (np.abs(near) > 1.0) & (
        np.abs(far) > 0.5 * LIMIT_DISTANCES[1] / LIMIT_DISTANCES[0] * np.abs(near)
    )
    far = np.where(grows, np.copysign(np.inf, far), far)
    settled = grows | np.isclose(near, far, rtol=LIMIT_TOLERANCE, atol=LIMIT_TOLERANCE)
    same = np.all(
        settled & np.isclose(far, far[0], rtol=LIMIT_TOLERANCE, atol=LIMIT_TOLERANCE), axis=0
    )
    return np.where(np.isnan(at_estimate) & same, far[0], at_estimate)


def rays_of(fitted: Fit, model: Loglik, frame: Foreign, leaves: Tree) -> Rays:
    """The directions along which a separated fit of a frame recedes, for some rows of ``leaves``.

    Args:
        frame: the ``Frame`` of the fit, with its weights.
    """

    def rays(asked: ndarray) -> ndarray | None:
        tree = as_tree(model)
        tree = tree if frame.weights is None else weight(tree, frame.weights)
        some = np.flatnonzero(asked)
        some = some[:: 1 + len(some) // MAX_ASKED]
        toward = slopes_of(model, fitted, {name: leaf[some] for name, leaf in leaves.items()})
        return recession_rays(fitted, tree, host_data(frame.data, fitted.dtype), toward)

    return rays


def slopes_of(model: Foreign, fitted: Fit, leaves: Tree) -> ndarray:
    """Gradients (m, p) of everything that determines a limit at some rows: the predictors, their
    differences, and the rest of each entry beyond a predictor, such as a threshold.
    """
    layout = fitted.layout
    predictor = predictor_of(model)

    def flat(x: Array, data: Tree) -> Array:
        eta = predictor(layout.unravel(x), data)
        return eta.reshape(eta.shape[0], -1)

    with precision(fitted.dtype):
        data = host_data(leaves, fitted.dtype, nan=True)
        slopes = np.asarray(jax.jacfwd(flat)(finite_point(fitted), data))  # (n, K, p)
    differences = slopes[:, :, None] - slopes[:, None]
    complements = np.eye(layout.p) - slopes[:, :, None]
    return np.concatenate(
        [part.reshape(-1, layout.p) for part in (slopes, differences, complements)]
    )


def _reasons(value: ndarray, lost: ndarray) -> dict[str, ndarray]:
    """The column of reasons, "" for a row with a standard error; no column if no row needs one."""
    if not lost.any():
        return {}
    return {"reason": np.where(lost, np.where(np.isnan(value), NOT_DETERMINED, IS_LIMIT), "")}


def with_rows(
    columns: dict[str, ndarray], rows: ndarray, levels: tuple[Label, ...] | None
) -> dict[str, ndarray]:
    """The columns of a frame: one row for each row, or for each row and class, with their names."""
    estimate = columns["estimate"]
    if estimate.ndim == 1:
        return {"row": rows, **columns}
    count = estimate.shape[1]
    names = class_names(count, levels)
    front = {"row": np.repeat(rows, count), "level": np.tile(np.array(names), len(rows))}
    return front | {name: values.reshape(-1) for name, values in columns.items()}


def class_names(count: int, levels: tuple[Label, ...] | None) -> list[Label]:
    """The names of the classes: levels of the response; for K − 1 predictors those other than the
    base; otherwise their numbers.
    """
    if levels is not None and len(levels) == count:
        return list(levels)
    if levels is not None and len(levels) == count + 1:
        return list(levels[1:])
    return list(range(count))
