"""A Cox model with its estimate and its rows, the input of everything after the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmle._types import Clusters, Data, Foreign, Label, Loglik, Tree, ndarray
from jaxmle.data.frame import Frame
from jaxmle.inference.again import again, check_fit
from jaxmle.likelihood.checks import host_data, host_params
from jaxmle.likelihood.contract import leaf_of
from jaxmle.likelihood.information.covariance import cluster_codes
from jaxmle.models.common.coding import uncoded
from jaxmle.models.common.model import Model
from jaxmle.models.proportional_hazards import CoxOptions
from jaxmle.parameters.arguments import shown
from jaxmle.record.fit import Fit
from jaxmle.survival.risk_sets import RiskSets, Rows, risk_sets

MODEL_BASED = ("observed", "expected")
# Kinds that are sums over rows or clusters, for which the infinitesimal jackknife gives the
# variance of a curve.
ROBUST = ("HC0", "HC1", "CR0", "CR1", "CR1S")


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A Cox model at an estimate, with its rows and their risk sets.

    ``vcov`` (q, q) is None if parameters were given instead of a fit; ``strata`` are the codes of
    the strata, in the order of ``sets.rows.stratum``; ``clusters`` (n,) codes or None.
    """

    options: CoxOptions
    beta: ndarray
    vcov: ndarray | None
    vcov_kind: str
    names: tuple[str, ...]
    strata: tuple[Label, ...]
    sets: RiskSets
    clusters: ndarray | None

    @property
    def is_robust(self) -> bool:
        """Whether the covariance is a sum over rows or clusters."""
        return self.vcov is not None and self.vcov_kind not in MODEL_BASED

    @property
    def rows(self) -> Rows:
        """The rows of the data."""
        return self.sets.rows

    def new_rows(self, new: Tree) -> tuple[ndarray, ndarray, ndarray]:
        """Design (m, q), offset (m,) and strata (m,) of rows to predict for."""
        x = design_of(new, len(self.beta))
        m = len(x)
        offset = np.zeros(m)
        if self.options.offset is not None:
            offset = np.asarray(leaf_of(new, self.options.offset), float)
        if self.options.strata is None:
            return x, offset, np.zeros(m, int)
        codes = np.asarray(leaf_of(new, self.options.strata))
        place = np.searchsorted(np.asarray(self.strata), codes)
        place = np.minimum(place, len(self.strata) - 1)
        unknown = np.asarray(self.strata)[place] != codes
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(
                f"{self.options.strata} is {codes[row]} in row {row} of the new rows is "
                f"not in the fit, which has the strata {list(self.strata[:20])}"
            )
        return x, offset, place


def is_cox(model: Loglik) -> bool:
    """Whether a model was made by ``models.cox``."""
    return isinstance(model, Model) and isinstance(_options(model), CoxOptions)


def _options(model: Model) -> Foreign:
    return getattr(uncoded(model.likelihood), "keywords", {}).get("options")


def cox_fit(model: Foreign, fit: Fit, data: Data, what: str, clusters: Clusters = None) -> CoxFit:
    """The Cox model, its estimate and its rows, checked.

    Args:
        fit: the ``Fit`` of these data, or parameters ``{"beta": (q,)}``.
        data: the data of the fit: a dictionary, or a ``Frame``.
        what: the caller's name, for messages.
        clusters: those of a clustered fit, unless ``data`` is a ``Frame`` that has them.

    Raises:
        TypeError: for another model.
        ValueError: for data that are not those of the fit, or an estimate that is not finite.
    """
    if not is_cox(model):
        raise TypeError(f"{what} needs a Cox model, models.cox(…); got {shown(model)}")
    if isinstance(data, Frame):
        _, clusters = data.given(None, clusters)
        data = data.data
    options = _options(model)
    if isinstance(fit, Fit):
        check_fit(what, fit, alone=True)
        data = again(model, fit, data, alone=True, what=what).data
        params = fit.params
        vcov = np.asarray(fit.vcov)
        if clusters is not None and fit.vcov_kind in MODEL_BASED:
            raise ValueError(
                f"clusters are given, but the fit has the covariance {fit.vcov_kind}: "
                "leave them out, or give them to the fit too"
            )
    else:
        data = host_data(data, np.float64)
        model.check(data)
        params = host_params(fit, np.float64)
        vcov = None
    beta = np.atleast_1d(np.asarray(leaf_of(params, "beta", "params"), float))
    if not np.isfinite(beta).all():
        raise ValueError(
            f"{what} needs finite coefficients, but an estimate in beta is infinite or "
            "missing: see fit.explain()"
        )
    plain = tuple(f"beta[{j}]" for j in range(len(beta)))
    names = fit.names if isinstance(fit, Fit) else plain
    rows, strata = _rows(data, options, len(beta))
    kind = fit.vcov_kind if isinstance(fit, Fit) else "none"
    sets = risk_sets(rows, beta, options.ties)
    return CoxFit(options, beta, vcov, kind, names, strata, sets, _codes(clusters, rows.n))


def _codes(clusters: Clusters, n: int) -> ndarray | None:
    """Integer codes (n,) of one-way clusters; None without clusters or for two-way clusters."""
    if clusters is None:
        return None
    dimensions = cluster_codes(clusters, n)
    return np.asarray(dimensions[0]) if len(dimensions) == 1 else None


def _rows(data: Tree, options: CoxOptions, q: int) -> tuple[Rows, tuple[Label, ...]]:
    time = np.asarray(leaf_of(data, "time"), float)
    n = len(time)

    def column(name: str | None, otherwise: float) -> ndarray:
        return np.full(n, otherwise) if name is None else np.asarray(leaf_of(data, name), float)

    strata: tuple[Label, ...] = (0,)
    stratum = np.zeros(n, int)
    if options.strata is not None:
        labels, stratum = np.unique(np.asarray(leaf_of(data, options.strata)), return_inverse=True)
        strata = tuple(labels.tolist())
    rows = Rows(
        x=design_of(data, q),
        time=time,
        event=np.asarray(leaf_of(data, "event"), float),
        entry=column(options.entry, -np.inf),
        weight=column(options.weights, 1.0),
        stratum=stratum,
        offset=column(options.offset, 0.0),
    )
    return rows, strata


def design_of(data: Tree, q: int) -> ndarray:
    """The design (n, q) of rows; a single column (n,) counts as a matrix."""
    x = np.asarray(leaf_of(data, "x"), float)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.shape[1] != q:
        raise ValueError(f"x must have the shape (n, {q}), as in the fit; got {x.shape}")
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise ValueError(f"x is not finite in row {row}: drop or correct such rows")
    return x
