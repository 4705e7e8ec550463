"""What each member of a batch was made from: fingerprints of its data and of its response."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np

from jaxmle._types import DType, Loglik, Tree, ndarray
from jaxmle.batch.members.sources import Ragged, Stacked, buckets
from jaxmle.record.fit import Fit
from jaxmle.record.identity import response_of

BYTES_FINGERPRINTED_TOGETHER = 2**26  # bytes of the data of members that are looked at together


def identities(source: Stacked | Ragged, dtype: DType) -> ndarray:
    """The fingerprints (b, 2) of the members of a batch, in the precision of its fit."""
    rows = jax.tree.map(lambda leaf: _real(np.asarray(leaf), dtype), source.rows)
    ids = np.zeros((source.members, 2), np.uint32)
    source = replace(source, rows=rows)
    for length, owners in buckets(source.sizes, source.padded):
        size = max(
            1, int(BYTES_FINGERPRINTED_TOGETHER // max(source.row_bytes() * sum(length), 1.0))
        )
        for part in np.split(owners, range(size, len(owners), size)):
            ids[part] = source.take(part, length).data_id
    return ids


def _real(leaf: ndarray, dtype: DType) -> ndarray:
    return leaf.astype(dtype, copy=False) if leaf.dtype.kind == "f" else leaf


def with_response_ids(
    fits: Fit, user_loglik: Loglik, source: Stacked | Ragged, dtype: DType
) -> Fit:
    """The fits of a batch, each with the fingerprint of its response."""
    data, weights, _ = source.rows
    response = response_of(user_loglik, data)
    if response is None:
        return fits
    responses = {id(leaf) for leaf in response.values()}
    flags = [id(leaf) in responses for leaf in jax.tree.leaves(data)]
    flags += [True] * len(jax.tree.leaves(weights))
    rows = (list(response.values()), weights, ())

    def chosen(values: tuple[Tree, ...]) -> tuple[Tree, ...]:
        return tuple(value for value, flag in zip(values, flags, strict=False) if flag)

    if isinstance(source, Stacked):
        part: Stacked | Ragged = replace(
            source, rows=rows, shared=chosen(source.shared), data_leaves=len(response)
        )
    else:
        part = replace(source, rows=rows, part=chosen(source.part), data_leaves=len(response))
    return replace(fits, response_id=identities(part, dtype))
