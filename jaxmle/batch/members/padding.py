"""Whether members of unequal length may be padded to a common length; if not, why."""

from __future__ import annotations

import jax
import numpy as np

from jaxmle._types import Loglik, Tree, ndarray
from jaxmle.batch.members.sources import are_equal, padded_rows
from jaxmle.likelihood.combinators import Penalize
from jaxmle.likelihood.discovery.row_axes import proof_of
from jaxmle.likelihood.structure import has, term_shape
from jaxmle.parameters.tree import Layout

MAX_LENGTHS_WITHOUT_PADDING = 32  # each length is compiled by itself, for about a second
MAX_TRACED_LENGTHS = 4  # a trace takes some 10 ms


def obstacle_to_padding(
    loglik: Loglik, layout: Layout, base: ndarray, data: Tree, sizes: ndarray
) -> str:
    """The reason why members must run at their own lengths; "" if they may be padded or have equal
    lengths.

    Padding is harmless if each term is proved to depend only on its own row.

    Args:
        data: those of the member with the most rows.
        sizes: rows of each member, (b, parts).

    Raises:
        ValueError: if that is not proved and there are more lengths than are worth compiling for.
    """
    lengths = np.unique(sizes[sizes.min(axis=1) > 0], axis=0)
    differ = not are_equal(sizes)
    has_terms = has(loglik, Penalize) or _has_terms(loglik, layout, base, data, differ)
    if not has_terms:
        _refuse_empty(sizes)
        return "the likelihood is one number"
    if not differ:
        return ""
    reach = [_reach(part) for part in sizes.T]
    proof = proof_of(loglik, layout, base, data, reach if sizes.shape[1] > 1 else reach[0])
    if not proof.holds and len(lengths) > MAX_LENGTHS_WITHOUT_PADDING:
        raise ValueError(
            "it could not be shown that each term of this likelihood depends only on its "
            f"own row ({proof.obstacle}), so its members cannot be padded to a common "
            f"length. They have {len(lengths)} lengths, each of which would be compiled "
            f"separately, and at most {MAX_LENGTHS_WITHOUT_PADDING} are allowed. Write "
            "each term as a function of its own row, and pass quantities of a member (a "
            "mean, 1/n) as a column of the data. Or fit the members one by one with "
            "jaxmle.fit, or in several calls"
        )
    return proof.obstacle


def _has_terms(loglik: Loglik, layout: Layout, base: ndarray, data: Tree, differ: bool) -> bool:
    """Whether the likelihood returns terms. If lengths differ, it is traced at a padded length,
    whose trace the next batch uses again.
    """
    if differ:
        padded = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (int(padded_rows(leaf.shape[0])), *leaf.shape[1:]), leaf.dtype
            ),
            data,
        )
        try:
            return bool(term_shape(loglik, layout, base, padded))
        except Exception:  # the user's function may raise anything at another number of rows
            pass  # at its own number, below, its error is raised
    return bool(term_shape(loglik, layout, base, data))


def _reach(sizes: ndarray) -> list[int]:
    """The lengths whose programs are compared: all if they are few, otherwise the shortest; and the
    longest padded length.
    """
    lengths = np.unique(sizes[sizes > 0])
    some = lengths if len(lengths) <= MAX_TRACED_LENGTHS else lengths[:1]
    return sorted({*map(int, some), int(padded_rows(lengths[-1]))})


def _refuse_empty(sizes: ndarray) -> None:
    empty = np.flatnonzero(sizes.min(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"member {empty[0]} has no rows, and a likelihood that returns one number has "
            "no value there: leave the member out"
        )
