"""What a fit was made from: fingerprints of its data with their weights, and of its response with
its weights.

Two fits of one response, with the same rows and weights, can be compared whatever their designs
are; a fit is asked again only with all that it was made from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmle._types import Loglik, Tree
from jaxmle.fitting.fingerprint import fingerprint
from jaxmle.fitting.members import Ragged, Stacked, buckets
from jaxmle.fitting.record import Fit
from jaxmle.likelihood.anatomy import weights_of
from jaxmle.likelihood.checks import host_data
from jaxmle.likelihood.combinators import Fix, Penalize, Tie, Weight, WithResponse
from jaxmle.likelihood.regression import Linear, Regression
from jaxmle.likelihood.response import Enumeration

BYTES_TAKEN = 2**26  # bytes of the data of members that are looked at together
DESIGNS_OF_A_MODEL = frozenset({"x", "z"})  # a ready model that declares no regression reads these


def identity(loglik: Loglik, data: Tree, dtype: np.dtype) -> np.ndarray:
    """The fingerprint (2,) of data and of the weights that the likelihood carries."""
    weights = [np.asarray(values).astype(dtype) for values in weights_of(loglik)]
    return fingerprint((data, weights))


def identities(source: Stacked | Ragged, dtype: np.dtype) -> np.ndarray:
    """The fingerprints (b, 2) of the members of a batch, in the precision of its fit."""
    rows = jax.tree.map(lambda leaf: _real(np.asarray(leaf), dtype), source.rows)
    found = np.zeros((source.members, 2), np.uint32)
    source = replace(source, rows=rows)
    for length, owners in buckets(source.sizes, source.padded):
        size = max(1, int(BYTES_TAKEN // max(source.row_bytes() * sum(length), 1.0)))
        for part in np.split(owners, range(size, len(owners), size)):
            found[part] = source.take(part, length).data_id
    return found


def _real(leaf: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf


# ---------------------------------------------------------------- the response


def designs_of(loglik: Loglik) -> frozenset[str] | None:
    """The leaves of the data that are designs and offsets, where the likelihood says so; None
    where it does not.
    """
    if isinstance(loglik, Weight | Penalize | Fix | Tie | WithResponse):
        return designs_of(loglik.loglik)
    if isinstance(loglik, Regression):
        linear = [form for form in loglik.forms if isinstance(form, Linear)]
        return frozenset({f.x for f in linear} | {f.offset for f in linear if f.offset})
    if hasattr(loglik, "outcome") and hasattr(loglik, "likelihood"):
        declared = designs_of(loglik.likelihood)
        return DESIGNS_OF_A_MODEL if declared is None else declared
    return None


def response_of(loglik: Loglik, data: Tree) -> dict[str, Any] | None:
    """The leaves of the data that are the response and what goes with it (an event, trials), by
    name; None where that is not known.
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


def with_response_id(fit: Fit, asked: Any, tree: Any, data: Tree) -> Fit:
    """The fit, of one data set, with the fingerprint of its response.

    Args:
        asked: the likelihood as the user gave it, which a ready model is.
        tree: the same as a tree, with its weights.
    """
    response = response_of(asked, data)
    if response is None:
        return fit
    return replace(
        fit, response_id=identity(tree, list(host_data(response, fit.dtype).values()), fit.dtype)
    )


def with_response_ids(fits: Fit, asked: Any, source: Stacked | Ragged, dtype: np.dtype) -> Fit:
    """The same for a batch."""
    data, weights, _ = source.rows
    response = response_of(asked, data)
    if response is None:
        return fits
    kept = {id(leaf) for leaf in response.values()}
    flags = [id(leaf) in kept for leaf in jax.tree.leaves(data)]
    flags += [True] * len(jax.tree.leaves(weights))
    rows = (list(response.values()), weights, ())

    def chosen(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value for value, flag in zip(values, flags, strict=False) if flag)

    if isinstance(source, Stacked):
        part: Stacked | Ragged = replace(
            source, rows=rows, shared=chosen(source.shared), data_leaves=len(response)
        )
    else:
        part = replace(source, rows=rows, part=chosen(source.part), data_leaves=len(response))
    return replace(fits, response_id=identities(part, dtype))
