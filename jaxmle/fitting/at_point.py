"""A fit without a free parameter: the likelihood at the point that ``fix`` holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmle._types import Array, Data, Loglik
from jaxmle.fitting.identity import identity
from jaxmle.fitting.options import Options, Posed, covariance_of
from jaxmle.likelihood.contract import terms_of
from jaxmle.likelihood.structure import count, weighting_of
from jaxmle.record.fit import Fit, Witness
from jaxmle.runtime.compile import compiled, precision
from jaxmle.solvers.methods import Newton
from jaxmle.solvers.status import Status


def fit_at_point(posed: Posed, options: Options) -> Fit:
    """The record of a likelihood that has nothing to estimate: ℓ at the point, df 0, and no
    standard errors. It stands in an overall test: ``lr_test(null, full)``.
    """
    layout = posed.layout
    _, mode, label = covariance_of(posed.loglik, posed.chart, Newton(), options)

    def make(loglik: Loglik) -> Callable[..., Any]:
        def sum_and_rows(x: Array, data: Data) -> tuple[Array, Array]:
            terms = terms_of(loglik, layout.unravel(x), data)
            bad = ~jnp.isfinite(jnp.atleast_1d(terms))
            row = jnp.where(jnp.any(bad), jnp.argmax(bad), -1)
            return jnp.sum(terms), jnp.where(terms.ndim == 0, -1, row)

        return sum_and_rows

    with precision(posed.dtype), np.errstate(all="ignore"):
        run = compiled(posed.loglik, ("at point", layout), make)
        value, row = map(np.asarray, run(posed.base, posed.data))
        n = np.asarray(count(posed.loglik, posed.data, lambda: np.nan), posed.dtype)[()]
        data_id = identity(posed.loglik, posed.data, posed.dtype)
    finite = bool(np.isfinite(value))
    p = layout.p
    zeros = np.zeros(p, posed.dtype)
    unknown = np.full((p, p), np.nan, posed.dtype)
    none = posed.dtype.type(np.nan)

    def whole(value: Any) -> Any:
        return np.asarray(value).astype(np.int32)[()]

    return Fit(
        params=layout.unravel(posed.base),
        stderr=layout.unravel_entries(np.full(p, np.nan, posed.dtype)),
        vcov=unknown,
        hessian=np.zeros((p, p), posed.dtype),
        loglik=value[()] if finite else none,
        score=zeros,
        decrement=posed.dtype.type(0.0),
        n=n,
        status=whole(Status.CONVERGED if finite else Status.NONFINITE),
        witness=Witness(
            row=whole(-1 if finite else row),
            term=whole(-1 if finite else row),
            direction=zeros,
            sign=np.zeros(p, np.int32),
            projector=np.zeros((p, p), posed.dtype),
            vcov=unknown,
            bound=np.zeros(p, np.int32),
            curvature=none,
            digits=none,
            gain=posed.dtype.type(0.0),
            distance=posed.dtype.type(0.0),
            stderr_error=zeros,
            certificate=whole(0),
            point=posed.base,
        ),
        steps=whole(1),
        data_id=data_id,
        response_id=np.zeros_like(data_id),
        names=layout.names,
        bounds=layout.bounds,
        df=0,
        vcov_kind=label or "none",
        mode=mode,
        weighting=weighting_of(posed.loglik),
        layout=layout,
    )
