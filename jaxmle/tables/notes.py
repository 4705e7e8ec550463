"""Shared by tables and explanations: a name as it is shown, and why a covariance is missing."""

from __future__ import annotations

import numpy as np

from jaxmle.tables.contents import Record

BY_CONJUGATE_GRADIENTS = "observed, by conjugate gradients"  # a kind of covariance


def printed(text: str) -> str:
    r"""A name as it is shown: characters that do not print, such as line ends and marks that turn
    the direction of writing, are escaped.

    >>> printed("price (€)"), printed("a\nb\u202e")
    ('price (€)', 'a\\nb\\u202e')
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def covariance_note(fit: Record) -> str:
    """Why a robust covariance does not exist, as a sentence; "" if it does."""
    row = int(fit.witness.row)
    kind = printed(fit.vcov_kind)
    clustered = kind.startswith("CR")
    if fit.vcov_kind == "none":
        return ""
    if row >= 0:
        return (
            f" {'The cluster of row' if clustered else 'Row'} {row} has leverage one, so {kind} "
            "does not exist."
        )
    if not np.any(np.isnan(np.diagonal(fit.witness.vcov))):
        return ""
    return (
        f" But {kind} is not valid here: the scores of a fit with as many parameters as "
        "rows are zero up to rounding, or there are too few clusters or rows for its "
        "correction"
        + (
            ", or a two-way clustered variance, which subtracts a sum over the "
            "intersections, is negative."
            if clustered
            else "."
        )
    )
