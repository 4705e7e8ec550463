"""Fingerprints of the data of a fit with their weights, and of its response with its weights.

Two fits of the same response, rows and weights can be compared whatever their designs are; a
procedure that takes the data again checks that they are those of the fit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from jaxmle._types import DType, Loglik, Tree, ndarray
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Fix, Penalize, Tie, Weight, WithResponse
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.response import Enumeration
from jaxmle.likelihood.structure import weights_of
from jaxmle.runtime.fingerprint import fingerprint
from jaxmle.tables.contents import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)
# The leaves that a built-in model reads as designs if it declares no regression.
DESIGNS_OF_A_MODEL = frozenset({"x", "z"})


def identity(loglik: Loglik, data: Tree, dtype: DType) -> ndarray:
    """The fingerprint (2,) of the data and of the weights in the likelihood."""
    weights = [np.asarray(values).astype(dtype) for values in weights_of(loglik)]
    return fingerprint((data, weights))


def call_of(loglik: Loglik) -> str:
    """The call that makes a built-in model, as text; "" for any other likelihood."""
    call = getattr(loglik, "call", "")
    return call if isinstance(call, str) and hasattr(loglik, "likelihood") else ""


# ---------------------------------------------------------------- the response


def designs_of(loglik: Loglik) -> frozenset[str] | None:
    """The leaves of the data that are designs and offsets, if the likelihood says so; otherwise
    None.
    """
    if isinstance(loglik, Weight | Penalize | Fix | Tie | WithResponse):
        return designs_of(loglik.loglik)
    if isinstance(loglik, Regression):
        linear = [form for form in loglik.forms if isinstance(form, Linear)]
        return frozenset({f.x for f in linear} | {f.offset for f in linear if f.offset})
    inner = getattr(loglik, "likelihood", None)
    if hasattr(loglik, "outcome") and inner is not None:
        declared = designs_of(inner)
        return DESIGNS_OF_A_MODEL if declared is None else declared
    return None


def response_of(loglik: Loglik, data: Tree) -> dict[str, Tree] | None:
    """The leaves of the data that belong to the response (also an event or trials), by name; None
    if not known.
    """
    if not isinstance(data, dict):
        return None
    law = getattr(loglik, "law", None)
    if isinstance(loglik, WithResponse) and isinstance(law, Enumeration):
        return {law.leaf: data[law.leaf]} if law.leaf in data else None
    designs = designs_of(loglik)
    if designs is None:
        return None
    return {name: data[name] for name in sorted(data) if name not in designs} or None


def with_response_id(fit: AnyRecord, user_loglik: Loglik, tree: Loglik, data: Tree) -> AnyRecord:
    """The fit, of one data set, with the fingerprint of its response.

    Args:
        user_loglik: the likelihood as the user gave it; a built-in model knows its response.
        tree: the likelihood as a tree, with its weights.
    """
    response = response_of(user_loglik, data)
    if response is None:
        return fit
    response_id = identity(tree, list(host_data(response, fit.dtype).values()), fit.dtype)
    changed: AnyRecord = replace(fit, response_id=response_id)  # type: ignore[type-var]
    return changed
